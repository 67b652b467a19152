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

    def __call__(self, indices: ArrayLike) -> tuple[Tensor, Tensor]:
        """Images uint8 [n, c, h, w] on the host and labels int64 [n] of the sample indices."""
        labels = self.labels(indices)
        return self.make(self.latents(indices), labels), labels

    def latents(self, indices: ArrayLike) -> Tensor:
        """Latents float32 [n, latent_dim] of the sample indices."""
        return draw_latents(self.seed, "latent/sample", indices, self.generator.latent_dim, self.truncation)

    @torch.no_grad()
    def vectors(self, labels: Tensor) -> Tensor:
        """What the generator makes of labels [n], float32 [n, dim] on the host.

        Raises:
            ValueError: if it has no vectors of its classes.
        """
        return self.generator.embed_label(labels.to(next(self.generator.parameters()).device)).float().cpu()

    def make(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Images uint8 [n, c, h, w] on the host.

        Args:
            latents: float32 [n, latent_dim].
            labels: int64 [n], or vectors float32 [n, dim], such as `vectors` gives or what lies between them.
        """
        starts = range(0, len(latents), self.batch)
        return torch.cat([self._run(latents[i : i + self.batch], labels[i : i + self.batch]) for i in starts])

    def truncated(self, truncation: float | None) -> Sampler:
        """A sampler of the same samples at another threshold."""
        return Sampler(self.generator, self.seed, self.labels, truncation, self.batch, self.place)

    @torch.no_grad()
    def _run(self, latents: Tensor, labels: Tensor) -> Tensor:
        padded = torch.arange(self.batch) % len(latents)
        latent, label = latents[padded], labels[padded]
        weight, training = next(self.generator.parameters()), self.generator.training
        self.generator.eval()
        label = label.to(weight) if label.is_floating_point() else label.to(weight.device)
        images = self.generator(latent.to(weight), label, **self.place)
        self.generator.train(training)
        return to_uint8(images)[: len(latents)].cpu()


def batches(sampler: Sampler, indices: Sequence[int]) -> Iterator[tuple[Sequence[int], Tensor, Tensor]]:
    """The samples in batches: their indices, images and labels."""
    for start in range(0, len(indices), sampler.batch):
        part = indices[start : start + sampler.batch]
        yield part, *sampler(part)


def drawn(seed: int, class_counts: Sequence[int]) -> Labels:
    """Labels with the frequencies of the data's classes."""
    return lambda indices: draw_labels(seed, "label/sample", indices, class_counts)


def cycled(classes: Sequence[int]) -> Labels:
    """Sample i has the label classes[i mod len(classes)]."""
    return lambda indices: torch.as_tensor(classes)[torch.as_tensor(np.asarray(indices)) % len(classes)]
