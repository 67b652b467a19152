"""How large a network is and how much it computes: counted, not measured."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from bigtrain.networks.base import Generator, Network


@dataclass(frozen=True)
class Cost:
    """Of a network, grown to its full resolution if it grows.

    Args:
        parameters: numbers that are trained, those of all resolutions included.
        multiply_adds: of a forward pass of one image, in convolutions and products of matrices.
    """

    parameters: int
    multiply_adds: int

    def __str__(self) -> str:
        """Such as `70.4 M parameters, 13.1 G multiply-adds an image`."""
        return f"{_rounded(self.parameters)} parameters, {_rounded(self.multiply_adds)} multiply-adds an image"


def cost(network: Network, place: Mapping[str, Any] | None = None) -> Cost:
    """Counts on the meta device: nothing is computed, and the network is left as it is.

    Args:
        network: any.
        place: `resolution` and `alpha` of one that grows; None for its full resolution.
    """
    alone = _without_numbers(network).eval()
    kind = next(alone.parameters()).dtype
    place = place or {}
    size = place.get("resolution", network.resolution)
    shape = (network.latent_dim,) if isinstance(network, Generator) else (network.image_channels, size, size)
    label = torch.zeros(1, dtype=torch.int64, device="meta") if network.num_classes else None
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        alone(torch.empty(1, *shape, dtype=kind, device="meta"), label, **place)
    # it counts a multiplication and an addition as two
    return Cost(sum(p.numel() for p in network.parameters()), counter.get_total_flops() // 2)


def _without_numbers(network: nn.Module) -> nn.Module:
    """A copy on the meta device, for one process."""
    memo: dict[int, object] = {
        id(p): nn.Parameter(torch.empty(p.shape, dtype=p.dtype, device="meta")) for p in network.parameters()
    }
    memo.update((id(b), torch.empty(b.shape, dtype=b.dtype, device="meta")) for b in network.buffers())
    alone = copy.deepcopy(network, memo)
    for module in alone.modules():
        if hasattr(module, "gather"):
            object.__setattr__(module, "gather", None)
    return alone


def _rounded(count: int) -> str:
    """Three digits and a unit."""
    for unit, name in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return str(count)
