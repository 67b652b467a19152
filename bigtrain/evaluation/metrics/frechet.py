"""Distances between Gaussians that have the mean and covariance of the features."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from bigtrain.evaluation.statistics import FeatureStatistics
from bigtrain.randomness import permutation


def square_root(covariance: Tensor) -> Tensor:
    """L with L·Lᵀ = covariance, float64 [d, d]: Cholesky's factor, a tenth of the work of V·Λ^½.

    That one serves where the covariance is only semi-definite: of dead features, or of fewer samples than dimensions.
    """
    factor, failed_at = torch.linalg.cholesky_ex(covariance)
    if not failed_at:
        return factor
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp(min=0).sqrt()


def frechet_distance(real: FeatureStatistics, fake: FeatureStatistics, real_root: Tensor | None = None) -> float:
    """|μr - μg|² + tr(Σr + Σg - 2(Σr·Σg)^½): FID (Heusel et al., arXiv 1706.08500) on Inception's features.

    Σr·Σg is not symmetric, but with L·Lᵀ = Σr it has the eigenvalues of the symmetric M = Lᵀ·Σg·L, which are real,
    not negative and exact to rounding. n samples give a covariance of rank below n, so that no more than that many of
    them are counted: the square root makes 1e-8 out of the 1e-16 that rounding leaves of a zero.

    Args:
        real, fake: at least two samples each, features of the same length.
        real_root: `square_root(real.covariance)`, if it is known already.
    """
    covariance_real, covariance_fake = real.covariance, fake.covariance
    root = square_root(covariance_real) if real_root is None else real_root
    product = root.T @ covariance_fake @ root
    rank = min(real.dim, int(real.count) - 1, int(fake.count) - 1)
    eigenvalues = torch.linalg.eigvalsh((product + product.T) / 2)[-rank:]  # in ascending order
    trace_of_root = eigenvalues.clamp(min=0).sqrt().sum()
    traces = covariance_real.trace() + covariance_fake.trace()
    squared = (real.mean - fake.mean).square().sum() + traces - 2 * trace_of_root
    return float(squared.clamp(min=0))  # rounding can take it below zero


def frechet_distance_of(real: Tensor, fake: Tensor, ddof: int = 1) -> float:
    """The same from the features themselves, float [n, d] and [m, d], of which there may be fewer than dimensions.

    Then the trace of the root is the sum of the singular values of the centred Y·Xᵀ / √((m - ddof)·(n - ddof)), a
    matrix of m by n instead of d by d.
    """
    dim = real.shape[1]
    if min(len(real), len(fake)) > dim:
        return frechet_distance(_summed(real, ddof), _summed(fake, ddof))
    x, y = (_spread(features, ddof) for features in (real, fake))
    trace_of_root = torch.linalg.svdvals(y @ x.T).sum()
    means = (real.double().mean(dim=0) - fake.double().mean(dim=0)).square().sum()
    return float((means + x.square().sum() + y.square().sum() - 2 * trace_of_root).clamp(min=0))


def _summed(features: Tensor, ddof: int) -> FeatureStatistics:
    statistics = FeatureStatistics(features.shape[1], features.double().mean(dim=0), ddof).to(features.device)
    statistics.update(features)
    return statistics


def _spread(features: Tensor, ddof: int) -> Tensor:
    """Y with Yᵀ·Y = covariance, float64 [n, d]."""
    doubled = features.double()
    return (doubled - doubled.mean(dim=0)) / math.sqrt(len(features) - ddof)


def frechet_distances_of_classes(
    real: Tensor, real_labels: Tensor, fake: Tensor, fake_labels: Tensor, num_classes: int, ddof: int = 1
) -> list[float | None]:
    """The distance of each class's fakes to its reals; their mean is intra-FID (Miyato and Koyama, arXiv 1802.05637).

    Args:
        real, fake: features [n, d] and [m, d].
        real_labels, fake_labels: int64 [n] and [m].
        num_classes: of the labels.
        ddof: delta degrees of freedom of the covariances.

    Returns:
        one for each class; None where there are not two samples of both.
    """
    distances: list[float | None] = []
    for label in range(num_classes):
        reals, fakes = real[real_labels == label], fake[fake_labels == label]
        enough = min(len(reals), len(fakes)) >= 2
        distances.append(frechet_distance_of(reals, fakes, ddof) if enough else None)
    return distances


def frechet_infinity(
    real: FeatureStatistics, fake: Tensor, real_root: Tensor | None = None, points: int = 15, seed: int = 0
) -> float:
    """FID∞, what the distance would be of infinitely many fakes (Chong and Forsyth, arXiv 1911.07023).

    The bias of a distance of n samples is close to c/n, so a line through the distances over 1/n meets it at 0. The
    sizes are evenly spaced from a tenth of the fakes (but no more than 5000, and more than there are dimensions if they
    are enough for that) to all; each holds the smaller ones.

    Args:
        real: of the reals, whose number stays as it is.
        fake: features [m, d].
        real_root: `square_root(real.covariance)`, if it is known already.
        points: sizes.
        seed: of the order in which the fakes are taken.
    """
    order = torch.from_numpy(permutation(len(fake), seed, "fid_infinity")).to(fake.device)
    smallest = max(2, min(5000, len(fake) // 10), min(real.dim + 1, len(fake) // 2))
    sizes = np.unique(np.linspace(smallest, len(fake), points).astype(int))
    root = square_root(real.covariance) if real_root is None else real_root
    statistics = FeatureStatistics(real.dim, real.mean, real.ddof)
    distances, done = [], 0
    for size in sizes:
        statistics.update(fake[order[done:size]].cpu())
        distances.append(frechet_distance(real, statistics, root))
        done = size
    slope_and_limit = np.polyfit(1 / sizes, distances, 1)
    return float(slope_and_limit[1])
