"""The order is a permutation in each epoch, a function of (seed, sizes, g), and well mixed."""

import time
from collections import Counter
from itertools import islice
from threading import Thread

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bigtrain.data.order import Order

sizes = st.lists(st.integers(0, 40), min_size=1, max_size=20).filter(lambda counts: sum(counts) > 0)
arguments = st.tuples(sizes, st.integers(0, 2**32), st.integers(1, 9), st.integers(1, 4), st.integers(1, 60))


@settings(max_examples=150, deadline=None)
@given(arguments, st.integers(0, 3))
def test_an_epoch_is_every_sample_once(given, epoch):
    order = Order(*given)
    everything = {(shard, i) for shard, size in enumerate(given[0]) for i in range(size)}
    drawn = [order.at(epoch * order.samples + p) for p in range(order.samples)]
    assert len(drawn) == len(set(drawn))
    assert set(drawn) == everything


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        (
            Order([7, 30, 11, 2, 50], 3, lanes=4, block_samples=8),
            {0: (1, 14), 1: (3, 1), 5: (4, 13), 63: (0, 2), 99: (4, 31), 12_345: (4, 16), 10**9 + 7: (4, 25)},
        ),
        (Order([256] * 7, 0), {0: (4, 115), 1: (1, 251), 63: (1, 3), 12_345: (6, 135), 10**9: (1, 99)}),
        (
            Order([10_000] * 10_000, 5),
            {0: (1051, 6616), 1: (2632, 3781), 5: (3515, 4727), 12_345: (5611, 1140), 10**9: (85, 8565)},
        ),
        (
            Order([1, 2, 0, 3], 9, lanes=2, block_shards=1, block_samples=1),
            {0: (3, 1), 1: (1, 0), 5: (3, 0), 63: (0, 0), 10**9: (1, 1)},
        ),
    ],
)
def test_the_same_samples_as_in_every_version(order, expected):
    """A run that was begun by an older bigtrain goes on with the samples that it has not seen yet."""
    assert {g: order.at(g) for g in expected} == expected


@settings(deadline=None)
@given(arguments, st.lists(st.integers(0, 10**12), min_size=1, max_size=20), st.randoms())
def test_an_index_means_the_same_sample_whatever_was_asked_before(given, indices, random):
    order, fresh = Order(*given), Order(*given)
    expected = {g: order.at(g) for g in indices}
    random.shuffle(indices)
    assert {g: fresh.at(g) for g in indices} == expected


@settings(deadline=None)
@given(arguments, st.lists(st.integers(0, 10**12), max_size=20), st.integers(0, 10**6), st.integers(1, 7))
def test_places_are_those_of_at(given, scattered, first, step):
    order = Order(*given)
    for indices in (scattered, range(first, first + 300, step)):
        places = order.places(indices)
        assert places.shape == (len(indices), 2)
        assert places.dtype == np.int64
        assert [tuple(place) for place in places.tolist()] == [order.at(g) for g in indices]


def test_threads_see_the_same():
    order, fresh = Order([100] * 50, 1, lanes=8, block_samples=100), Order([100] * 50, 1, lanes=8, block_samples=100)
    found = [[] for _ in range(8)]

    def ask(i):  # each in another epoch, so that they take the caches' places from each other
        found[i] = [order.at(g) for g in range(i * 3000, i * 3000 + 3000)]

    threads = [Thread(target=ask, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [place for own in found for place in own] == [fresh.at(g) for g in range(24_000)]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=4, max_size=20), st.integers(0, 2**32), st.integers(0, 1000))
def test_epochs_and_seeds_are_ordered_differently(counts, seed, epoch):
    assume(sum(counts) >= 40)  # 1/40! is never
    order, other = Order(counts, seed), Order(counts, seed + 1)
    epochs = [tuple(order.at(e * order.samples + p) for p in range(order.samples)) for e in range(epoch, epoch + 3)]
    assert len({*epochs, tuple(other.at(epoch * order.samples + p) for p in range(order.samples))}) == 4


