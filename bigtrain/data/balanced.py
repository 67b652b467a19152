"""Every class equally often."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bigtrain import randomness
from bigtrain.data.order import SampleOrder, alike, compact

TABLE = 4096  # samples whose classes are permuted together


class BalancedOrder(SampleOrder):
    """Of C classes, samples 0 … C-1 are one of each, so are C … 2C-1, and so on, each time in a new order.

    The k-th sample of a class is the k-th of a walk through all samples of the class, in a new permutation each time:
    the samples of a rare class come again sooner than those of a frequent one. There are no lanes: neighbours come
    from anywhere in the data, so the shards should fit into the cache. Permutations of all classes are kept, with
    about 8 bytes a sample, and up to as much again while the classes begin anew.

    Args:
        labels_by_shard: class ids of the samples of each shard, integers of 0 or more.
        seed: of the permutations.

    Raises:
        ValueError: if there are no samples, or labels that are no class ids.
    """

    def __init__(self, labels_by_shard: Sequence[NDArray[np.integer]], seed: int) -> None:
        sizes = [len(labels) for labels in labels_by_shard]
        super().__init__(len(sizes), sum(sizes))
        if not self.samples:
            raise ValueError(f"a balanced order needs samples; the {len(sizes)} shards have none")
        labels = np.concatenate([labels for labels in labels_by_shard if len(labels)])
        if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0:
            raise ValueError("a balanced order needs labels that are class ids, 0 or more, for all samples")
        self.seed = seed
        #: The classes that occur, ascending.
        self.classes, self._counts = np.unique(labels, return_counts=True)
        self._members = compact(np.argsort(labels, kind="stable"))  # all samples, a class after the other
        self._class_starts = np.cumsum(self._counts) - self._counts
        self._shard_starts = np.cumsum([0, *sizes[:-1]])
        self._start_list = self._shard_starts.tolist()  # bisect is six times slower on arrays
        self._rows = max(1, TABLE // len(self.classes))
        self._table = lru_cache(maxsize=8)(self._permute_classes)
        self._permuted = lru_cache(maxsize=2 * len(self.classes))(self._permute_samples)

    def at(self, g: int) -> tuple[int, int]:
        """Shard and sample within it of global index g ≥ 0."""
        turn, column = divmod(g, len(self.classes))
        table, row = divmod(turn, self._rows)
        c = int(self._table(table)[row, column])
        passed, nth = divmod(turn, int(self._counts[c]))  # each class has one sample a turn
        place = int(self._members[self._class_starts[c] + self._permuted(c, passed)[nth]])
        shard = bisect_right(self._start_list, place) - 1
        return shard, place - self._start_list[shard]

    def places(self, indices: ArrayLike) -> NDArray[np.int64]:
        """Shard and sample within it of each global index, int64 [n, 2]."""
        turn, column = np.divmod(np.asarray(indices, dtype=np.int64).reshape(-1), len(self.classes))
        table, row = np.divmod(turn, self._rows)
        c = np.empty_like(turn)
        for group in alike(table):
            c[group] = self._table(int(table[group[0]]))[row[group], column[group]]
        passed, nth = np.divmod(turn, self._counts[c])
        member = self._class_starts[c]
        for group in alike(passed * len(self.classes) + c):
            member[group] += self._permuted(int(c[group[0]]), int(passed[group[0]]))[nth[group]]
        place = self._members[member].astype(np.int64)
        shard = np.searchsorted(self._shard_starts, place, side="right") - 1
        return np.stack((shard, place - self._shard_starts[shard]), axis=1)

    def _permute_classes(self, table: int) -> NDArray[np.int64]:
        """Which of `classes` each sample of some turns has, [turns, classes]: ordered by a 64-bit number for each."""
        turns = range(table * self._rows, (table + 1) * self._rows)
        drawn = randomness.words(self.seed, "classes", turns, 2 * len(self.classes))
        high, low = np.split(drawn, 2, axis=1)
        return np.argsort((high << np.uint64(32)) | low, axis=1, kind="stable")

    def _permute_samples(self, c: int, passed: int) -> NDArray[np.unsignedinteger]:
        size, label = int(self._counts[c]), int(self.classes[c])
        return compact(randomness.permutation(size, self.seed, "class", label, passed))
