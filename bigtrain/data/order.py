"""Which sample comes next: a pure function of seed, manifest and the global sample index."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from bigtrain import randomness


class Order:
    """`at(g)` is the shard and the sample of global index g: a new permutation of all samples in each epoch.

    An epoch lays the shards, permuted, on a line that starts at a random place, and cuts the line into lanes of equal
    length (to one sample). Sample g comes from lane g mod `lanes`, so that a batch draws from places all over the
    line; a lane is read in blocks, each permuted, so that it has only a few shards open at a time. Nothing is dropped
    and nothing doubled within an epoch, and nothing depends on the number of ranks or threads.

    Args:
        shard_samples: number of samples of each shard.
        seed: of the permutations.
        lanes: at most so many; fewer if a lane would have less than a block.
        block_shards: length of a block in mean shards,
        block_samples: but at least so many samples.
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
        self.samples = int(self._sizes.sum())
        if self.samples < 1 or lanes < 1 or block_shards < 1 or block_samples < 1:
            raise ValueError(
                f"an order needs samples (={self.samples}), lanes (={lanes}), block_shards (={block_shards}) and "
                f"block_samples (={block_samples}) of at least 1"
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
        start, length = self._lane(lane)
        block = offset // self._block
        permuted = self._permuted(epoch, lane, block, min(self._block, length - block * self._block))
        rotation, shards, starts = self._line(epoch)
        place = (start + block * self._block + int(permuted[offset % self._block]) + rotation) % self.samples
        index = bisect_right(starts, place) - 1
        return int(shards[index]), place - starts[index]

    def _lane(self, lane: int) -> tuple[int, int]:
        """Start and length of a lane; the first `samples mod lanes` ones are longer by one."""
        length, longer = divmod(self.samples, self.lanes)
        return lane * length + min(lane, longer), length + (lane < longer)

    def _make_line(self, epoch: int) -> tuple[int, np.ndarray, list[int]]:
        """Where the line of an epoch starts, its permuted shards, and where each of them starts."""
        shards = randomness.permutation(len(self._sizes), self.seed, "shards", epoch)
        starts = np.concatenate(([0], np.cumsum(self._sizes[shards])[:-1]))
        rotation = int(randomness.uniform(self.seed, "rotation", [epoch])[0, 0] * self.samples)
        return rotation, shards, starts.tolist()

    def _permute_block(self, epoch: int, lane: int, block: int, size: int) -> np.ndarray:
        return randomness.permutation(size, self.seed, "block", epoch, lane, block)
