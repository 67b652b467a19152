"""Sums over ranks that can be differentiated, as often as one likes."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class _Sum(torch.autograd.Function):
    """y = Σ over ranks of x. Each rank's loss depends on y, so the gradient of x is again a sum over ranks."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _Sum.apply(gradients[0])


def sum_across(x: Tensor) -> Tensor:
    """The sum over all ranks, on every rank, for gloo and NCCL.

    The gradient is that of the sum of all ranks' losses; gradients that are then averaged over ranks belong to the
    mean of their losses, as for every other layer.
    """
    return _Sum.apply(x)


def gather_across(x: Tensor) -> Tensor:
    """The tensors of all ranks, stacked by rank: [ranks, *x.shape]."""
    place = torch.zeros(dist.get_world_size(), dtype=x.dtype, device=x.device)
    place[dist.get_rank()] = 1
    return sum_across(place.reshape(-1, *[1] * x.ndim) * x)
