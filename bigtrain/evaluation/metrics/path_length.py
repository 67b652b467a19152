"""Perceptual path length (Karras et al., arXiv 1812.04948, section 4.1): how evenly images change with the latent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bigtrain.randomness import uniform
from bigtrain.sampling.paths import PATHS

EPSILON = 1e-4  # of the way
TAILS = 1, 99  # percentiles beyond which steps are left out, as the authors' code does


@dataclass(frozen=True)
class PathMetric:
    """A step of EPSILON on the way between two latents.

    Attributes:
        path: of PATHS. Generators that scale a latent to a length see StyleGAN's slerp in a spherical one.
        from_start: whether the step is that at the start of the way, or one anywhere on it.
    """

    path: str = "spherical"
    from_start: bool = False

    @property
    def settings(self) -> str:
        """What fixes the metric, in words, for the protocol."""
        where = "at the start of paths" if self.from_start else "anywhere on paths"
        return f"{where} in Z, {self.path}, epsilon {EPSILON:g}, between percentiles {TAILS[0]} and {TAILS[1]}"

    def step(self, starts: Tensor, ends: Tensor, seed: int, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Where the step of each index begins and ends, float64 [n, d], on the way from a start to an end [n, d]."""
        place = uniform(seed, "path/place", indices) * (not self.from_start)  # [n, 1]
        weights = torch.from_numpy(np.concatenate([place, place + EPSILON], axis=1))  # [n, 2]
        before, after = PATHS[self.path](starts.double(), ends.double(), weights).unbind(1)
        return before, after


#: Metrics of a generator, not of its samples: they need images of latents that they name.
PATH_METRICS = {
    "ppl": PathMetric(),
    "ppl_end": PathMetric(from_start=True),
    "ppl_linear": PathMetric("linear"),
}


def path_length(distances: Tensor) -> float:
    """E d(G(t), G(t + ε)) / ε² (equation 2) of the distances [n] of all steps, but for the smallest and largest."""
    steps = distances.double().numpy() / EPSILON**2
    low = np.percentile(steps, TAILS[0], method="lower")
    high = np.percentile(steps, TAILS[1], method="higher")
    return float(steps[(steps >= low) & (steps <= high)].mean())