@settings(max_examples=60, deadline=None)
@given(arguments, st.integers(0, 10**9), st.lists(st.sampled_from([1, 2, 4, 8]), min_size=1, max_size=6))
def test_any_rank_and_any_cut_see_the_same_global_batches(given, begin, worlds):
    """The i-th sample of a batch belongs to rank i mod W; each batch is trained by another number of ranks."""
    batch, whole = 24, Order(*given)
    for k, world in enumerate(worlds):
        g = begin + k * batch
        orders = [Order(*given) for _ in range(world)]  # a fresh process each, which knows only where to begin
        ranks = [[order.at(g + i) for i in range(rank, batch, world)] for rank, order in enumerate(orders)]
        assert [ranks[i % world][i // world] for i in range(batch)] == [whole.at(g + i) for i in range(batch)]


@settings(max_examples=60, deadline=None)
@given(arguments, st.integers(0, 400), st.integers(0, 400))
def test_what_is_resumed_is_the_rest(given, cut, length):
    order, resumed = Order(*given), Order(*given)
    whole = [order.at(g) for g in range(cut + length)]
    assert [resumed.at(g) for g in range(cut, cut + length)] == whole[cut:]


@settings(max_examples=25, deadline=None)
@given(st.integers(20, 60), st.integers(0, 2**32), st.integers(1, 8))
def test_a_lane_has_six_shards_open_at_most(shard_size, seed, lanes):
    """Open: read before, and to be read again. A block of four shards of equal size lies in five of them at most."""
    order = Order([shard_size] * 80, seed, lanes=lanes, block_shards=4, block_samples=1)
    assert order.lanes == lanes
    for lane in range(lanes):
        reads = order.places(range(lane, order.samples, lanes))[:, 0]
        last = {int(shard): i for i, shard in enumerate(reads)}
        opened, most = set(), 0
        for i, shard in enumerate(reads.tolist()):
            opened = {s for s in opened if last[s] >= i} | {shard}
            most = max(most, len(opened))
        assert most <= 6


def test_a_batch_comes_from_all_over():
    order = Order([1000] * 400, 0, lanes=16, block_shards=4, block_samples=1)
    assert order.lanes == 16
    assert len({order.at(g)[0] for g in range(100_000, 100_064)}) > 30


def test_small_data_is_mixed_as_a_whole():
    order = Order([256] * 7, 0)
    first = np.array([order.at(g)[0] for g in range(256)])
    assert np.bincount(first, minlength=7).min() > 10


def needs_by_definition(order, block, g, rank, world, count):
    """The (lane, shard) pairs that a rank's next samples need: a list of sets, one for each round of blocks."""
    rounds = {}
    for index in range(g + rank, g + rank + count * world, world):
        epoch, position = divmod(index, order.samples)
        offset, lane = divmod(position, order.lanes)
        rounds.setdefault((epoch, offset // block), set()).add((lane, order.at(index)[0]))
    return list(rounds.values())


@settings(max_examples=60, deadline=None)
@given(arguments, st.integers(0, 10**6), st.integers(1, 12), st.data())
def test_what_is_read_ahead_is_what_the_ranks_blocks_need(given, g, world, data):
    order, rank = Order(*given), data.draw(st.integers(0, world - 1), label="rank")
    block = max(given[4], given[3] * order.samples // len(given[0]))
    *rounds, _ = needs_by_definition(order, block, g, rank, world, 400)  # (of the last one there is only a part)
    ahead = Order(*given).read_ahead(g, rank, world)
    for needed in rounds:
        named = list(islice(ahead, len(needed)))
        assert Counter(named) == Counter(shard for _, shard in needed)


@settings(max_examples=30, deadline=None)
@given(arguments, st.integers(0, 10**6), st.sampled_from([1, 2, 4, 8]))
def test_the_first_that_is_read_ahead_is_needed_first(given, g, world):
    order = Order(*given)
    for rank in range(world):
        assert next(order.read_ahead(g, rank, world)) == order.at(g + rank)[0]


@pytest.mark.parametrize(("lanes", "world", "shared"), [(16, 4, 1), (16, 16, 1), (12, 8, 2), (16, 3, 3)])
def test_ranks_share_lanes_only_if_these_are_no_multiple_of_them(lanes, world, shared):
    order = Order([100] * 640, 0, lanes=lanes, block_samples=1)
    ranks = [{g % lanes for g in range(rank, 10_000, world)} for rank in range(world)]
    assert {len(own) for own in ranks} == {lanes * shared // world}
    shards = [len(set(islice(order.read_ahead(0, rank, world), len(ranks[rank]) * 4))) for rank in range(world)]
    assert max(shards) <= len(ranks[0]) * 6


def test_a_resume_far_along_is_immediate():
    order = Order([10_000] * 10_000, 0)
    begun = time.perf_counter()
    order.at(10**9)
    next(order.read_ahead(10**9))
    assert time.perf_counter() - begun < 0.5  # (5 ms on an idle core)


@pytest.mark.parametrize(
    "wrong", [{"shard_samples": [0, 0]}, {"shard_samples": []}, {"shard_samples": [5, -1]}, {"lanes": 0}]
)
def test_what_has_no_order_is_refused(wrong):
    with pytest.raises(ValueError, match="an order needs samples"):
        Order(**{"shard_samples": [1], "seed": 0, **wrong})
