"""Images by sample index."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from bigtrain.networks import Generator
from bigtrain.sampling.latents import draw_labels, draw_latents
from bigtrain.sampling.pixels import to_uint8

Labels = Callable[[ArrayLike], Tensor]


class Sampler:
    """A function from sample indices to images and labels: sample i is the same whatever is sampled beside it.

    The generator always runs on batches of one size (the last one padded), because a network's numerics depend on it.

    Args:
        generator: is put into evaluation mode while it samples.
        seed: of latents and labels.
        labels: from sample indices to labels; see `drawn` and `cycled`.
        truncation: threshold of the truncation trick, or None.
        batch: images made at a time.
        place: `resolution` and `alpha` of a growing generator.
    """

    def __init__(
        self,
        generator: Generator,
        seed: int,
        labels: Labels,
        truncation: float | None = None,
        batch: int = 64,
        place: dict[str, Any] | None = None,
    ) -> None:
        if batch < 1:
            raise ValueError(f"batch (={batch}) must be at least 1")
        self.generator, self.seed, self.labels, self.truncation = generator, seed, labels, truncation
        self.batch, self.place = batch, place if generator.progressive and place else {}

    @torch.no_grad()
    def __call__(self, indices: ArrayLike) -> tuple[Tensor, Tensor]:
        """Images uint8 [n, c, h, w] on the host and labels int64 [n] of the sample indices."""
        index = np.asarray(indices, dtype=np.int64)
        parts = [self._run(index[start : start + self.batch]) for start in range(0, len(index), self.batch)]
        images, labels = zip(*parts, strict=True)
        return torch.cat(images), torch.cat(labels)

    def _run(self, index: np.ndarray) -> tuple[Tensor, Tensor]:
        padded = np.resize(index, self.batch)
        latent = draw_latents(self.seed, "latent/sample", padded, self.generator.latent_dim, self.truncation)
        label = self.labels(padded)
        weight, training = next(self.generator.parameters()), self.generator.training
        self.generator.eval()
        images = self.generator(latent.to(weight), label.to(weight.device), **self.place)
        self.generator.train(training)
        return to_uint8(images)[: len(index)].cpu(), label[: len(index)]


def batches(sampler: Sampler, num: int) -> Iterator[tuple[range, Tensor, Tensor]]:
    """Samples 0 … num - 1 in batches: their indices, images and labels."""
    for start in range(0, num, sampler.batch):
        indices = range(start, min(num, start + sampler.batch))
        yield indices, *sampler(indices)


def drawn(seed: int, class_counts: Sequence[int]) -> Labels:
    """Labels with the frequencies of the data's classes."""
    return lambda indices: draw_labels(seed, "label/sample", indices, class_counts)


def cycled(classes: Sequence[int]) -> Labels:
    """Sample i has the label classes[i mod len(classes)]."""
    return lambda indices: torch.as_tensor(classes)[torch.as_tensor(np.asarray(indices)) % len(classes)]
