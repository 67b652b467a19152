"""Every class comes equally often, and each goes through all of its samples before one comes again."""

from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigtrain.data.balanced import BalancedOrder

labels = st.lists(st.lists(st.integers(0, 12), max_size=20), min_size=1, max_size=6).filter(any)
seeds = st.integers(0, 2**32)


def arrays(lists):
    return [np.array(one, dtype=np.int64) for one in lists]


@settings(max_examples=60, deadline=None)
@given(labels, seeds, st.integers(0, 10**6))
def test_every_class_once_in_each_turn(lists, seed, turn):
    order = BalancedOrder(arrays(lists), seed)
    classes = sorted({label for one in lists for label in one})
    for first in (turn * len(classes), (turn + 1) * len(classes)):
        drawn = [order.at(g) for g in range(first, first + len(classes))]
        assert sorted(lists[shard][sample] for shard, sample in drawn) == classes


@settings(max_examples=60, deadline=None)
@given(labels, seeds, st.integers(0, 20))
def test_each_pass_through_a_class_is_each_of_its_samples_once(lists, seed, passed):
    order = BalancedOrder(arrays(lists), seed)
    count = len(order.classes)
    for label in order.classes.tolist():
        members = {(shard, i) for shard, one in enumerate(lists) for i, own in enumerate(one) if own == label}
        turns = range(passed * len(members), (passed + 1) * len(members))
        drawn = [order.at(g) for g in range(turns.start * count, turns.stop * count)]
        own = [(shard, i) for shard, i in drawn if lists[shard][i] == label]
        assert len(own) == len(members)
        assert set(own) == members


@settings(max_examples=60, deadline=None)
@given(labels, seeds, st.integers(0, 10**9), st.sampled_from([1, 2, 4, 8]))
def test_any_rank_and_any_cut_see_the_same(lists, seed, g, world):
    whole, order = BalancedOrder(arrays(lists), seed), BalancedOrder(arrays(lists), seed)
    expected = [whole.at(g + i) for i in range(100)]
    assert [tuple(place) for place in order.places(range(g, g + 100)).tolist()] == expected
    resumed = [BalancedOrder(arrays(lists), seed) for _ in range(world)]  # a fresh process each
    ranks = [[own.at(g + i) for i in range(rank, 24, world)] for rank, own in enumerate(resumed)]
    assert [ranks[i % world][i // world] for i in range(24)] == expected[:24]


@settings(max_examples=12, deadline=None)
@given(labels, seeds, st.integers(0, 10**6), st.sampled_from([(0, 1), (1, 2), (7, 8)]))
def test_read_ahead_names_the_shards_as_they_are_needed(lists, seed, g, ranks):
    order, (rank, world) = BalancedOrder(arrays(lists), seed), ranks
    needed = list(dict.fromkeys(order.at(g + rank + i * world)[0] for i in range(200)))
    assert list(islice(order.read_ahead(g, rank, world), len(needed))) == needed


def test_seeds_passes_and_turns_are_ordered_differently():
    given = [np.arange(600) % 3]
    first, second = BalancedOrder(given, 0), BalancedOrder(given, 1)
    passes = [tuple(first.at(g) for g in range(p * 600, p * 600 + 600)) for p in range(2)]
    assert len({*passes, tuple(second.at(g) for g in range(600))}) == 3
    turns = {tuple(first.at(g)[1] % 3 for g in range(turn * 3, turn * 3 + 3)) for turn in range(100)}
    assert len(turns) == 6  # all permutations of three classes


def test_the_same_samples_as_in_every_version():
    order = BalancedOrder([np.arange(50) % 7, np.arange(90) % 4], 3)
    expected = {0: (0, 15), 1: (0, 48), 2: (0, 42), 63: (0, 19), 4096: (0, 3), 12345: (0, 35), 1000000000: (0, 12)}
    assert {g: order.at(g) for g in expected} == expected


@pytest.mark.parametrize("wrong", [[], [np.array([], dtype=np.int64)], [np.array([1, -1])], [np.array([0.5])]])
def test_labels_that_are_none_are_refused(wrong):
    with pytest.raises(ValueError, match="a balanced order needs"):
        BalancedOrder(wrong, 0)
