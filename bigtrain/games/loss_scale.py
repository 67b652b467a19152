"""The scale of a player's loss, without which small gradients vanish in float16."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

#: Gradients that are 0 throughout would make it grow for ever.
LARGEST = 2.0**32


class LossScale:
    """What a player's loss is multiplied with before backward, and its gradients are divided by after it.

    It doubles after so many updates in a row. A gradient that is not finite halves it, and its update is skipped; but
    it is never below 1, where such a gradient is not its fault. It is a power of two: it does not round.

    Args:
        value: at first.
        growth_steps: updates in a row after which it doubles.
    """

    def __init__(self, value: float = 2.0**16, growth_steps: int = 2000) -> None:
        if value < 1 or torch.frexp(torch.tensor(value)).mantissa != 0.5:
            raise ValueError(f"the loss scale (={value}) must be a power of two of at least 1")
        if growth_steps < 1:
            raise ValueError(f"growth_steps (={growth_steps}) of the loss scale must be at least 1")
        self.value, self.growth_steps = value, growth_steps
        #: Updates since it last changed, and updates that were skipped since the training began.
        self.good, self.skipped = 0, 0

    def grow(self) -> None:
        """To be called after an update."""
        self.good += 1
        if self.good == self.growth_steps:
            self.value, self.good = min(LARGEST, 2 * self.value), 0

    def shrink(self) -> None:
        """To be called in place of an update."""
        self.value, self.good, self.skipped = self.value / 2, 0, self.skipped + 1

    def state(self) -> dict[str, Tensor]:
        return {
            "value": torch.tensor(self.value, dtype=torch.float64),
            "good": torch.tensor(self.good),
            "skipped": torch.tensor(self.skipped),
        }

    def load(self, tensors: Mapping[str, Tensor], prefix: str) -> None:
        """The reverse of `state`, from the tensors of these names with the prefix; nothing if they are not there."""
        if f"{prefix}value" in tensors:
            self.value = float(tensors[f"{prefix}value"])
            self.good, self.skipped = (int(tensors[f"{prefix}{name}"]) for name in ("good", "skipped"))
