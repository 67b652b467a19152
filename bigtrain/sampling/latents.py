"""Latents and labels of given sample indices: the same at any batch size and on any number of devices."""

from __future__ import annotations

from collections.abc import Sequence

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
