"""Who is nearest to whom among the features of real images and of fakes, in blocks of float64 matrix products."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from bigtrain.randomness import permutation
from bigtrain.sampling.neighbours import squared_distances

#: The largest k that a metric asks for.
MOST = 5
BLOCK = 2**24  # distances at a time, 128 MiB
_EQUAL = 1e-13  # squared and relative: what float32 cannot tell apart
_ROUNDING = 1 + 1e-9  # a ball holds its k-th neighbour, whichever way that distance was rounded


class _Crossed(NamedTuple):
    """Of each fake and each real, against all of the others."""

    to_real: Tensor  # squared distance of a fake to its nearest real, [m]
    to_fake: Tensor  # of a real to its nearest fake, [n]
    real_balls: dict[int, Tensor]  # by k: how many balls of reals a fake is in, [m]
    fake_balls: dict[int, Tensor]  # how many balls of fakes a real is in, [n]


@dataclass(frozen=True, eq=False)
class Pairs:
    """Features of reals [n, d] and fakes [m, d], and what several metrics need of their distances, computed once.

    `strict` balls are without what is as far from the centre as the k-th neighbour.
    """

    real: Tensor
    fake: Tensor
    strict: bool = False

    @cached_property
    def real_neighbours(self) -> Tensor:
        """Squared distances of each real to its nearest other reals, float64 [n, 5], in ascending order."""
        return _nearest_others(self.real)

    @cached_property
    def fake_neighbours(self) -> Tensor:
        """The same among the fakes, [m, 5]."""
        return _nearest_others(self.fake)

    @cached_property
    def crossed(self) -> _Crossed:
        to_real, to_fake = [], torch.full((len(self.real),), torch.inf, device=self.real.device, dtype=torch.float64)
        sizes = [k for k in range(1, MOST + 1) if k < min(len(self.real), len(self.fake))]
        real_balls: dict[int, list[Tensor]] = {k: [] for k in sizes}
        fake_balls = {k: torch.zeros_like(to_fake, dtype=torch.int64) for k in sizes}
        for first, squares in distance_blocks(self.fake, self.real):
            rows = slice(first, first + len(squares))
            to_real.append(squares.amin(dim=1))
            to_fake = torch.minimum(to_fake, squares.amin(dim=0))
            for k in sizes:
                real_balls[k].append(self.inside(squares, self.real_neighbours[:, k - 1]).sum(dim=1))
                fake_balls[k] += self.inside(squares, self.fake_neighbours[rows, k - 1, None]).sum(dim=0)
        return _Crossed(torch.cat(to_real), to_fake, {k: torch.cat(some) for k, some in real_balls.items()}, fake_balls)

    def inside(self, squares: Tensor, radii: Tensor) -> Tensor:
        """Whether squared distances lie within balls of these squared radii."""
        return squares * _ROUNDING < radii if self.strict else squares <= radii * _ROUNDING

    def of_equal_size(self, seed: int = 0) -> Pairs:
        """Itself, or with as many of the larger set as there are in the smaller, chosen at random."""
        size = min(len(self.real), len(self.fake))
        if len(self.real) == len(self.fake):
            return self
        return Pairs(chosen(self.real, size, seed, "real"), chosen(self.fake, size, seed, "fake"), self.strict)


def chosen(rows: Tensor, size: int, seed: int, *stream: str | int) -> Tensor:
    """`size` rows at random without replacement, in the order of the draw."""
    return rows[torch.from_numpy(permutation(len(rows), seed, "chosen", *stream)[:size]).to(rows.device)]


def distance_blocks(a: Tensor, b: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Squared distances of rows of `a` to all of `b`, float64 [rows, m], each block with the number of its first row.

    Two features that float32 could not tell apart have distance 0.
    """
    others = b.double()
    lengths = others.square().sum(dim=1)
    rows = max(1, BLOCK // len(b))
    for first in range(0, len(a), rows):
        some = a[first : first + rows].double()
        squares = squared_distances(some, others)
        nothing = _EQUAL * (some.square().sum(dim=1)[:, None] + lengths)
        yield first, squares.masked_fill_(squares <= nothing, 0)


def _nearest_others(features: Tensor) -> Tensor:
    found = []
    for first, squares in distance_blocks(features, features):
        rows = torch.arange(len(squares), device=squares.device)
        squares[rows, first + rows] = torch.inf  # itself
        found.append(squares.topk(min(MOST, len(features) - 1), dim=1, largest=False).values)
    return torch.cat(found)


def precision_recall(pairs: Pairs, k: int = 3) -> tuple[float, float]:
    """Kynkäänniemi et al., arXiv 1904.06991: the fakes in a ball of the reals, the reals in a ball of the fakes.

    A ball around each sample reaches up to its k-th nearest other: closed (<=), if the pairs are not strict.
    """
    in_real, in_fake = pairs.crossed.real_balls[k] > 0, pairs.crossed.fake_balls[k] > 0
    return float(in_real.double().mean()), float(in_fake.double().mean())


def density_coverage(pairs: Pairs, k: int = 5) -> tuple[float, float]:
    """Naeem et al., arXiv 2002.09797: in how many balls of reals a fake is, over k; reals with a fake in their ball.

    The balls are closed (<=), as the paper defines them, if the pairs are not strict; its authors' code is strict, and
    says 0 of a set of equals.
    """
    density = pairs.crossed.real_balls[k].double().mean() / k
    covered = pairs.inside(pairs.crossed.to_fake, pairs.real_neighbours[:, k - 1])
    return float(density), float(covered.double().mean())


def nearest_neighbour_accuracy(pairs: Pairs, seed: int = 0) -> float:
    """How often the nearest other sample is of the same kind, among as many reals as fakes; 0.5 if nobody can tell.

    The classifier two-sample test by one nearest neighbour, leaving one out (Lopez-Paz and Oquab, arXiv 1610.06545).
    Below 0.5 fakes lie on reals. One of each kind at the same distance counts a half.
    """
    same = pairs.of_equal_size(seed)
    accuracy = torch.zeros((), dtype=torch.float64, device=same.real.device)
    for own, other in (
        (same.real_neighbours[:, 0], same.crossed.to_fake),
        (same.fake_neighbours[:, 0], same.crossed.to_real),
    ):
        accuracy += ((own < other).double() + (own == other).double() / 2).mean() / 2
    return float(accuracy)


def retrieval_distance(pairs: Pairs) -> float:
    """Mean distance of a real image to the nearest fake: large where the reals have something that no fake has."""
    return float(pairs.crossed.to_fake.sqrt().mean())


def memorization_distance(pairs: Pairs) -> float:
    """Mean over fakes of the least 1 - |cos| to a real (Bai et al., arXiv 2106.03062): small if reals are repeated."""
    real = F.normalize(pairs.real.double(), dim=1)
    rows = max(1, BLOCK // len(real))
    least = [1 - (F.normalize(some.double(), dim=1) @ real.T).abs().amax(dim=1) for some in pairs.fake.split(rows)]
    return float(torch.cat(least).clamp(min=0).mean())
