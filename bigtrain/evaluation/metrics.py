"""Metrics as pure functions of sufficient statistics, in float64."""

from __future__ import annotations

import torch
from torch import Tensor

from bigtrain.evaluation.statistics import FeatureStatistics, LogitStatistics


def square_root(covariance: Tensor) -> Tensor:
    """L = V·Λ^½ with L·Lᵀ = V·Λ·Vᵀ = covariance, float64 [d, d]."""
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


def inception_score(logits: LogitStatistics) -> tuple[float, float]:
    """exp(E KL(p(y|x) ‖ p(y))), the mean over the splits and its standard deviation (ddof 0).

    Salimans et al., arXiv 1606.03498, section 4; E KL = E Σ p·log p - Σ q·log q with q = E p.
    """
    q = logits.marginal / logits.count[:, None]  # [split, class]
    divergence = logits.negentropy / logits.count + torch.special.entr(q).sum(dim=1)
    scores = divergence.exp()
    return float(scores.mean()), float(scores.std(correction=0))
