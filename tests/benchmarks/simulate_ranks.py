"""What 1 to 1,000 ranks read of 10,000 shards: `python tests/benchmarks/simulate_ranks.py [LANES …]`.

No file is touched: the samples of every rank in an epoch are looked up in the order, and their shards counted; about a
minute on one core for each number of lanes. Start-up: the manifest, an index of each shard of the first batch of 32,
and a range read of each of its samples. Whole shards: one request each, and each is fetched once, which takes a cache
for about five shards of each lane that the rank reads. Range reads: one request a sample, and no byte too many.

What follows:

- A rank of W reads L / gcd(L, W) of L lanes, and W / gcd(L, W) ranks read each lane. Fetching whole shards, each of
  them fetches all shards of the lane, so bytes read over needed is W / gcd(L, W), and one shard a lane for its borders.
- **`lanes` should be a multiple of the number of ranks** (in fact of all numbers that the run may be moved to, as it
  stays the same): with 1,000 lanes it is 1.10 on 10, 100 and 1,000 ranks alike. With 64 lanes it is 126 on 1,000
  ranks, with 1,024 lanes 137, as 8 is all that 1,024 and 1,000 have in common. Otherwise ranges should be read.
- Few lanes a rank are cheap to begin with: after 10,000 samples each of 1,000 ranks with 1,000 lanes has fetched 5
  shards, but a single rank with 1,000 lanes 4,051, as each lane needs its five at once. So a start should read ranges.
- A lane has at least a block of four mean shards, so lanes ≤ shards / 4, and for lanes of their own W ranks need 4·W
  shards. 5,040 lanes, a multiple of 1 to 10, silently become 2,500 here, no multiple of 3, 6, 7, 8 and 9.
- Range reads and start-up reads (65 at the most) do not grow with the number of ranks, whatever the lanes.
- An epoch whose length is no multiple of gcd(L, W) gives each rank other lanes in the next epoch: rank 0 of 1,000 on
  10,001 shards of 9,999 samples (L = 1,000) reads lane 0, then 1, then 2; 11 shards each time, none of them read in the
  epoch before. On 10,000 shards of 10,000 it stays in lane 0, and again none of its 11 shards is one of those of the
  epoch before, as the line is permuted anew. So there is nothing to gain by staying.
"""

from __future__ import annotations

import math
import sys
import time

import numpy as np
from numpy.typing import NDArray

from bigtrain.data.order import Order

SHARDS, SHARD_SAMPLES, SAMPLE_BYTES = 10_000, 10_000, 100_000
WORLDS, LANES = (1, 10, 100, 1000), (64, 1000, 1024, 5040)
FIRST = 10**9  # an epoch's begin
BATCH, NEXT = 32, 10_000  # samples of a rank: of its first batch, and of a while
CHUNK = 1_000_000


def touched(order: Order, windows: list[tuple[int, int]]) -> list[NDArray[np.bool_]]:
    """For each (world, samples of a rank): which shards each rank needs for so many samples, [world, shards]."""
    found = [np.zeros((world, order.shards), dtype=bool) for world, _ in windows]
    for begin in range(0, max(world * count for world, count in windows), CHUNK):
        indices = np.arange(begin, begin + CHUNK)
        shards = order.places(FIRST + indices)[:, 0]
        for needed, (world, count) in zip(found, windows, strict=True):
            part = slice(0, max(0, world * count - begin))
            needed[indices[part] % world, shards[part]] = True
    return found


def table(lanes: int) -> None:
    order = Order([SHARD_SAMPLES] * SHARDS, 0, lanes)
    begun = time.perf_counter()
    windows = [(world, count) for world in WORLDS for count in (BATCH, NEXT, order.samples // world)]
    counts = [needed.sum(axis=1) for needed in touched(order, windows)]  # [world]: shards of each rank
    for i, world in enumerate(WORLDS):
        first, following, epoch = counts[3 * i : 3 * i + 3]
        own = order.lanes // math.gcd(order.lanes, world)
        row = [f"{lanes:5d} {order.lanes:5d} {world:5d} {own:5d} {own * world // order.lanes:5d}"]
        row.append(f"{1 + first.mean() + BATCH:8.1f}")
        row.append(f"{following.mean():7.1f} {over_needed(following, NEXT):7.1f}")
        row.append(f"{epoch.mean():8.1f} {epoch.max():6d} {over_needed(epoch, order.samples // world):7.2f}")
        row.append(f"{order.samples // world:11,d}")
        print(" │ ".join(row), flush=True)
    print(f"({time.perf_counter() - begun:.0f} s)", file=sys.stderr)


def over_needed(shards: NDArray[np.int64], samples: int) -> float:
    """Bytes of whole shards over those of the samples that are needed of them, mean of the ranks."""
    return float(shards.mean()) * SHARD_SAMPLES * SAMPLE_BYTES / (samples * SAMPLE_BYTES)


def main() -> None:
    print(f"{SHARDS:,} shards of {SHARD_SAMPLES:,} samples of {SAMPLE_BYTES // 1000} kB; figures of one rank:")
    print("      lanes         of it  ranks │ start-up │ next 10,000 samples │ an epoch, whole shards  │  range reads")
    print("asked  used world lanes a lane │    reads │  shards  read/need │  shards    max read/need │   an epoch")
    for lanes in [int(argument) for argument in sys.argv[1:]] or LANES:
        table(lanes)


if __name__ == "__main__":
    main()
