"""What became of the same samples in the course of a training: a film, or a strip of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bigtrain.sampling.outputs import tiled
from bigtrain.sampling.pixels import repeated
from bigtrain.sampling.sheets import Sheet


def grown(history: Sequence[Tensor]) -> Tensor:
    """The samples of all moments at the largest resolution among them, uint8 [moments, n, c, h, w].

    Args:
        history: by moment, the same n samples, uint8 [n, c, h, w], of whatever resolution they had.
    """
    largest = max(images.shape[-1] for images in history)
    return torch.stack([repeated(images, largest // images.shape[-1]) for images in history])


def film(history: Sequence[Tensor], columns: int, fps: int) -> Tensor:
    """A frame a moment with the samples in rows, uint8 [frames, 3, h, w]; the last one stands for a second."""
    frames = [tiled(images, columns) for images in grown(history)]
    return torch.stack([*frames, *[frames[-1]] * (fps - 1)])


def strip(history: Sequence[Tensor]) -> Sheet:
    """A row a sample, a column a moment."""
    return Sheet(grown(history).transpose(0, 1).flatten(0, 1), len(history))
