"""Metrics against closed forms and against the formulas of other libraries."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_fidelity.metric_isc import isc_features_to_metric
from torchmetrics.image.fid import _compute_fid

from bigtrain.evaluation.metrics import frechet_distance, inception_score, square_root
from bigtrain.evaluation.statistics import FeatureStatistics, LogitStatistics


def gaussian(mean: torch.Tensor, covariance: torch.Tensor, count: int = 10**6) -> FeatureStatistics:
    """Statistics of exactly this mean and covariance."""
    statistics = FeatureStatistics(len(mean))
    outer = covariance * (count - 1) + count * torch.outer(mean, mean)
    statistics.merge_state({"count": torch.tensor(float(count)), "total": mean * count, "outer": outer})
    return statistics


def random_spd(d: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(d, d, generator=generator, dtype=torch.float64)
    return root @ root.T / d + 0.1 * torch.eye(d, dtype=torch.float64)


def random_gaussian(d: int, seed: int) -> FeatureStatistics:
    mean = torch.randn(d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return gaussian(mean, random_spd(d, seed))


def of(samples: torch.Tensor) -> FeatureStatistics:
    statistics = FeatureStatistics(samples.shape[1])
    statistics.update(samples)
    return statistics


@given(
    means=st.tuples(*[st.lists(st.floats(-5, 5), min_size=4, max_size=4)] * 2),
    deviations=st.tuples(*[st.lists(st.floats(0, 5), min_size=4, max_size=4)] * 2),
)
@settings(max_examples=50, deadline=None)
def test_diagonal_gaussians(means: tuple[list[float], ...], deviations: tuple[list[float], ...]) -> None:
    """Of commuting covariances the distance is Σ (μ₁ - μ₂)² + Σ (σ₁ - σ₂)²."""
    mean, deviation = torch.tensor(means, dtype=torch.float64), torch.tensor(deviations, dtype=torch.float64)
    one, two = (gaussian(m, torch.diag(s.square())) for m, s in zip(mean, deviation, strict=True))
    expected = float((mean[0] - mean[1]).square().sum() + (deviation[0] - deviation[1]).square().sum())
    assert frechet_distance(one, two) == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_scaled_covariance() -> None:
    """Of Σ and c²Σ the distance is (c - 1)² tr Σ."""
    covariance = random_spd(20, 0)
    mean = torch.zeros(20, dtype=torch.float64)
    distance = frechet_distance(gaussian(mean, covariance), gaussian(mean, 9 * covariance))
    assert distance == pytest.approx(4 * float(covariance.trace()), rel=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_the_matrix_square_root(seed: int) -> None:
    one, two = random_gaussian(30, seed), random_gaussian(30, seed + 100)
    root = scipy.linalg.sqrtm(one.covariance.numpy() @ two.covariance.numpy()).real
    difference = (one.mean - two.mean).numpy()
    expected = difference @ difference + np.trace(one.covariance.numpy() + two.covariance.numpy() - 2 * root)
    assert frechet_distance(one, two) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(two, one) == pytest.approx(expected, rel=1e-9)
    torchmetrics_value = float(_compute_fid(one.mean, one.covariance, two.mean, two.covariance))
    assert frechet_distance(one, two) == pytest.approx(torchmetrics_value, rel=1e-9)


def test_equal_statistics_have_distance_zero() -> None:
    one = random_gaussian(64, 0)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-9)
    few = of(torch.randn(20, 64, generator=torch.Generator().manual_seed(0)))
    assert frechet_distance(few, few) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("n_real", "n_fake"), [(500, 12), (12, 500), (12, 9)])
def test_fewer_samples_than_dimensions(n_real: int, n_fake: int) -> None:
    """The trace of the root is the sum of the singular values of (Y - ȳ)·L/√(N - 1): exact at any rank."""
    generator = torch.Generator().manual_seed(0)
    scale = torch.linspace(0.01, 3, 64, dtype=torch.float64)
    real, fake = (torch.randn(n, 64, generator=generator).double() * scale for n in (n_real, n_fake))
    one, two = of(real), of(fake)
    centred = (fake - fake.mean(0)) / (n_fake - 1) ** 0.5
    centred_real = (real - real.mean(0)) / (n_real - 1) ** 0.5
    trace = torch.linalg.svdvals(centred @ centred_real.T).sum()
    traces = one.covariance.trace() + two.covariance.trace()
    expected = float((one.mean - two.mean).square().sum() + traces - 2 * trace)
    assert frechet_distance(one, two) == pytest.approx(expected, rel=1e-10)


def test_a_known_root_changes_nothing() -> None:
    one, two = random_gaussian(10, 0), random_gaussian(10, 1)
    root = square_root(one.covariance)
    torch.testing.assert_close(root @ root.T, one.covariance)
    assert frechet_distance(one, two, root) == frechet_distance(one, two)


def score_of(logits: torch.Tensor, splits: int) -> tuple[float, float]:
    statistics = LogitStatistics(len(logits), logits.shape[1], splits)
    statistics.update(logits, torch.arange(len(logits)))
    return inception_score(statistics)


@given(k=st.integers(2, 20), splits=st.integers(1, 5))
@settings(max_examples=20, deadline=None)
def test_bounds_of_the_inception_score(k: int, splits: int) -> None:
    """1 if every image looks like every class; k if each is surely of one class and all classes are as frequent."""
    n = 5 * k * splits // 5 * 5
    assert score_of(torch.zeros(n, k), splits) == pytest.approx((1.0, 0.0), abs=1e-12)
    sure = 1e4 * torch.nn.functional.one_hot(torch.arange(k * splits) % k, k).float()
    assert score_of(sure, splits) == pytest.approx((k, 0.0), rel=1e-12, abs=1e-9)


def test_inception_score_of_splits() -> None:
    """Mean and ddof-0 deviation over splits: the first half is worth 1, the second 2."""
    sure = torch.tensor([[1e4, 0.0]] * 4 + [[1e4, 0.0], [0.0, 1e4]] * 2)
    assert score_of(sure, 2) == pytest.approx((1.5, 0.5))


def test_inception_score_is_torch_fidelitys() -> None:
    logits = 3 * torch.randn(200, 17, generator=torch.Generator().manual_seed(0))
    theirs = isc_features_to_metric(logits, splits=10, shuffle=False)
    expected = theirs["inception_score_mean"], theirs["inception_score_std"]
    assert score_of(logits, 10) == pytest.approx(expected, rel=1e-10)
