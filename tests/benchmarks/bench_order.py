"""What the order costs on 10,000 shards of 10,000 samples: `python tests/benchmarks/bench_order.py`.

Goals: 130,000 `at()` a second, and no more than some milliseconds from a resume at sample 10⁹ to its first place. The
resumes are those of a new process: the order is made anew, and all its caches are empty.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from itertools import islice

import numpy as np

from bigtrain.data.balanced import BalancedOrder
from bigtrain.data.mixed import MixedOrder
from bigtrain.data.order import Order, SampleOrder

SHARDS, SHARD_SAMPLES, RESUMED_AT, BATCH = 10_000, 10_000, 10**9, 256
ROUNDS, CALLS = 5, 100_000


def large(seed: int = 0) -> Order:
    return Order([SHARD_SAMPLES] * SHARDS, seed)


def mixed() -> MixedOrder:
    return MixedOrder([large(1), large(2), large(3)], [0.5, 0.3, 0.2], 0)


def balanced() -> BalancedOrder:
    """1,000 classes; a hundredth of the data, as all labels are in memory."""
    labels = np.random.default_rng(0).integers(0, 1000, (SHARDS // 100, SHARD_SAMPLES), dtype=np.int16)
    return BalancedOrder(list(labels), 0)


def milliseconds(make: Callable[[], SampleOrder], use: Callable[[SampleOrder], object]) -> float:
    """Median of some new orders."""
    taken = []
    for _ in range(ROUNDS):
        order = make()
        begun = time.perf_counter()
        use(order)
        taken.append(1000 * (time.perf_counter() - begun))
    return statistics.median(taken)


def resume(name: str, make: Callable[[], SampleOrder]) -> None:
    batch = range(RESUMED_AT, RESUMED_AT + BATCH)
    print(f"{name}, resumed at sample {RESUMED_AT:,}; median of {ROUNDS}:")
    print(f"  the first place           {milliseconds(make, lambda order: order.at(RESUMED_AT)):9.1f} ms")
    print(f"  the first batch of {BATCH}    {milliseconds(make, lambda order: order.places(batch)):9.1f} ms")
    one_of = milliseconds(make, lambda order: order.places(batch[::64]))
    print(f"  one rank of 64's part of it{one_of:8.1f} ms")
    print(f"  the first shard ahead     {milliseconds(make, lambda order: next(order.read_ahead(RESUMED_AT))):9.1f} ms")
    ahead = milliseconds(make, lambda order: list(islice(order.read_ahead(RESUMED_AT), 100)))
    print(f"  the first 100 shards ahead{ahead:9.1f} ms")


def speed(name: str, order: SampleOrder) -> None:
    """With the permutations of the first blocks made, which cost 0.1 µs a sample."""
    indices = range(RESUMED_AT, RESUMED_AT + CALLS)
    order.places(indices)
    single: list[float] = []
    batched: list[float] = []
    together: list[float] = []
    for _ in range(ROUNDS):
        times = [time.perf_counter()]
        for g in indices:
            order.at(g)
        times.append(time.perf_counter())
        for first in range(0, CALLS, BATCH):
            order.places(indices[first : first + BATCH])
        times.append(time.perf_counter())
        order.places(indices)
        times.append(time.perf_counter())
        for figures, begun, ended in zip((single, batched, together), times, times[1:], strict=False):
            figures.append(CALLS / (ended - begun))
    for what, figures in (("at", single), (f"places of {BATCH}", batched), (f"places of {CALLS:,}", together)):
        print(f"  {name:9s} {what:18s} {statistics.median(figures):12,.0f}")


def main() -> None:
    for name, make in (("Order", large), ("MixedOrder", mixed), ("BalancedOrder", balanced)):
        resume(name, make)
    print(f"samples a second, one thread; median of {ROUNDS} (goal: 130,000):")
    for name, order in (("Order", large()), ("Mixed", mixed()), ("Balanced", balanced())):
        speed(name, order)


if __name__ == "__main__":
    main()
