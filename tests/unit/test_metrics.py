"""Metrics against closed forms and against the formulas of other libraries."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_fidelity.metric_isc import isc_features_to_metric
from torchmetrics.image.fid import _compute_fid

from bigtrain.evaluation.metrics import (
    frechet_distance,
    frechet_distance_of,
    frechet_distances_of_classes,
    frechet_infinity,
    inception_score,
    square_root,
)
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


def with_spectrum(values: torch.Tensor, seed: int) -> torch.Tensor:
    """A covariance of these eigenvalues in a basis of chance."""
    basis = torch.linalg.qr(random_spd(len(values), seed)).Q
    covariance = (basis * values) @ basis.T
    return (covariance + covariance.T) / 2


def exact_trace_of_root(one: torch.Tensor, two: torch.Tensor) -> float:
    """tr (one·two)^½ in 50 decimal places, of the two matrices as they are stored."""
    with mpmath.workdps(50):
        first, second = (mpmath.matrix(covariance.tolist()) for covariance in (one, two))
        values, vectors = mpmath.eigsy(first)
        root = vectors * mpmath.diag([mpmath.sqrt(max(value, 0)) for value in values])
        product = root.T * second * root
        return float(sum(mpmath.sqrt(max(v, 0)) for v in mpmath.eigsy((product + product.T) / 2, eigvals_only=True)))


FALLING = 1 / torch.arange(1, 17, dtype=torch.float64)
DEAD = torch.cat((torch.zeros(3, dtype=torch.float64), FALLING[3:]))


@pytest.mark.parametrize(
    ("real", "fake", "precision"),
    [
        (FALLING, FALLING, 1e-14),
        (FALLING, torch.ones_like(FALLING), 1e-14),
        (torch.logspace(-6, 0, 16, dtype=torch.float64), FALLING, 1e-12),
        (torch.logspace(-12, 0, 16, dtype=torch.float64), FALLING, 1e-10),
        (torch.logspace(-12, 0, 16, dtype=torch.float64), torch.logspace(-12, 0, 16, dtype=torch.float64), 1e-7),
        (torch.logspace(-20, 0, 16, dtype=torch.float64), FALLING, 1e-7),
        (DEAD, FALLING, 1e-7),
        (FALLING, DEAD, 1e-7),
        (DEAD, DEAD, 1e-7),
    ],
)
def test_the_trace_is_exact_however_badly_conditioned(real: torch.Tensor, fake: torch.Tensor, precision: float) -> None:
    """Where both covariances are nearly singular, the root of what rounding leaves of a zero is some 1e-8."""
    one, two = with_spectrum(real, 1), with_spectrum(fake, 2)
    expected = exact_trace_of_root(one, two)
    zero = torch.zeros(16, dtype=torch.float64)
    traces = float(one.trace() + two.trace())
    found = (traces - frechet_distance(gaussian(zero, one), gaussian(zero, two), square_root(one))) / 2
    assert found == pytest.approx(expected, rel=precision)


def test_what_is_only_semi_definite_has_a_root_too() -> None:
    """Cholesky's factor where there is one, and the same distance by V·Λ^½ where a feature is dead."""
    alive = random_spd(12, 0)
    assert torch.equal(square_root(alive), torch.linalg.cholesky(alive))
    dead = alive.clone()
    dead[3], dead[:, 3] = 0, 0
    assert int(torch.linalg.cholesky_ex(dead).info) == 4
    torch.testing.assert_close(square_root(dead) @ square_root(dead).T, dead)
    rest = [i for i in range(12) if i != 3]
    zero, other = torch.zeros(12, dtype=torch.float64), random_spd(12, 1)
    without = frechet_distance(gaussian(zero[1:], dead[rest][:, rest]), gaussian(zero[1:], other[rest][:, rest]))
    expected = without + float(other[3, 3])
    assert frechet_distance(gaussian(zero, dead), gaussian(zero, other)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("n_real", "n_fake"), [(100, 80), (100, 12), (12, 100), (12, 9), (2, 2)])
def test_from_the_samples_themselves_it_is_the_same(n_real: int, n_fake: int) -> None:
    generator = torch.Generator().manual_seed(0)
    real, fake = (torch.randn(n, 32, generator=generator) + n for n in (n_real, n_fake))
    assert frechet_distance_of(real, fake) == pytest.approx(frechet_distance(of(real), of(fake)), rel=1e-9)


def test_distances_of_classes() -> None:
    """Each class by itself: equal, moved by a vector of length 5, and one without two fakes."""
    real = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(30) % 3
    fake = torch.cat((real[labels == 0], real[labels == 1] + torch.tensor([3.0, 0, 4, 0]), real[:1]))
    fake_labels = torch.tensor([0] * 10 + [1] * 10 + [2])
    equal, moved, lonely = frechet_distances_of_classes(real, labels, fake, fake_labels, 3)
    assert equal == pytest.approx(0, abs=1e-9)
    assert moved == pytest.approx(25, rel=1e-5)
    assert lonely is None


def test_fid_infinity_is_without_the_bias_of_few_fakes() -> None:
    """Of 1000 fakes in 40 dimensions from the reals' own Gaussian the distance is 0, but looks like 40²/(4·1000)."""
    zero, one = torch.zeros(40, dtype=torch.float64), torch.eye(40, dtype=torch.float64)
    fakes = [torch.randn(1000, 40, generator=torch.Generator().manual_seed(seed)) for seed in range(4)]
    plain = [frechet_distance(gaussian(zero, one), of(fake)) for fake in fakes]
    limits = [frechet_infinity(gaussian(zero, one), fake) for fake in fakes]
    assert min(plain) > 0.3
    assert abs(np.mean(limits)) < 0.1
    shifted = frechet_infinity(gaussian(zero + 1, one), fakes[0])
    assert shifted == pytest.approx(40, rel=0.04)


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
