"""Bins around clusters of the real images, and how many of them the fakes fill otherwise."""

from __future__ import annotations

import torch
from torch import Tensor

from bigtrain.evaluation.metrics.neighbours import chosen, distance_blocks

SIGNIFICANT = 1.959963984540054  # two-sided, at 0.05


def k_means(points: Tensor, count: int, seed: int = 0, rounds: int = 50) -> Tensor:
    """Centres of `count` clusters of points [n, d], float64 [count, d], by Lloyd's rounds from points at random."""
    doubled = points.double()
    centres = chosen(doubled, count, seed, "k_means")
    for _ in range(rounds):
        nearest = _nearest(doubled, centres)
        sizes = torch.bincount(nearest, minlength=count)
        sums = torch.zeros_like(centres).index_add_(0, nearest, doubled)
        moved = torch.where(sizes[:, None] > 0, sums / sizes.clamp(min=1)[:, None], centres)  # an empty one stays
        if torch.equal(moved, centres):
            break
        centres = moved
    return centres


def _nearest(points: Tensor, centres: Tensor) -> Tensor:
    return torch.cat([squares.argmin(dim=1) for _, squares in distance_blocks(points, centres)])


def different_bins(real: Tensor, fake: Tensor, bins: int = 100, seed: int = 0) -> float:
    """The fraction of bins that hold another share of the fakes than of the reals: Richardson and Weiss's NDB/K.

    arXiv 1805.12462; a bin is what is nearest to a centre of the reals' clusters, and different if a two-sided z-test
    of the two proportions says so at 0.05. Equal distributions give 0.05 or less.

    Args:
        real, fake: features [n, d] and [m, d].
        bins: no more than a tenth of the reals.
        seed: of the clusters.
    """
    count = max(1, min(bins, len(real) // 10))
    centres = k_means(real, count, seed)
    in_real, in_fake = (torch.bincount(_nearest(some, centres), minlength=count).double() for some in (real, fake))
    pooled = (in_real + in_fake) / (len(real) + len(fake))
    error = (pooled * (1 - pooled) * (1 / len(real) + 1 / len(fake))).sqrt()
    difference = (in_real / len(real) - in_fake / len(fake)).abs()
    return float((difference > SIGNIFICANT * error).double().mean())
