"""Paths between points, such as two latents: from one to the other, or closed through several."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

#: From starts and ends [n, d] and weights [steps] or [n, steps], 0 at the start and 1 at the end, to [n, steps, d].
Path = Callable[[Tensor, Tensor, Tensor], Tensor]


def linear(start: Tensor, end: Tensor, weight: Tensor) -> Tensor:
    """The straight line: (1 - w)·start + w·end."""
    w = weight[..., None]
    return (1 - w) * start[:, None] + w * end[:, None]


def spherical(start: Tensor, end: Tensor, weight: Tensor) -> Tensor:
    """The arc: the direction turns evenly, and the norm goes straight from one to the other.

    Between two normal latents of many dimensions a straight line runs through norms that no latent has (arXiv
    1609.04468; the arc is Shoemake's, SIGGRAPH 1985). Where there is no arc, between points in one or in opposite
    directions, it is the straight line.
    """
    norms = [point.norm(dim=1, keepdim=True) for point in (start, end)]
    directions = [
        point / norm.clamp(min=torch.finfo(norm.dtype).tiny) for point, norm in zip((start, end), norms, strict=True)
    ]
    angle = (directions[0] * directions[1]).sum(dim=1).clamp(-1, 1).acos()[:, None, None]
    w = weight[..., None]
    turned = ((1 - w) * angle).sin() * directions[0][:, None] + (w * angle).sin() * directions[1][:, None]
    arc = turned / angle.sin() * linear(norms[0], norms[1], weight)
    return torch.where(angle.sin() < 1e-6, linear(start, end, weight), arc)


PATHS: Final[dict[str, Path]] = {"spherical": spherical, "linear": linear}


def between(start: Tensor, end: Tensor, steps: int, path: Path) -> Tensor:
    """`steps` points from each start to its end [n, d], both of them included to the bit: float32 [n, steps, d].

    Raises:
        ValueError: if `steps` is below 2.
    """
    if steps < 2:
        raise ValueError(f"steps (={steps}) must be at least 2: a start and an end")
    # In float64, so that the ends are exact in float32, and so is the angle between directions that are nearly one.
    return path(start.double(), end.double(), torch.linspace(0, 1, steps, dtype=torch.float64)).float()


def loop(corners: Tensor, steps: int, path: Path) -> Tensor:
    """A closed path, `steps` points from each corner [n, d] to the next and from the last to the first: [n·steps, d].

    Every corner is on it once, at every `steps`-th place from the first on; the last point is a step from the first.

    Raises:
        ValueError: if there are fewer than 2 corners, or `steps` is below 1.
    """
    if len(corners) < 2 or steps < 1:
        raise ValueError(f"a loop needs at least 2 corners (={len(corners)}) and at least 1 for steps (={steps})")
    return between(corners, corners.roll(-1, dims=0), steps + 1, path)[:, :-1].flatten(0, 1)
