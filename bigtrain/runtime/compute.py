"""On what a training runs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Precision = Literal["32-true", "64-true", "bf16-mixed", "16-mixed"]


@dataclass(frozen=True)
class Compute:
    """Where, on how many devices and how precisely the players compute.

    Args:
        accelerator: `auto` takes a GPU if there is one.
        strategy: `single`: one process; `ddp`: a copy of the networks on each; `fsdp`: a shard of them on each;
            `hsdp`: copies, each sharded over `shard` processes; `auto`: single, or ddp on more than one process.
        devices: processes on each node, one a GPU; 0: as many as torchrun or SLURM started, otherwise all GPUs, or
            one process on a CPU.
        num_nodes: 0: as many as torchrun or SLURM knows, otherwise one.
        shard: processes that share one copy of the networks under `hsdp`; 0: those of a node.
        precision: of the networks; `bf16-mixed` and `16-mixed` keep the weights in float32.
        tf32: whether float32 products on a GPU may be rounded to TF32.
        threads: of the CPU for one operation; 0 leaves torch's choice.
        timeout_seconds: after which processes that wait for another one give up;
        start_timeout_seconds: the same until the first step is done, as compilers and full file systems take long.
    """

    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"
    strategy: Literal["auto", "single", "ddp", "fsdp", "hsdp"] = "auto"
    devices: int = 0
    num_nodes: int = 0
    shard: int = 0
    precision: Precision = "32-true"
    tf32: bool = False
    threads: int = 0
    timeout_seconds: float = 300.0
    start_timeout_seconds: float = 900.0

    def __post_init__(self) -> None:
        for name in ("devices", "num_nodes", "shard", "threads"):
            if getattr(self, name) < 0:
                raise ValueError(f"compute.{name} (={getattr(self, name)}) must not be negative")
        for name in ("timeout_seconds", "start_timeout_seconds"):
            if getattr(self, name) <= 0:
                raise ValueError(f"compute.{name} (={getattr(self, name)}) must be greater than 0")

    def apply(self) -> None:
        """Sets what torch keeps for the whole process."""
        import torch  # noqa: PLC0415 (so that a configuration is read without it)

        torch.set_float32_matmul_precision("high" if self.tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = self.tf32
        if self.threads:
            torch.set_num_threads(self.threads)

    def _on_cpu(self) -> bool:
        if self.accelerator != "auto":
            return self.accelerator == "cpu"
        import torch  # noqa: PLC0415

        return not torch.cuda.is_available() and not torch.backends.mps.is_available()

    def on_gpu(self) -> bool:
        """Whether GPUs are used."""
        import torch  # noqa: PLC0415

        return self.accelerator == "gpu" or (self.accelerator == "auto" and torch.cuda.is_available())

    def layout(self, environ: Mapping[str, str] = os.environ) -> tuple[int, int]:
        """Nodes, and processes on each.

        Raises:
            ValueError: if it is not what torchrun or SLURM started, or not for the precision.
        """
        import torch  # noqa: PLC0415

        if self.precision == "16-mixed" and self._on_cpu():
            raise ValueError("compute.precision (=16-mixed) is for GPUs: on a CPU use bf16-mixed or 32-true")
        nodes, local = _started(environ)
        devices = self.devices or local or (torch.cuda.device_count() if self.on_gpu() else 1)
        num_nodes = self.num_nodes or nodes or 1
        for name, wanted, found in (("devices", devices, local), ("num_nodes", num_nodes, nodes)):
            if found and wanted != found:
                raise ValueError(
                    f"compute.{name} (={wanted}) is not what torchrun or SLURM started (={found}): set it to 0, which "
                    "takes theirs, or start as many"
                )
        return num_nodes, devices


def under_slurm(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether `srun` started this process as one of a job's tasks. (Lightning's own question warns where `srun` is.)"""
    return "SLURM_PROCID" in environ and environ.get("SLURM_JOB_NAME") not in ("bash", "interactive")


def slurm_job(environ: Mapping[str, str] = os.environ) -> str | None:
    """SLURM's name of the job around this process; of an array's task its own: one of them has the array's number."""
    array = environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{environ['SLURM_ARRAY_TASK_ID']}" if array else environ.get("SLURM_JOB_ID")


def _started(environ: Mapping[str, str]) -> tuple[int, int]:
    """Nodes and processes a node of the launcher that started this process; zeros if there is none."""
    if "TORCHELASTIC_RUN_ID" in environ:
        local = int(environ["LOCAL_WORLD_SIZE"])
        return int(environ["WORLD_SIZE"]) // local, local
    if under_slurm(environ):
        nodes, tasks = int(environ.get("SLURM_NNODES", 1)), int(environ.get("SLURM_NTASKS", 1))
        if tasks % nodes:
            raise ValueError(f"SLURM started {tasks} tasks on {nodes} nodes; use --ntasks-per-node")
        return nodes, tasks // nodes
    return 0, 0


def launched(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether torchrun or SLURM started this process, and others beside it."""
    return _started(environ) != (0, 0)


def is_first(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is rank 0, before it has joined the others."""
    if "TORCHELASTIC_RUN_ID" in environ:
        return environ["RANK"] == "0"
    if launched(environ):
        return environ["SLURM_PROCID"] == "0"
    return environ.get("NODE_RANK", "0") == "0" and environ.get("LOCAL_RANK", "0") == "0"
