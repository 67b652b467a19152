"""Starts the ranks of a training, and tells Lightning to leave the players alone."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from lightning import Trainer
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.strategies import DDPStrategy

from bigtrain.runtime.compute import Compute, under_slurm
from bigtrain.runtime.parallel import Parallel, Strategy, check_strategy
from bigtrain.runtime.world import World

SECONDS_TO_END = 30.0
#: Of NCCL: the last collectives are kept, and written to files when one of them hangs.
FLIGHT_RECORDER = {"TORCH_FR_BUFFER_SIZE": "2000", "TORCH_NCCL_DUMP_ON_TIMEOUT": "1"}


class PlayersStrategy(DDPStrategy):
    """Lightning's part of `ddp`, `fsdp` and `hsdp`: processes, devices and the process group. Players wrap themselves.

    Lightning's own wrapper around the module would reduce both networks in every backward.
    """

    def configure_ddp(self) -> None:
        """Nothing: the LightningModule itself is never wrapped."""


def strategy_of(compute: Compute, environ: Mapping[str, str] = os.environ) -> tuple[Strategy, int]:
    """The strategy, and how many processes share a copy.

    Raises:
        ValueError: if it does not fit the number of processes.
    """
    nodes, devices = compute.layout(environ)
    world = nodes * devices
    strategy: Strategy = compute.strategy if compute.strategy != "auto" else ("ddp" if world > 1 else "single")
    shard = compute.shard or devices
    check_strategy(strategy, world, shard)
    return strategy, shard


def make_trainer(compute: Compute, folder: Path) -> Trainer:
    """Lightning's Trainer, which runs the loop and no more: loggers and callbacks are still to be set.

    Args:
        compute: on what it runs.
        folder: of the run.
    """
    for package in ("lightning.pytorch", "lightning.fabric"):  # they tell what is not done here
        logging.getLogger(package).setLevel(logging.WARNING)
    strategy, _ = strategy_of(compute)
    nodes, devices = compute.layout()
    options: dict[str, Any] = {}
    if strategy != "single":
        options["strategy"] = PlayersStrategy(timeout=timedelta(seconds=compute.start_timeout_seconds))
    if under_slurm():  # its own requeueing would save within a step
        options["plugins"] = [SLURMEnvironment(auto_requeue=False)]
    with warnings.catch_warnings():  # a machine may well have `srun`, and train without it
        warnings.filterwarnings("ignore", message="The `srun` command is available")
        return Trainer(
            accelerator=compute.accelerator,
            devices=devices,
            num_nodes=nodes,
            precision=compute.precision,
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            default_root_dir=folder,
            **options,
        )


@contextlib.contextmanager
def ranks(compute: Compute, arguments: Sequence[str]) -> Iterator[None]:
    """Starts the other ranks of this node, unless a launcher did: the same command in a process of its own each.

    (Lightning's launcher would kill this process when another one ends with an error, also while it saves.)

    Args:
        compute: how many.
        arguments: of the command `bigtrain`.
    """
    nodes, devices = compute.layout()
    if devices * nodes == 1 or "LOCAL_RANK" in os.environ or under_slurm():
        yield
        return
    if nodes > 1 and not {"MASTER_ADDR", "MASTER_PORT", "NODE_RANK"} <= os.environ.keys():
        raise ValueError(
            f"compute.num_nodes (={nodes}): start one process a GPU on every node by torchrun or SLURM, or one a node "
            "with MASTER_ADDR, MASTER_PORT and NODE_RANK in the environment"
        )
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", str(_free_port()))
    os.environ.setdefault("NODE_RANK", "0")
    os.environ.update(LOCAL_RANK="0", WORLD_SIZE=str(nodes * devices))
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // devices)))
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # it shows a C++ stack when a rank is lost
    command = [sys.executable, "-m", "bigtrain", *arguments]
    others = [subprocess.Popen(command, env={**os.environ, "LOCAL_RANK": str(i)}) for i in range(1, devices)]
    try:
        yield
    finally:
        _end(others)
        for name in ("LOCAL_RANK", "WORLD_SIZE", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT"):
            os.environ.pop(name, None)


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    """Waits for the processes, not for ever."""
    deadline = time.monotonic() + SECONDS_TO_END
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, deadline - time.monotonic()))
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def join(trainer: Trainer, compute: Compute) -> tuple[World, Parallel]:
    """Joins the process group. All ranks call it at the same time."""
    strategy, shard = strategy_of(compute)
    for name, value in FLIGHT_RECORDER.items():
        os.environ.setdefault(name, value)
    trainer.strategy.setup_environment()
    return World(), Parallel(strategy, trainer.strategy.root_device, shard)
