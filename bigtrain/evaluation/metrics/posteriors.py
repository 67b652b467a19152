"""Scores of what a classifier takes the samples for: p(y|x) and its mean p(y)."""

from __future__ import annotations

import torch
from torch import Tensor

from bigtrain.evaluation.statistics import LogitStatistics, PosteriorStatistics


def inception_score(logits: LogitStatistics) -> tuple[float, float]:
    """exp(E KL(p(y|x) ‖ p(y))), the mean over the splits and its standard deviation (ddof 0).

    Salimans et al., arXiv 1606.03498, section 4; E KL = E Σ p·log p - Σ q·log q with q = E p.
    """
    q = logits.marginal / logits.count[:, None]  # [split, class]
    divergence = logits.negentropy / logits.count + torch.special.entr(q).sum(dim=1)
    scores = divergence.exp()
    return float(scores.mean()), float(scores.std(correction=0))


def mode_score(fake: PosteriorStatistics, real_posterior: Tensor) -> float:
    """exp(E KL(p(y|x) ‖ r) - KL(p(y) ‖ r)) with r = p(y) of the training images: Che et al., arXiv 1612.02136.

    With the mean of p(y|x) for p(y), r cancels: this is the Inception Score of all samples in one split (Zhou et al.,
    arXiv 1703.02000, say so).

    Args:
        fake: of the samples.
        real_posterior: mean p(y|x) of the reals, [k].
    """
    log_r = _log(real_posterior)
    q = fake.mean_posterior
    to_samples = fake.negentropy.sum() / fake.count.sum() - q @ log_r
    return float((to_samples - divergence(q, real_posterior)).exp())


def am_score(fake: PosteriorStatistics, real_posterior: Tensor) -> float:
    """KL(r ‖ p(y)) + E H(p(y|x)), small is good: Zhou et al., arXiv 1703.02000; r is p(y) of the training images."""
    entropy = -fake.negentropy.sum() / fake.count.sum()
    return float(divergence(real_posterior, fake.mean_posterior) + entropy)


def modified_inception_scores(fake: PosteriorStatistics) -> tuple[float, list[float | None]]:
    """exp(E KL(p(y|x_i) ‖ p(y|x_j))) of the pairs within each class, and its mean over the classes that were seen.

    Gurumurthy et al., arXiv 1706.02071: how different the samples are that the classifier takes for the same class.
    """
    count = fake.count.clamp(min=1)
    crossed = (fake.marginal * fake.log_marginal).sum(dim=1) / count.square()  # E_i E_j Σ p_i·log p_j
    scores = (fake.negentropy / count - crossed).exp()
    seen = fake.count > 0
    each = [float(score) if there else None for score, there in zip(scores, seen, strict=True)]
    return float(scores[seen].mean()), each


def mode_divergence(fake_counts: Tensor, real_counts: Tensor) -> float:
    """KL of the classes that samples are recognised as to those of the reals, from the counts of each [k].

    The second figure of the stacked-MNIST test of Metz et al., arXiv 1611.02163; the first is how many are above 0.
    """
    p, q = (counts.double() / counts.sum() for counts in (fake_counts, real_counts))
    return float(divergence(p, q))


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL(p ‖ q) of distributions over classes."""
    return (p * (_log(p) - _log(q))).sum()


def _log(p: Tensor) -> Tensor:
    """The logarithm of probabilities, of which those below 1e-300 count as that: a class that nobody was taken for."""
    return p.double().clamp(min=1e-300).log()
