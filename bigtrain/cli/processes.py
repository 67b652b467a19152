"""The processes that sample or evaluate: this one, or as many as --devices, torchrun or SLURM say."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

import torch

from bigtrain.data.workers import terminable
from bigtrain.runtime.compute import Compute, launched
from bigtrain.runtime.watch import INTERRUPTED, MISTAKE, Watch
from bigtrain.runtime.world import World
from bigtrain.snapshots import Snapshot, load_snapshot
from bigtrain.storage.secrets import redacted

#: In which a batch, a metric, or the upload of what was made must be done.
SECONDS: Final = 1800.0


class Rank(NamedTuple):
    """One of the processes."""

    world: World
    device: torch.device
    watch: Watch


def compute_of(devices: int | None) -> Compute:
    """On what a command computes: on GPUs if there are any, by one process unless the user asks for more.

    Args:
        devices: what --devices says.

    Raises:
        ValueError: if there cannot be so many processes.
    """
    gpus = torch.cuda.device_count()
    if devices is not None and launched():
        raise ValueError(f"--devices (={devices}) is not for torchrun or SLURM, which started theirs: leave it out")
    if gpus and devices is not None and devices > gpus:
        raise ValueError(f"--devices (={devices}) must be at most {gpus}, the GPUs of this machine")
    return Compute(accelerator="gpu" if gpus else "cpu", devices=0 if launched() else devices or 1)


def as_first_has(snapshot: Snapshot, world: World) -> Snapshot:
    """Rank 0's newest snapshot of a run: one that is trained on may have another newest one by now."""
    name = world.tell(snapshot.name)
    return snapshot if name == snapshot.name else load_snapshot(f"{name}.safetensors")


def on_ranks(compute: Compute, arguments: Sequence[str], action: Callable[[Rank], None]) -> int:
    """Does the action on every rank, of which this process is one. Returns the exit code.

    Args:
        compute: how many, and on what.
        arguments: of the command `bigtrain`, by which the others are started.
        action: what each does; interrupted by SIGTERM as by Ctrl-C, so that it can clear up.
    """
    compute.apply()
    with terminable():
        if math.prod(compute.layout()) > 1:
            return _on_many(compute, arguments, action)
        action(Rank(World(), torch.device("cuda" if compute.on_gpu() else "cpu"), Watch(World())))
        return 0


def _on_many(compute: Compute, arguments: Sequence[str], action: Callable[[Rank], None]) -> int:
    from bigtrain.runtime.launch import join, make_trainer, ranks  # noqa: PLC0415 (lightning: only for many)

    with ranks(compute, arguments):
        # A CPU rounds sums by its number of threads: it must be one for all, also for the one that starts the others.
        replace(compute, threads=int(os.environ.get("OMP_NUM_THREADS", "0").split(",")[0])).apply()
        world, parallel = join(make_trainer(compute, Path()), compute)
        if not world.is_first:
            logging.disable(logging.WARNING)  # what all find out, the first one says
        watch = Watch(world, SECONDS, again="give the command again", clean=redacted)
        try:
            with watch:
                action(Rank(world, parallel.device, watch))
            world.leave()
        except (ValueError, OSError):
            if world.is_first:
                raise
            return MISTAKE  # the first one tells it
        except KeyboardInterrupt:
            if world.is_first:
                raise
            return INTERRUPTED
    return 0
