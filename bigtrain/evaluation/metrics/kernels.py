"""Maximum mean discrepancies: the distance of two distributions' means in the space of a kernel."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bigtrain.evaluation.metrics.neighbours import BLOCK, chosen, distance_blocks

SIGMA, SCALE = 10.0, 1000.0  # of CMMD
Kernel = Callable[[Tensor, Tensor], Tensor]


def kernel_distance(
    real: Tensor, fake: Tensor, subsets: int = 100, size: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """KID: the unbiased MMD² of the kernel (x·y/d + 1)³, mean over subsets and its standard deviation (ddof 0).

    Bińkowski et al., arXiv 1801.01401, section 4. Subset i is the same whoever computes it.

    Args:
        real, fake: features [n, d] and [m, d].
        subsets: pairs of subsets.
        size: samples of each, drawn without replacement; no more than there are.
        seed: of the subsets.
    """
    size = min(size, len(real), len(fake))
    values = [
        unbiased_mmd(chosen(real, size, seed, "kid", "real", i), chosen(fake, size, seed, "kid", "fake", i))
        for i in range(subsets)
    ]
    return float(np.mean(values)), float(np.std(values))


def kernel_distance_of_all(real: Tensor, fake: Tensor) -> float:
    """The same estimate from all pairs at once, without subsets: it has the least variance."""
    return unbiased_mmd(real, fake)


def unbiased_mmd(real: Tensor, fake: Tensor) -> float:
    """MMD² of the kernel (x·y/d + 1)³ without the pairs of a sample with itself, so that equal distributions give 0."""
    within = 0.0
    for one in (real, fake):
        pairs = len(one) * (len(one) - 1)
        itself = (one.double().square().sum(dim=1) / one.shape[1] + 1).pow(3).sum()
        within += float(_polynomial_sum(one, one) - itself) / pairs
    return within - 2 * float(_polynomial_sum(real, fake)) / (len(real) * len(fake))


def _polynomial_sum(a: Tensor, b: Tensor) -> Tensor:
    others = b.double().T
    rows = max(1, BLOCK // len(b))
    return torch.stack([(some.double() @ others / len(others) + 1).pow(3).sum() for some in a.split(rows)]).sum()


def cmmd(real: Tensor, fake: Tensor) -> float:
    """1000·MMD² of features of length one under the kernel exp(-|x - y|²/(2·10²)): Jayasumana et al., arXiv 2401.09603.

    A sample's pair with itself counts, as in the authors' code. Meant for CLIP's features.
    """
    x, y = (F.normalize(features.double(), dim=1) for features in (real, fake))
    return SCALE * float(_gaussian_mean(x, x) + _gaussian_mean(y, y) - 2 * _gaussian_mean(x, y))


def _gaussian_mean(a: Tensor, b: Tensor) -> Tensor:
    sums = [(squares / (-2 * SIGMA**2)).exp().sum() for _, squares in distance_blocks(a, b)]
    return torch.stack(sums).sum() / (len(a) * len(b))
