"""Scores a sampler against a set of shards: which extractor, which reference, which samples."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from bigtrain.data.batches import to_tensor
from bigtrain.data.faults import Faults
from bigtrain.data.progress import progress
from bigtrain.data.reader import Reader
from bigtrain.data.shard_set import ShardSet
from bigtrain.evaluation.classifier import ClassifierExtractor, train_classifier
from bigtrain.evaluation.evaluate import Evaluation, evaluate
from bigtrain.evaluation.extractors import Extractor
from bigtrain.evaluation.inception import InceptionExtractor, inception_available
from bigtrain.evaluation.protocol import Provenance, Score
from bigtrain.evaluation.reference import Reference, content_key, measure_reference, reference_statistics

#: Images uint8 [n, c, h, w] and labels [n] of sample indices.
Samples = Callable[[np.ndarray], tuple[Tensor, Tensor]]
CLASSIFIER_SEED = 0  # so that every run on the same shards is measured by the same classifier
_log = logging.getLogger(__name__)


class Scorer:
    """Measures generators against the shards at one resolution.

    Args:
        shards: whose images are the real ones; what is measured of them is kept beside the first set.
        resolution: at which images are measured; smaller samples are enlarged to it.
        extractor: `inception`, `classifier` (trained on the labelled shards, kept beside them) or `auto`: Inception
            if its weights are on this machine, otherwise the classifier.
        inception_weights: path or URL of Inception's weights.
        batch_size: images measured at a time.
        device: of the extractor.

    Raises:
        ValueError: if a classifier is asked for and the shards have no labels.
    """

    def __init__(
        self,
        shards: ShardSet,
        resolution: int,
        extractor: str = "auto",
        inception_weights: str | None = None,
        batch_size: int = 100,
        device: torch.device | str = "cpu",
    ) -> None:
        self.shards, self.storage, self.resolution = shards, shards.storages[0], resolution
        self.inception_weights, self.batch_size, self.device = inception_weights, batch_size, torch.device(device)
        if extractor == "auto":
            extractor = "inception" if inception_weights or inception_available() else "classifier"
        if extractor == "classifier" and shards.num_classes < 2:
            raise ValueError(
                f"the shards at {shards.url!r} have no labels to train a classifier on, and Inception's weights are "
                "not on this machine: name them by evaluation.inception_weights, or set evaluation to null"
            )
        self.kind = extractor
        #: Of the evaluation alone: what it finds must not change which images the training sees.
        self.faults = Faults(shards.shard_samples, 0, *shards.budget)

    @cached_property
    def extractor(self) -> Extractor:
        if self.kind == "inception":
            return InceptionExtractor(self.inception_weights).to(self.device)
        key = f"evaluation/classifier-{self.shards.hash[:16]}-r{self.resolution}.safetensors"
        if not self.storage.exists(key):
            made = train_classifier(
                self.real_images(),
                self.shards.num_classes,
                self.resolution,
                self.shards.channels,
                CLASSIFIER_SEED,
                trained_on=self.shards.hash,
                device=self.device,
            )
            try:
                made.save(self.storage, key)
            except OSError as error:
                _log.warning(
                    "the classifier cannot be stored beside the shards, the next run trains it again: %s", error
                )
                return made.to(self.device)
        return ClassifierExtractor.load(self.storage, key).to(self.device)

    @cached_property
    def reference(self) -> Reference:
        """Statistics of all real images, but for damaged ones, as many as the budget allows."""
        whole, damaged = (
            content_key(self.shards.hash, self.resolution, self.extractor, damaged=damaged) for damaged in (False, True)
        )
        found = reference_statistics(self.storage, whole, self._measure, damaged, self.faults.allowed)
        if found.left_out:
            _log.warning(
                "damaged images are left out of the reference: %d of %d; the protocol of its scores says so",
                found.left_out,
                self.shards.samples,
            )
        return found

    def _measure(self) -> Reference:
        images, classes = self.real_images(self.batch_size), self.shards.num_classes
        made = measure_reference(images, self.extractor, self.shards.hash, classes)
        return replace(made, left_out=self.shards.samples - made.num_real)

    def real_images(self, size: int = 128) -> Iterator[tuple[Tensor, Tensor]]:
        """All sound images of the shards as stored, uint8 [n, c, h, w], and their labels, in batches of `size`.

        Raises:
            TooManyFaultsError: naming shard, key and offset, if more is damaged than the shards' budget allows.
        """
        for images, labels in Reader(self.shards, self.faults).all(self.resolution, size):
            yield to_tensor(images).contiguous(), torch.from_numpy(labels)

    def prepare(self, metrics: Sequence[str], num: int) -> None:
        """Does before a training what could fail after it: the extractor and the statistics of the real images.

        Raises:
            ValueError, OSError: if the metrics cannot be had.
        """
        Evaluation(self.extractor, self.reference, self._possible(metrics, conditional=True), num, self.batch_size)

    def score(
        self, samples: Samples, metrics: Sequence[str], num: int, provenance: Provenance, conditional: bool
    ) -> list[Score]:
        """The scores of samples 0 … num - 1.

        Args:
            samples: makes the images and labels of sample indices.
            metrics: recognition is left out where there is nothing to be recognised, or nobody to recognise it.
            num: at least 2.
            provenance: how the samples are made.
            conditional: whether the samples have labels that they were asked for.
        """
        with progress("evaluating", num) as shown:
            return evaluate(
                lambda indices: self._measured(samples, indices, conditional),
                self.extractor,
                self.reference,
                self._possible(metrics, conditional),
                num,
                self.batch_size,
                provenance,
                progress=lambda done, _: shown.update(done),
            )

    def _possible(self, metrics: Sequence[str], conditional: bool) -> list[str]:
        able = conditional and self.extractor.recognises_labels
        return [metric for metric in metrics if able or metric != "recognition"]

    def _measured(self, samples: Samples, indices: np.ndarray, conditional: bool) -> tuple[Tensor, Tensor | None]:
        images, labels = samples(indices)
        factor = self.resolution // images.shape[-1]
        if factor > 1:
            images = images.repeat_interleave(factor, dim=2).repeat_interleave(factor, dim=3)
        return images, labels if conditional else None
