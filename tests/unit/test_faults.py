"""Damaged data: replaced within the budget, told and counted; beyond it the end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigtrain.data.faults import Faults, TooManyFaultsError

SIZES = [100] * 200


def test_within_the_budget_it_is_set_aside_once(caplog):
    faults = Faults(SIZES, 0, max_sample_share=1e-4, max_shards=1)
    for _ in range(3):
        faults.add_sample((3, 7), ValueError("sample x at byte 5 is damaged"))
        faults.add_shard(8, ValueError("shard y is cut"))
    assert faults.has((3, 7))
    assert faults.has((8, 99))
    assert not faults.has((3, 8))
    assert [record.message.split(":")[1] for record in caplog.records] == [
        " sample x at byte 5 is damaged",
        " shard y is cut",
    ]


def test_beyond_the_budget_it_stops():
    faults = Faults(SIZES, 0, max_sample_share=1e-4, max_shards=1)
    faults.add_sample((0, 0), ValueError("x"))
    faults.add_sample((0, 1), ValueError("x"))
    with pytest.raises(TooManyFaultsError, match=r"3 of 20000 samples are damaged, at most 2 .*data.max_bad_samples"):
        faults.add_sample((0, 2), ValueError("x"))
    assert faults.state()["samples"] == [(0, 0), (0, 1)]  # a checkpoint must not let the third pass
    for again in (faults.is_clean, lambda: faults.has((9, 9)), lambda: faults.add_shard(1, ValueError("y"))):
        with pytest.raises(TooManyFaultsError, match="3 of 20000"):  # in other threads too
            again()
    faults = Faults(SIZES, 0, max_sample_share=1e-4, max_shards=1)
    faults.add_shard(1, ValueError("x"))
    with pytest.raises(TooManyFaultsError, match=r"2 of 200 shards are damaged.*data.max_bad_shards"):
        faults.add_shard(2, ValueError("x"))
    with pytest.raises(TooManyFaultsError, match=r"10.00% of the samples"):
        Faults([10] * 10, 0).add_shard(0, ValueError("x"))


@pytest.mark.parametrize("options", [{"max_sample_share": 2}, {"max_sample_share": -1}, {"max_shards": -1}])
def test_senseless_budgets_are_named(options):
    with pytest.raises(ValueError, match="max_bad"):
        Faults(SIZES, 0, **options)


@given(
    st.lists(st.integers(1, 9), min_size=2, max_size=20),
    st.integers(0, 2**40),
    st.integers(0, 2**31),
    st.data(),
)
def test_a_substitute_is_sound_and_depends_on_seed_index_and_quarantine_alone(sizes, g, seed, data):
    faults = Faults(sizes, seed)
    faults.load({"shards": [data.draw(st.integers(0, len(sizes) - 1))], "samples": []})
    shard, sample = faults.substitute(g)
    assert not faults.has((shard, sample))
    assert 0 <= sample < sizes[shard]
    again = Faults(sizes, seed)
    again.load(faults.state())
    assert again.substitute(g) == (shard, sample)


def test_substitutes_come_from_everywhere():
    faults = Faults(SIZES, 0)
    assert len({faults.substitute(g)[0] for g in range(2000)}) > 190


def test_nothing_sound_left_is_told():
    faults = Faults([1, 1], 0)
    faults.load({"shards": [0, 1], "samples": []})
    with pytest.raises(TooManyFaultsError, match="nearly all"):
        faults.substitute(0)
