"""Latents and labels of given sample indices: the same at any batch size and on any number of devices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from bigtrain import randomness


def draw_latents(
    seed: int, stream: str, indices: ArrayLike, latent_dim: int, truncation: float | None = None
) -> Tensor:
    """Standard normal latents, float32 [len(indices), latent_dim].

    Args:
        truncation: threshold of the truncation trick (arXiv 1809.11096, section 3.1): each number is drawn again until
            its magnitude does not exceed it, so that numbers below it are those of every larger threshold.

    Raises:
        ValueError: if `truncation` is below 0.02, where redrawing takes for ever.
    """
    drawn = randomness.normal(seed, stream, indices, latent_dim)
    if truncation is not None:
        if not truncation >= 0.02:
            raise ValueError(f"truncation (={truncation}) must be at least 0.02")
        index, attempt = np.asarray(indices), 0
        while (rows := np.flatnonzero((np.abs(drawn) > truncation).any(axis=1))).size:
            attempt += 1
            again = randomness.normal(seed, stream, index[rows], latent_dim, attempt)
            drawn[rows] = np.where(np.abs(drawn[rows]) > truncation, again, drawn[rows])
    return torch.from_numpy(drawn.astype(np.float32))


def draw_labels(seed: int, stream: str, indices: ArrayLike, class_counts: Sequence[int]) -> Tensor:
    """Labels int64 [len(indices)] with the frequencies of the classes; zeros if there are no classes."""
    drawn = randomness.uniform(seed, stream, indices)[:, 0]
    if not class_counts:
        return torch.zeros(len(drawn), dtype=torch.int64)
    bounds = np.cumsum(class_counts) / np.sum(class_counts)
    return torch.from_numpy(np.searchsorted(bounds[:-1], drawn, side="right").astype(np.int64))


class Inputs:
    """The generator's inputs for the batches of one turn, drawn for many small batches at once.

    A step of a small network is so short that drawing for each one by itself would be felt. What is drawn ahead is
    addressed like everything else: the numbers are those of `draw_latents` and `draw_labels`.

    Args:
        seed, turn: of the streams `latent/{turn}` and `label/{turn}`.
        latent_dim, class_counts: as the two functions take them.
    """

    AHEAD: Final = 512

    def __init__(self, seed: int, turn: str, latent_dim: int, class_counts: Sequence[int]) -> None:
        self.seed, self.turn, self.latent_dim, self.class_counts = seed, turn, latent_dim, class_counts
        self._indices = range(0)
        self._drawn = torch.empty(0), torch.empty(0)

    def __call__(self, indices: range) -> tuple[Tensor, Tensor]:
        """Latents float32 [n, latent_dim] and labels int64 [n] of the sample indices."""
        known = self._indices
        if indices.step != known.step or indices[0] not in known or indices[-1] not in known:
            first, step = indices.start, indices.step
            self._indices = known = range(first, first + step * max(len(indices), self.AHEAD), step)
            self._drawn = (
                draw_latents(self.seed, f"latent/{self.turn}", known, self.latent_dim),
                draw_labels(self.seed, f"label/{self.turn}", known, self.class_counts),
            )
        start = known.index(indices.start)
        latents, labels = self._drawn
        return latents[start : start + len(indices)], labels[start : start + len(indices)]
