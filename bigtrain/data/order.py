"""Which sample comes next: a pure function of seed, manifest and the global sample index."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bigtrain import randomness

FIRST_WINDOW, WINDOW = 64, 4096  # samples that `SampleOrder.read_ahead` looks up together, at first and at most
REMEMBERED = 65_536  # samples for which it does not name a shard again


class SampleOrder(ABC):
    """Which sample each global index is. Holds nothing but caches, so any thread may ask for any index at any time.

    Args:
        shards: number of shards; they are numbered from 0.
        samples: number of different samples.
    """

    def __init__(self, shards: int, samples: int) -> None:
        self.shards, self.samples = shards, samples

    @abstractmethod
    def at(self, g: int) -> tuple[int, int]:
        """Shard and sample within it of global index g ≥ 0."""

    @abstractmethod
    def places(self, indices: ArrayLike) -> NDArray[np.int64]:
        """Shard and sample within it of each global index, int64 [n, 2]: `at` of many, faster by the thousand."""

    def pairs(self, indices: ArrayLike) -> list[tuple[int, int]]:
        """The same as pairs of numbers."""
        return [(shard, sample) for shard, sample in self.places(indices).tolist()]

    def open_shards(self, world: int = 1) -> int:
        """How many shards a rank of `world` reads at the same time, about; each for long. Here all of them."""
        return self.shards

    def read_ahead(self, g: int, rank: int = 0, world: int = 1) -> Iterator[int]:
        """The shards of samples g + rank, g + rank + world, … in the order in which these need them, without an end.

        This one looks the samples up, a window after the other, and names a shard once for as long as no 65,536 of
        them go by without it: then it may have been dropped in the meantime, and is named again.

        Args:
            g: where a global batch begins, 0 or more: the i-th sample from it belongs to rank i mod `world`.
            rank: 0 ≤ rank < world.
            world: number of ranks; divides the global batches.
        """
        assert 0 <= rank < world, (rank, world)
        last_seen = np.full(self.shards, -REMEMBERED - 1, dtype=np.int64)
        begin, size = 0, FIRST_WINDOW
        while True:
            needed = by_need(self.places(g + rank + world * np.arange(begin, begin + size))[:, 0])
            new = needed[begin - last_seen[needed] > REMEMBERED]
            last_seen[needed] = begin
            yield from new.tolist()
            begin, size = begin + size, min(2 * size, WINDOW)


class _Line(NamedTuple):
    """The shards of an epoch: where the line begins on them, their permutation, and where each of them starts."""

    rotation: int
    shards: NDArray[np.int64]
    starts: NDArray[np.int64]
    start_list: list[int]  # the same, as bisect is six times slower on arrays


class Order(SampleOrder):
    """`at(g)` is the shard and the sample of global index g: a new permutation of all samples in each epoch.

    An epoch lays the shards, permuted, on a line that starts at a random place, and cuts the line into lanes of equal
    length (to one sample). Sample g comes from lane g mod `lanes`, so that a batch draws from places all over the
    line; a lane is read in blocks, each permuted, so that it has only a few shards open at a time. Nothing is dropped
    and nothing doubled within an epoch, and nothing depends on the number of ranks or threads.

    A rank of W reads lanes / gcd(lanes, W) lanes, each together with W / gcd(lanes, W) - 1 other ranks. If `lanes` is
    a multiple of W, no other rank reads its shards, but for those on the borders of its lanes. An epoch's length
    that is no multiple of gcd(lanes, W) gives a rank other lanes in the next epoch. That costs nothing: the line is
    new then, so the old lane would have other shards too.

    Up to two permuted blocks are kept for each lane that is read here: 2 bytes a sample for blocks of up to 65,536.

    Args:
        shard_samples: number of samples of each shard, 0 or more.
        seed: of the permutations.
        lanes: at most so many; fewer if a lane would have less than a block.
        block_shards: length of a block in mean shards,
        block_samples: but at least so many samples.

    Raises:
        ValueError: if there are no samples, or an argument is out of range.
    """

    def __init__(
        self,
        shard_samples: Sequence[int],
        seed: int,
        lanes: int = 64,
        block_shards: int = 4,
        block_samples: int = 16384,
    ) -> None:
        self._sizes = np.asarray(shard_samples, dtype=np.int64)
        super().__init__(len(self._sizes), int(self._sizes.sum()))
        if self.samples < 1 or lanes < 1 or block_shards < 1 or block_samples < 1 or self._sizes.min() < 0:
            raise ValueError(
                f"an order needs samples (={self.samples}), lanes (={lanes}), block_shards (={block_shards}) and "
                f"block_samples (={block_samples}) of at least 1, and no shard_samples below 0"
            )
        self.seed = seed
        self._block = max(block_samples, block_shards * self.samples // len(self._sizes))
        self.lanes = max(1, min(lanes, self.samples // self._block))
        self._line = lru_cache(maxsize=2)(self._make_line)
        self._permuted = lru_cache(maxsize=2 * self.lanes)(self._permute_block)

    def at(self, g: int) -> tuple[int, int]:
        """Shard and sample within it of global index g ≥ 0."""
        epoch, position = divmod(g, self.samples)
        offset, lane = divmod(position, self.lanes)
        block, within = divmod(offset, self._block)
        line = self._line(epoch)
        start = self._lane_start(lane) + block * self._block
        place = (start + int(self._permuted(epoch, lane, block)[within]) + line.rotation) % self.samples
        index = bisect_right(line.start_list, place) - 1
        return int(line.shards[index]), place - line.start_list[index]

    def places(self, indices: ArrayLike) -> NDArray[np.int64]:
        """Shard and sample within it of each global index, int64 [n, 2]; fastest where the indices share blocks."""
        epoch, position = np.divmod(np.asarray(indices, dtype=np.int64).reshape(-1), self.samples)
        offset, lane = np.divmod(position, self.lanes)
        block, within = np.divmod(offset, self._block)
        length, longer = divmod(self.samples, self.lanes)
        place = lane * length + np.minimum(lane, longer) + block * self._block
        for group in alike(epoch * self.samples + block * self.lanes + lane):  # (there are fewer blocks than samples)
            one = group[0]
            place[group] += self._permuted(int(epoch[one]), int(lane[one]), int(block[one]))[within[group]]
        found = np.empty((len(place), 2), dtype=np.int64)
        for group in alike(epoch):
            line = self._line(int(epoch[group[0]]))
            on_line = (place[group] + line.rotation) % self.samples
            index = np.searchsorted(line.starts, on_line, side="right") - 1
            found[group] = np.stack((line.shards[index], on_line - line.starts[index]), axis=1)
        return found

    def read_ahead(self, g: int, rank: int = 0, world: int = 1) -> Iterator[int]:
        """The shards of samples g + rank, g + rank + world, … in the order in which these need them, without an end.

        First those of the blocks in which the rank's lanes stand, from their places in them on: each lane's first,
        then each lane's second, …; then those of the lanes' next blocks, and so on over the end of the epoch. A shard
        is named once for each lane and block that needs it.

        Args:
            g: where a global batch begins, 0 or more: the i-th sample from it belongs to rank i mod `world`.
            rank: 0 ≤ rank < world.
            world: number of ranks; divides the global batches.
        """
        assert 0 <= rank < world, (rank, world)
        first, blocks_of_all_lanes = g + rank, self._block * self.lanes
        while True:
            position = first % self.samples
            stop = min((position // blocks_of_all_lanes + 1) * blocks_of_all_lanes, self.samples)
            indices = range(first, first + stop - position, world)
            lanes = min(self.lanes // math.gcd(self.lanes, world), len(indices))
            yield from in_turns([self._needed(indices[lane::lanes]) for lane in range(lanes)])
            first += len(indices) * world

    def open_shards(self, world: int = 1) -> int:
        """How many shards a rank of `world` reads at the same time: of each lane those that a block lies in."""
        a_lane = math.ceil(self._block * self.shards / self.samples) + 1
        return min(self.shards, a_lane * self.lanes // math.gcd(self.lanes, world))

    def _needed(self, indices: range) -> Iterator[int]:
        """The shards of samples of one block, each once; nothing is computed before the first is asked for."""
        yield from by_need(self.places(np.arange(indices.start, indices.stop, indices.step))[:, 0]).tolist()

    def _lane_start(self, lane: int) -> int:
        """The first `samples mod lanes` lanes are longer by one."""
        length, longer = divmod(self.samples, self.lanes)
        return lane * length + min(lane, longer)

    def _make_line(self, epoch: int) -> _Line:
        shards = randomness.permutation(len(self._sizes), self.seed, "shards", epoch)
        starts = np.concatenate(([0], np.cumsum(self._sizes[shards])[:-1]))
        rotation = int(randomness.uniform(self.seed, "rotation", [epoch])[0, 0] * self.samples)
        return _Line(rotation, shards, starts, starts.tolist())

    def _permute_block(self, epoch: int, lane: int, block: int) -> NDArray[np.unsignedinteger]:
        length = self._lane_start(lane + 1) - self._lane_start(lane)
        size = min(self._block, length - block * self._block)
        return compact(randomness.permutation(size, self.seed, "block", epoch, lane, block))


def alike(keys: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The indices of equal keys, an array for each key."""
    if not len(keys):
        return []
    by_key = np.argsort(keys, kind="stable")
    return np.split(by_key, np.flatnonzero(np.diff(keys[by_key])) + 1)


def by_need(shards: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each shard once, where it first occurs."""
    return shards[np.sort(np.unique(shards, return_index=True)[1])]


def compact(permutation: NDArray[np.int64]) -> NDArray[np.unsignedinteger]:
    """The same numbers below its length in the fewest bytes."""
    return permutation.astype(np.min_scalar_type(len(permutation) - 1))


def in_turns(iterators: list[Iterator[int]]) -> Iterator[int]:
    """The first of each, the second of each, …"""
    while iterators:
        left = []
        for iterator in iterators:
            for number in iterator:
                yield number
                left.append(iterator)
                break
        iterators = left
