"""Sheets: samples beside each other in rows and columns that mean something."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from bigtrain.sampling.generate import Sampler


class Sheet(NamedTuple):
    """Images that belong together in rows."""

    images: Tensor  # uint8 [rows · columns, c, h, w], row by row
    columns: int


def class_sheet(sampler: Sampler, latents: Tensor, classes: Sequence[int]) -> Sheet:
    """A row for each class and a column for each latent [n, latent_dim]: a column shows one latent in all classes."""
    labels = torch.as_tensor(classes).repeat_interleave(len(latents))
    return Sheet(sampler.make(latents.repeat(len(classes), 1), labels), len(latents))


def truncation_sheet(sampler: Sampler, indices: Sequence[int], thresholds: Sequence[float | None]) -> Sheet:
    """A row for each threshold of the truncation trick, None for none, and a column for each sample.

    Raises:
        ValueError: if a threshold is too low.
    """
    cut = [sampler.truncated(threshold) for threshold in thresholds]
    latents = [one.latents(indices) for one in cut]  # first of all: what is too low is told before an image is made
    images = [one.make(latent, sampler.labels(indices)) for one, latent in zip(cut, latents, strict=True)]
    return Sheet(torch.cat(images), len(indices))
