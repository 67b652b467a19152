"""The exponential moving average of a network: the generator that is sampled, scored and shared."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from bigtrain.runtime.parallel import local


class EMA(nn.Module):
    """An average of all state of a network, buffers included, with a half-life in images.

    After each step of `images` real images: average ← lerp(network, average, β) with β = 0.5^(images / half-life), so
    the average is the same for every batch size. Before `start` images it is a copy. Whole numbers are copied. Sharded
    networks have an average that is sharded alike: each rank averages what it holds.

    Args:
        network: what is averaged; the average begins as a copy of it.
        half_life: in images; 0 makes the average a copy throughout.
        start: in images.
    """

    def __init__(self, network: nn.Module, half_life: int, start: int = 0) -> None:
        super().__init__()
        if half_life < 0 or start < 0:
            raise ValueError(f"the EMA's half-life (={half_life}) and start (={start}) must not be negative")
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        self.half_life, self.start = half_life, start

    def train(self, mode: bool = True) -> EMA:
        """An average is never in training mode."""
        return super().train(False)

    def beta(self, images_seen: int, images: int) -> float:
        """The weight of the old average in the step of `images` images that begins at `images_seen`."""
        return 0.5 ** (images / self.half_life) if self.half_life and images_seen >= self.start else 0.0

    @torch.no_grad()
    def update(self, network: nn.Module, images_seen: int, images: int) -> None:
        beta = self.beta(images_seen, images)
        averages, values = _tensors(self.network), _tensors(network)
        floating = [(a, v) for a, v in zip(averages, values, strict=True) if a.is_floating_point()]
        torch._foreach_lerp_([a for a, _ in floating], [v for _, v in floating], 1 - beta)
        for average, value in zip(averages, values, strict=True):
            if not average.is_floating_point():
                average.copy_(value)


def _tensors(network: nn.Module) -> list[Tensor]:
    return [local(tensor) for tensor in (*network.parameters(), *network.buffers())]
