"""Maximum mean discrepancies: the distance of two distributions' means in the space of a kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
    sets = {"real": torch.arange(len(real)), "fake": torch.arange(len(fake))}
    drawn = [[chosen(places, size, seed, "kid", name, i) for name, places in sets.items()] for i in range(subsets)]
    if (len(real) + len(fake)) ** 2 <= 3 * subsets * size**2:
        values = _mmds_of_one_kernel(real, fake, drawn)
    else:
        values = [unbiased_mmd(real[one.to(real.device)], fake[other.to(fake.device)]) for one, other in drawn]
    return float(np.mean(values)), float(np.std(values))


def _mmds_of_one_kernel(real: Tensor, fake: Tensor, drawn: Sequence[Sequence[Tensor]]) -> list[float]:
    """`unbiased_mmd` of many subsets, by the kernel of all pairs, which is less work if there are few samples.

    With a = 1 for the samples of a subset and 0 for all others, its sum is aᵀ·K·a.
    """
    both = torch.cat((real, fake)).double()  # [n + m, d]
    subsets, size = len(drawn), len(drawn[0][0])
    members = both.new_zeros(2, subsets, len(both))
    for i, (reals, fakes) in enumerate(drawn):
        members[0, i, reals.to(both.device)] = 1
        members[1, i, len(real) + fakes.to(both.device)] = 1
    sums = both.new_zeros(2, 2, subsets)  # of reals or fakes with reals or fakes
    rows = max(1, BLOCK // len(both))
    for first in range(0, len(both), rows):
        kernel = (both[first : first + rows] @ both.T / both.shape[1] + 1).pow(3)  # [rows, n + m]
        sums += torch.einsum("asr,bsr->abs", members[..., first : first + rows], members @ kernel.T)
    itself = members @ (both.square().sum(dim=1) / both.shape[1] + 1).pow(3)  # [2, subsets]
    within = (sums[0, 0] + sums[1, 1] - itself.sum(dim=0)) / (size * (size - 1))
    return (within - 2 * sums[0, 1] / size**2).tolist()


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
