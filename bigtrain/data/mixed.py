"""Several data sets mixed by weight."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bigtrain import randomness
from bigtrain.data.order import SampleOrder, alike


class MixedOrder(SampleOrder):
    """Each sample is the next one of one of several data sets, which are drawn by weight.

    Of every `period` samples each data set has its share exactly (to one sample, the largest remainders rounded up),
    in a new permutation. The k-th sample of a data set is sample k of its own order: each goes through all of its
    samples once in each epoch of its own, however often the others have gone through theirs. The shards of a data set
    are numbered after those of the data sets before it.

    Args:
        orders: of the data sets.
        weights: of the data sets, above 0; relative to their sum.
        seed: of the mixture; the orders have theirs.
        period: number of samples of which each data set has its share.

    Raises:
        ValueError: if a weight is missing, not above 0, or too small for one sample in each period.
    """

    def __init__(self, orders: Sequence[SampleOrder], weights: Sequence[float], seed: int, period: int = 4096) -> None:
        if not orders or len(weights) != len(orders):
            raise ValueError(f"weights (={list(weights)}) must be one number for each of the {len(orders)} data sets")
        if not all(math.isfinite(weight) and weight > 0 for weight in weights):
            raise ValueError(f"weights (={list(weights)}) must be finite and above 0; leave out what is not wanted")
        if period < len(orders):
            raise ValueError(f"period (={period}) must be at least the number of data sets (={len(orders)})")
        super().__init__(sum(order.shards for order in orders), sum(order.samples for order in orders))
        self.orders, self.seed, self.period = list(orders), seed, period
        #: Samples of each data set in each period.
        self.counts = shares(weights, period)
        if min(self.counts) < 1:
            least = math.fsum(weights) / period
            raise ValueError(
                f"weights (={list(weights)}) give a data set none of the {period} samples of a period; "
                f"make each at least {least:.3g} or period (={period}) larger"
            )
        #: The number of each data set's first shard.
        self.first_shards = [sum(order.shards for order in orders[:d]) for d in range(len(orders))]
        self._pattern = lru_cache(maxsize=8)(self._make_pattern)

    def at(self, g: int) -> tuple[int, int]:
        """Shard and sample within it of global index g ≥ 0."""
        data_set, k = self.pick(g)
        shard, sample = self.orders[data_set].at(k)
        return self.first_shards[data_set] + shard, sample

    def open_shards(self, world: int = 1) -> int:
        """How many shards a rank reads at the same time; whichever lanes of a data set the mixture gives it."""
        return sum(order.open_shards() for order in self.orders)

    def pick(self, g: int) -> tuple[int, int]:
        """The data set of global index g ≥ 0, and the index in its own order."""
        period, position = divmod(g, self.period)
        data_sets, nth = self._pattern(period)
        data_set = int(data_sets[position])
        return data_set, period * self.counts[data_set] + int(nth[position])

    def places(self, indices: ArrayLike) -> NDArray[np.int64]:
        """Shard and sample within it of each global index, int64 [n, 2]."""
        period, position = np.divmod(np.asarray(indices, dtype=np.int64).reshape(-1), self.period)
        data_set, k = np.empty_like(period), np.empty_like(period)
        for group in alike(period):
            data_sets, nth = self._pattern(int(period[group[0]]))
            data_set[group], k[group] = data_sets[position[group]], nth[position[group]]
        k += period * np.asarray(self.counts)[data_set]
        found = np.empty((len(period), 2), dtype=np.int64)
        for group in alike(data_set):
            one = int(data_set[group[0]])
            found[group] = self.orders[one].places(k[group])
            found[group, 0] += self.first_shards[one]
        return found

    def _make_pattern(self, period: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The data set of each sample of a period, and how many samples of the period it has had before; [period]."""
        permuted = randomness.permutation(self.period, self.seed, "mix", period)
        data_sets = np.repeat(np.arange(len(self.orders)), self.counts)[permuted]
        nth = np.empty_like(data_sets)
        for group in alike(data_sets):
            nth[group] = np.arange(len(group))
        return data_sets, nth


def shares(weights: Sequence[float], total: int) -> list[int]:
    """Whole numbers with that sum, proportional to the weights (largest remainder; the first of equal ones)."""
    whole = math.fsum(weights)
    exact = [total * (weight / whole) for weight in weights]
    counts = [math.floor(share) for share in exact]
    remainders = sorted(range(len(weights)), key=lambda d: counts[d] - exact[d])  # (sorted is stable)
    for d in remainders[: total - sum(counts)]:
        counts[d] += 1
    return counts
