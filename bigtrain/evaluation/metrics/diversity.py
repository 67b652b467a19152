"""How many different images there are: by the spread of the features, and by those that repeat."""

from __future__ import annotations

import torch

from bigtrain.evaluation.metrics.neighbours import Pairs, distance_blocks
from bigtrain.evaluation.statistics import DirectionStatistics


def vendi_score(fake: DirectionStatistics) -> float:
    """exp(H(λ)) of the eigenvalues λ of K/n, K the cosines between all pairs: Friedman and Dieng, arXiv 2210.02410.

    1 if all are equal, n if all are orthogonal. The second moment Xᵀ·X/n has the same eigenvalues but for zeros.
    """
    eigenvalues = torch.linalg.eigvalsh(fake.outer / fake.count).clamp(min=0)
    return float(torch.special.entr(eigenvalues).sum().exp())


def support_size(pairs: Pairs) -> float:
    """How many images the generator can make, from how many of n fakes are alike: n·(n - 1)/2 over the pairs alike.

    The birthday paradox of Arora et al., arXiv 1706.08224, where people looked for duplicates. Here two fakes are alike
    if they are nearer than half the usual (median) distance of a real image to the nearest other. If no two are, the
    value is that of one pair: the support is at least so large.
    """
    threshold = pairs.real_neighbours[:, 0].median() / 4  # of squares
    alike = sum(int((squares <= threshold).sum()) for _, squares in distance_blocks(pairs.fake, pairs.fake))
    n = len(pairs.fake)
    return n * (n - 1) / max(alike - n, 2)  # both count each pair twice
