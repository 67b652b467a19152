"""Data sets are mixed by their weights exactly, and each goes through its own order."""

from collections import Counter
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigtrain.data.mixed import MixedOrder, shares
from bigtrain.data.order import Order

sizes = st.lists(st.integers(0, 9), min_size=1, max_size=5).filter(lambda counts: sum(counts) > 0)
# (with weights of which each has a sample at least in a period of 128)
data_sets = st.lists(st.tuples(sizes, st.floats(0.2, 8)), min_size=1, max_size=4)


def mixture(given, seed=0, period=128):
    orders = [Order(counts, d, lanes=2, block_shards=1, block_samples=3) for d, (counts, _) in enumerate(given)]
    return MixedOrder(orders, [weight for _, weight in given], seed, period)


@settings(max_examples=60, deadline=None)
@given(data_sets, st.integers(0, 10**6))
def test_each_period_has_the_weights_exactly(given, period):
    order = mixture(given, period=256)
    picks = Counter(order.pick(g)[0] for g in range(period * 256, period * 256 + 256))
    whole = sum(weight for _, weight in given)
    for d, (_, weight) in enumerate(given):
        assert abs(picks[d] - 256 * weight / whole) < 1
        assert picks[d] == order.counts[d]


@settings(max_examples=60, deadline=None)
@given(data_sets, st.integers(0, 2**32))
def test_each_data_set_goes_through_its_own_order(given, seed):
    order = mixture(given, seed)
    drawn = [[] for _ in given]
    for g in range(3 * 128):
        shard, sample = order.at(g)
        d = max(d for d, first in enumerate(order.first_shards) if first <= shard)
        drawn[d].append((shard - order.first_shards[d], sample))
    for own, order_d in zip(drawn, order.orders, strict=True):
        assert own == [order_d.at(k) for k in range(len(own))]
        epoch = own[: order_d.samples]
        assert len(epoch) == len(set(epoch))


@settings(max_examples=60, deadline=None)
@given(data_sets, st.integers(0, 10**9), st.sampled_from([1, 2, 4, 8]))
def test_any_rank_and_any_cut_see_the_same(given, g, world):
    order, whole = mixture(given), mixture(given)
    expected = [whole.at(g + i) for i in range(200)]
    assert [tuple(place) for place in order.places(range(g, g + 200)).tolist()] == expected
    resumed = [mixture(given) for _ in range(world)]  # a fresh process each
    ranks = [[own.at(g + i) for i in range(rank, 24, world)] for rank, own in enumerate(resumed)]
    assert [ranks[i % world][i // world] for i in range(24)] == expected[:24]


@settings(max_examples=12, deadline=None)
@given(data_sets, st.integers(0, 10**6), st.sampled_from([(0, 1), (1, 2), (7, 8)]))
def test_read_ahead_names_the_shards_as_they_are_needed(given, g, ranks):
    order, (rank, world) = mixture(given), ranks
    needed = list(dict.fromkeys(order.at(g + rank + i * world)[0] for i in range(200)))
    assert list(islice(order.read_ahead(g, rank, world), len(needed))) == needed


def test_read_ahead_names_a_shard_again_that_was_not_needed_for_long():
    order = MixedOrder([Order([20_000] * 10, 0, block_samples=1, block_shards=1, lanes=1)], [1], 0)
    named = Counter(islice(order.read_ahead(0), 25))
    assert set(named) == set(range(10))
    assert max(named.values()) <= 4  # in each of two and a half epochs, and twice in one whose line begins inside it


def test_read_ahead_names_a_shard_once_while_it_is_needed():
    class Short(MixedOrder):
        def places(self, indices):
            if np.max(indices) > 200_000:
                raise EOFError
            return super().places(indices)

    named = []
    with pytest.raises(EOFError):
        named.extend(Short([Order([100_000, 100_000], 0)], [1], 0).read_ahead(0))
    assert sorted(named) == [0, 1]


def test_seeds_and_periods_are_mixed_differently_and_mixtures_can_be_mixed():
    given = [([9], 1.0), ([5, 5], 2.0)]
    first, second = mixture(given), mixture(given, seed=1)
    patterns = [[first.pick(g)[0] for g in range(p * 128, p * 128 + 128)] for p in (0, 1)]
    assert patterns[0] != patterns[1]
    assert patterns[0] != [second.pick(g)[0] for g in range(128)]
    nested = MixedOrder([first, Order([7], 0)], [0.5, 0.5], 0)
    assert nested.shards == 4
    assert nested.samples == 26
    assert {shard for shard, _ in (nested.at(g) for g in range(4096))} == set(range(4))


def test_the_same_samples_as_in_every_version():
    order = MixedOrder([Order([5, 7], 0), Order([100] * 9, 1), Order([3], 2)], [0.5, 0.3, 0.2], 7)
    expected = {0: (0, 0), 1: (11, 1), 2: (1, 1), 63: (0, 2), 4096: (4, 41), 12345: (1, 5), 1000000000: (0, 2)}
    assert {g: order.at(g) for g in expected} == expected


def test_the_largest_remainders_are_rounded_up():
    assert shares([0.5, 0.3, 0.2], 4096) == [2048, 1229, 819]
    assert shares([1, 1, 1], 4096) == [1366, 1365, 1365]
    assert shares([7], 4096) == [4096]


@pytest.mark.parametrize("weights", [[1], [1, 0], [1, -1], [1, float("nan")], [1, float("inf")], [1, 1e-6]])
def test_weights_that_are_none_are_refused(weights):
    with pytest.raises(ValueError, match="weights"):
        MixedOrder([Order([5], 0), Order([5], 0)], weights, 0)


def test_a_period_too_short_is_refused():
    with pytest.raises(ValueError, match="period"):
        MixedOrder([Order([5], 0), Order([5], 0)], [1, 1], 0, period=1)
    with pytest.raises(ValueError, match="weights"):
        MixedOrder([], [], 0)
