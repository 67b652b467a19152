"""Addressed randomness: known answers, distributions, and that nothing depends on what is drawn together."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bigtrain import randomness

# Known answers of Philox-4x32-10 that its authors publish with Random123.
KNOWN = [
    ((0, 0, 0, 0), 0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, 0xFFFFFFFFFFFFFFFF, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        0x299F31D0A4093822,
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_philox_gives_the_published_answers(counter, key, expected):
    words = randomness.philox(tuple(np.array([word], dtype=np.uint64) for word in counter), key)
    assert tuple(int(word[0]) for word in words) == expected


@given(st.integers(0, 2**63), st.lists(st.integers(0, 2**62), min_size=1, max_size=8), st.integers(1, 9))
def test_a_number_depends_on_its_address_alone(seed, indices, count):
    together = randomness.normal(seed, "stream", indices, count)
    for row, index in zip(together, indices, strict=True):
        assert np.array_equal(row, randomness.normal(seed, "stream", [index], count)[0])
    longer = randomness.normal(seed, "stream", indices, count + 3)
    assert np.array_equal(longer[:, :count], together)


def test_streams_seeds_attempts_and_indices_are_unlike():
    draws = [
        randomness.words(seed, stream, [index], 16, attempt)
        for seed in (0, 1)
        for stream in ("a", "b")
        for index in (0, 1, 2**32, 2**33)
        for attempt in (0, 1)
    ]
    assert len({draw.tobytes() for draw in draws}) == len(draws)


def test_normal_and_uniform_are_distributed_as_named():
    normal = randomness.normal(3, "latent", range(2000), 50).ravel()
    uniform = randomness.uniform(3, "mix", range(2000), 50).ravel()
    assert stats.kstest(normal, "norm").pvalue > 0.001
    assert stats.kstest(uniform, "uniform").pvalue > 0.001
    assert abs(np.corrcoef(normal[:-1], normal[1:])[0, 1]) < 0.01


@settings(max_examples=30)
@given(st.integers(1, 3000), st.integers(0, 2**40))
def test_a_permutation_is_one(size, seed):
    assert np.array_equal(np.sort(randomness.permutation(size, seed, "x")), np.arange(size))


def test_permutations_differ_by_stream_and_are_uniform():
    first_places = [int(randomness.permutation(7, 0, "x", i)[0]) for i in range(3500)]
    assert stats.chisquare(np.bincount(first_places, minlength=7)).pvalue > 0.001


def test_seeded_is_repeatable_and_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    with randomness.seeded(1, "init", "generator"):
        first = torch.randn(4)
    with randomness.seeded(1, "init", "generator"):
        second = torch.randn(4)
    with randomness.seeded(1, "init", "discriminator"):
        other = torch.randn(4)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())
