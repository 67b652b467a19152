"""The processes that make samples: this one, or as many as --devices, torchrun or SLURM say."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

import torch

from bigtrain.data.workers import terminable
from bigtrain.runtime.compute import Compute, launched
from bigtrain.runtime.watch import Watch
from bigtrain.runtime.world import World

#: In which a round of batches, or the upload of what was made, must be done.
SECONDS: Final = 1800.0
INTERRUPTED: Final = 130


class Rank(NamedTuple):
    """One of the processes."""

    world: World
    device: torch.device
    watch: Watch


def compute_of(options: argparse.Namespace) -> Compute:
    """On what the samples are made: on GPUs if there are any, by one process unless the user asks for more.

    Raises:
        ValueError: if there cannot be so many processes, or the kind is not for more than one.
    """
    gpus = torch.cuda.device_count()
    if options.devices is not None and launched():
        raise ValueError(
            f"--devices (={options.devices}) is not for torchrun or SLURM, which started theirs: leave it out"
        )
    if gpus and options.devices is not None and options.devices > gpus:
        raise ValueError(f"--devices (={options.devices}) must be at most {gpus}, the GPUs of this machine")
    compute = Compute(accelerator="gpu" if gpus else "cpu", devices=0 if launched() else options.devices or 1)
    processes = math.prod(compute.layout())
    if processes > 1 and options.kind != "samples":
        raise ValueError(f"--kind {options.kind} is made by one process, and {processes} were started: start one")
    return compute


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
        watch = Watch(world, SECONDS, again="give the command again")
        try:
            with watch:
                action(Rank(world, parallel.device, watch))
            world.leave()
        except (ValueError, OSError):
            if watch.first_to_fail:
                raise
            return 2  # another rank says the same
        except KeyboardInterrupt:
            if world.is_first:
                raise
            return INTERRUPTED
    return 0
