"""On what a training runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Precision = Literal["32-true", "64-true", "bf16-mixed"]


@dataclass(frozen=True)
class Compute:
    """Where and how precisely the players compute.

    Args:
        accelerator: `auto` takes a GPU if there is one.
        precision: of the networks; `bf16-mixed` keeps the weights in float32.
        tf32: whether float32 products on a GPU may be rounded to TF32.
        threads: of the CPU for one operation; 0 leaves torch's choice.
    """

    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"
    precision: Precision = "32-true"
    tf32: bool = False
    threads: int = 0

    def trainer_arguments(self) -> dict[str, Any]:
        """The part of it that Lightning's Trainer is told."""
        return {"accelerator": self.accelerator, "devices": 1, "precision": self.precision}

    def apply(self) -> None:
        """Sets what torch keeps for the whole process."""
        import torch  # noqa: PLC0415 (so that a configuration is read without it)

        torch.set_float32_matmul_precision("high" if self.tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = self.tf32
        if self.threads:
            torch.set_num_threads(self.threads)
