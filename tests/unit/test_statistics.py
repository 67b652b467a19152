"""Sufficient statistics: the same sums however the samples are cut into parts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bigtrain.evaluation.metrics import frechet_distance, inception_score
from bigtrain.evaluation.statistics import FeatureStatistics, LogitStatistics, RecognitionCount


def features(n: int, d: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator) @ torch.randn(d, d, generator=generator) + 3


def summed(samples: torch.Tensor, shift: torch.Tensor | None = None) -> FeatureStatistics:
    statistics = FeatureStatistics(samples.shape[1], shift)
    statistics.update(samples)
    return statistics


def test_mean_and_covariance_are_numpys() -> None:
    samples = features(100, 7)
    statistics = summed(samples)
    np.testing.assert_allclose(statistics.mean, samples.double().mean(0), rtol=1e-12)
    np.testing.assert_allclose(statistics.covariance, np.cov(samples.double().numpy(), rowvar=False), rtol=1e-10)
    assert statistics.mean.dtype == statistics.covariance.dtype == torch.float64


@pytest.mark.parametrize("parts", range(1, 65, 7))
def test_merged_parts_agree(parts: int) -> None:
    samples, real = features(200, 8), summed(features(300, 8, seed=1))
    whole = summed(samples)
    merged = FeatureStatistics(8)
    for part in torch.tensor_split(samples[torch.randperm(200, generator=torch.Generator().manual_seed(parts))], parts):
        merged.merge_state(summed(part))
    torch.testing.assert_close(merged.covariance, whole.covariance, rtol=1e-10, atol=1e-10)
    assert frechet_distance(real, merged) == pytest.approx(frechet_distance(real, whole), rel=1e-10)


@given(cuts=st.lists(st.integers(0, 50), max_size=6), seed=st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_batches_of_any_sizes_agree(cuts: list[int], seed: int) -> None:
    samples = features(50, 3, seed)
    batched = FeatureStatistics(3)
    for batch in torch.tensor_split(samples, sorted(cuts)):
        batched.update(batch)
    torch.testing.assert_close(batched.covariance, summed(samples).covariance, rtol=1e-10, atol=1e-10)


def test_a_shift_keeps_the_precision_that_a_large_mean_costs() -> None:
    samples = features(500, 4).double() + 1e8
    exact = torch.from_numpy(np.cov((samples - samples.mean(0)).numpy(), rowvar=False))
    shifted, plain = summed(samples, samples.mean(0)), summed(samples)
    torch.testing.assert_close(shifted.covariance, exact, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(shifted.mean, samples.mean(0), rtol=1e-14, atol=0.0)
    assert (plain.covariance - exact).abs().max() > 1e-3


def test_different_shifts_cannot_be_merged() -> None:
    statistics = summed(features(10, 3))
    with pytest.raises(ValueError, match="shift"):
        statistics.merge_state(summed(features(10, 3), torch.ones(3)))


def test_one_sample_has_no_covariance() -> None:
    with pytest.raises(ValueError, match=r"count \(=1\)"):
        _ = summed(features(1, 3)).covariance


def test_the_split_of_a_sample_is_that_of_its_global_index() -> None:
    num, k, splits = 37, 5, 4
    logits = torch.randn(num, k, generator=torch.Generator().manual_seed(0))
    whole = LogitStatistics(num, k, splits)
    whole.update(logits, torch.arange(num))
    merged = LogitStatistics(num, k, splits)
    for rank in range(3):
        part = LogitStatistics(num, k, splits)
        indices = torch.arange(rank, num, 3).flip(0)
        part.update(logits[indices], indices)
        merged.merge_state(part)
    assert whole.count.tolist() == [sum(i * splits // num == s for i in range(num)) for s in range(splits)]
    assert merged.count.tolist() == whole.count.tolist()
    assert inception_score(merged) == pytest.approx(inception_score(whole), rel=1e-12)


@pytest.mark.parametrize("splits", [0, 11])
def test_splits_must_not_be_empty(splits: int) -> None:
    with pytest.raises(ValueError, match=r"splits \(="):
        LogitStatistics(10, 3, splits)


def test_recognition_counts_the_labels_asked_for() -> None:
    counts = RecognitionCount(5)
    counts.update(torch.eye(5)[:4], torch.tensor([0, 1, 3, 3]))
    counts.update(torch.eye(5)[:2], torch.tensor([1, 1]))
    assert float(counts.fraction) == pytest.approx(4 / 6)
    assert counts.per_class.isnan().tolist() == [False, False, True, False, True]
    assert counts.per_class[[0, 1, 3]].tolist() == pytest.approx([1, 2 / 3, 1 / 2])


def test_all_reduce_adds_the_ranks(tmp_path) -> None:  # type: ignore[no-untyped-def]
    """One rank is enough to see that the reduction is called for each state and keeps shape and type."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        statistics = summed(features(10, 3))
        covariance = statistics.covariance
        statistics.add_ranks()
        torch.testing.assert_close(statistics.covariance, covariance, rtol=0, atol=0)
        assert statistics.outer.shape == (3, 3)
    finally:
        torch.distributed.destroy_process_group()
