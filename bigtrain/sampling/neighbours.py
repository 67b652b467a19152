"""The real images that are nearest to samples: whether a generator repeats what it was trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from bigtrain.sampling.sheets import Sheet

#: From images uint8 [n, c, h, w] to what distances are measured between, [n, d].
Features = Callable[[Tensor], Tensor]


class Neighbours(NamedTuple):
    """The k nearest real images of each of n images, the nearest first; of equally near ones the earlier first."""

    distances: Tensor  # float64 [n, k]
    positions: Tensor  # int64 [n, k], in the order in which the real images came
    images: Tensor  # uint8 [n, k, c, h, w]


def pixels(images: Tensor) -> Tensor:
    """Grey levels 0 … 255, float64 [n, c · h · w]."""
    return images.flatten(1).double()


def nearest(images: Tensor, real: Iterable[Tensor], count: int, features: Features = pixels) -> Neighbours:
    """The nearest real images by the Euclidean distance of their features.

    Every real image is compared, in float64: sums of squares of pixels are whole numbers below 2^53, so that distances
    are exact, and 0 between equal images.

    Args:
        images: uint8 [n, c, h, w].
        real: batches of such images; only the nearest so far are kept of them.
        count: neighbours of each image; all real images if there are fewer.
        features: that are compared.

    Raises:
        ValueError: if `count` is below 1.
    """
    if count < 1:
        raise ValueError(f"nearest (={count}) must be at least 1")
    wanted = features(images).double()
    squares, positions = torch.empty(len(images), 0).double(), torch.empty(len(images), 0, dtype=torch.int64)
    pictures = images.new_empty(len(images), 0, *images.shape[1:])
    seen = 0
    for block in real:
        near = squared_distances(wanted, features(block).double())
        order = near.argsort(dim=1, stable=True)[:, :count]
        squares = torch.cat((squares, near.gather(1, order)), dim=1)
        positions = torch.cat((positions, order + seen), dim=1)
        pictures = torch.cat((pictures, block[order]), dim=1)
        best = squares.argsort(dim=1, stable=True)[:, :count]
        row = torch.arange(len(images))[:, None]
        squares, positions, pictures = squares[row, best], positions[row, best], pictures[row, best]
        seen += len(block)
    return Neighbours(squares.sqrt(), positions, pictures)


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Squared Euclidean distances [n, m] of rows [n, d] and [m, d]: |a|² + |b|² - 2a·b."""
    return (a.square().sum(1)[:, None] + b.square().sum(1)[None] - 2 * a @ b.T).clamp(min=0)


def neighbour_sheet(images: Tensor, found: Neighbours) -> Sheet:
    """A row for each image: itself, then its neighbours."""
    rows = torch.cat((images[:, None], found.images), dim=1)  # [n, 1 + k, c, h, w]
    return Sheet(rows.flatten(0, 1), rows.shape[1])
