"""Images by sample index."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from bigtrain.networks import Generator
from bigtrain.sampling.latents import draw_labels, draw_latents
from bigtrain.sampling.pixels import to_uint8
from bigtrain.sampling.standing_stats import Moments, StandingStats, estimate, installed

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
        standing: how batch-norm statistics are estimated anew, when they are first needed; None for the generator's
            own running averages. Either way the generator keeps those that it has.

    Raises:
        ValueError: if there is nothing to estimate, or the batch is empty.
    """

    def __init__(
        self,
        generator: Generator,
        seed: int,
        labels: Labels,
        truncation: float | None = None,
        batch: int = 64,
        place: dict[str, Any] | None = None,
        standing: StandingStats | None = None,
    ) -> None:
        if batch < 1:
            raise ValueError(f"batch (={batch}) must be at least 1")
        self.generator, self.seed, self.labels, self.truncation = generator, seed, labels, truncation
        self.batch, self.place, self.standing = batch, place if generator.progressive and place else {}, standing
        if standing is not None:
            standing.check(generator)

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
        return torch.cat([to_uint8(images).cpu() for images in self._batches(latents, labels)])

    def make_exact(self, latents: Tensor, labels: Tensor) -> Tensor:
        """The same before they are rounded: [n, c, h, w] as the generator makes them, about in [-1, 1]."""
        return torch.cat(list(self._batches(latents, labels)))

    def _batches(self, latents: Tensor, labels: Tensor) -> Iterator[Tensor]:
        for i in range(0, len(latents), self.batch):
            yield self._run(latents[i : i + self.batch], labels[i : i + self.batch])

    def truncated(self, truncation: float | None) -> Sampler:
        """A sampler of the same samples at another threshold, with standing statistics of its own."""
        return Sampler(
            self.generator, self.seed, self.labels, truncation, self.batch, self.place, standing=self.standing
        )

    @property
    def standing_stats(self) -> str | None:
        """What standing statistics are estimated from, in words, for the protocol of a score."""
        return None if self.standing is None else f"{self.standing.passes} batches of {self.batch}"

    @cached_property
    def _moments(self) -> Moments:
        """Standing statistics, of latents truncated like the samples' and labels like the data's; else nothing."""
        if self.standing is None:
            return {}
        counts = self.standing.class_counts

        def run(number: int) -> None:
            indices = range(number * self.batch, (number + 1) * self.batch)
            latents = draw_latents(
                self.seed, "latent/standing_stats", indices, self.generator.latent_dim, self.truncation
            )
            self._forward(latents, draw_labels(self.seed, "label/standing_stats", indices, counts))

        with self._evaluating():
            return estimate(self.generator, self.standing.passes, run)

    @torch.no_grad()
    def _run(self, latents: Tensor, labels: Tensor) -> Tensor:
        padded = torch.arange(self.batch) % len(latents)
        with installed(self._moments), self._evaluating():
            images = self._forward(latents[padded], labels[padded])
        return images[: len(latents)]

    def _forward(self, latent: Tensor, label: Tensor) -> Tensor:
        weight = next(self.generator.parameters())
        label = label.to(weight) if label.is_floating_point() else label.to(weight.device)
        return self.generator(latent.to(weight), label, **self.place)

    @contextlib.contextmanager
    def _evaluating(self) -> Iterator[None]:
        training = self.generator.training
        self.generator.eval()
        try:
            yield
        finally:
            self.generator.train(training)


def drawn(seed: int, class_counts: Sequence[int]) -> Labels:
    """Labels with the frequencies of the data's classes."""
    return lambda indices: draw_labels(seed, "label/sample", indices, class_counts)


def cycled(classes: Sequence[int]) -> Labels:
    """Sample i has the label classes[i mod len(classes)]."""
    return lambda indices: torch.as_tensor(classes)[torch.as_tensor(np.asarray(indices)) % len(classes)]
