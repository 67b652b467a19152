"""The order is a permutation in each epoch, a function of (seed, sizes, g), and well mixed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigtrain.data.order import Order

sizes = st.lists(st.integers(0, 40), min_size=1, max_size=20).filter(lambda counts: sum(counts) > 0)
arguments = st.tuples(sizes, st.integers(0, 2**32), st.integers(1, 9), st.integers(1, 4), st.integers(1, 60))


@settings(max_examples=150)
@given(arguments, st.integers(0, 3))
def test_an_epoch_is_every_sample_once(given, epoch):
    order = Order(*given)
    everything = {(shard, i) for shard, size in enumerate(given[0]) for i in range(size)}
    drawn = [order.at(epoch * order.samples + p) for p in range(order.samples)]
    assert len(drawn) == len(set(drawn))
    assert set(drawn) == everything


@given(arguments, st.lists(st.integers(0, 10**12), min_size=1, max_size=20), st.randoms())
def test_an_index_means_the_same_sample_whatever_was_asked_before(given, indices, random):
    order, fresh = Order(*given), Order(*given)
    expected = {g: order.at(g) for g in indices}
    random.shuffle(indices)
    assert {g: fresh.at(g) for g in indices} == expected


def test_epochs_and_seeds_are_ordered_differently():
    order, other = Order([50] * 20, 0), Order([50] * 20, 1)
    epochs = [tuple(order.at(g) for g in range(e * 1000, (e + 1) * 1000)) for e in range(3)]
    assert len({*epochs, tuple(other.at(g) for g in range(1000))}) == 4


def test_any_rank_and_any_cut_see_the_same_global_batches():
    """The i-th sample of batch k is sample g = k·B + i; a rank takes every W-th of them."""
    order, batch = Order([7, 30, 11, 2, 50], 3, lanes=4, block_samples=8), 12
    whole = [[order.at(k * batch + i) for i in range(batch)] for k in range(30)]
    for world in (1, 2, 3, 4, 6):
        for k in range(17, 30):  # a resume at batch 17
            ranks = [[order.at(k * batch + i) for i in range(rank, batch, world)] for rank in range(world)]
            assert [ranks[i % world][i // world] for i in range(batch)] == whole[k]


def test_a_lane_has_few_shards_open_and_a_batch_comes_from_all_over():
    order = Order([1000] * 400, 0, lanes=16, block_shards=4, block_samples=1)
    assert order.lanes == 16
    window = [order.at(g) for g in range(100_000, 100_000 + 16 * 500)]
    for lane in range(16):
        assert len({shard for shard, _ in window[lane::16]}) <= 6
    assert len({shard for shard, _ in window[:64]}) > 30


def test_small_data_is_mixed_as_a_whole():
    order = Order([256] * 7, 0)
    first = np.array([order.at(g)[0] for g in range(256)])
    assert np.bincount(first, minlength=7).min() > 10


def test_no_samples_are_refused():
    with pytest.raises(ValueError, match="samples"):
        Order([0, 0], 0)
