"""Scores a sampler against a set of shards: which extractor, which reference, which samples."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from bigtrain.callbacks.scoring_base import Measurement, Scoring
from bigtrain.data.batches import to_tensor
from bigtrain.data.faults import Faults
from bigtrain.data.progress import Progress, progress
from bigtrain.data.reader import Reader
from bigtrain.data.shard_set import ShardSet
from bigtrain.evaluation.classifier import ClassifierExtractor, train_classifier
from bigtrain.evaluation.extractors import Extractor
from bigtrain.evaluation.places import Places
from bigtrain.evaluation.reference import PARTS, Reference, content_key, measure_reference, reference_statistics
from bigtrain.evaluation.table import needs_of
from bigtrain.storage import Storage

CLASSIFIER_SEED = 0  # so that every run on the same shards is measured by the same classifier
_log = logging.getLogger(__name__)


class Scorer(Scoring):
    """Measures generators against the shards at one resolution.

    Args:
        shards: whose images are the real ones; what is measured of them is kept beside the first set.
        resolution: at which images are measured; smaller samples are enlarged to it.
        by: extractor and protocol.
        spare: where it is kept if there it cannot be.

    Raises:
        ValueError: if a classifier is asked for and the shards have no labels, or there is no such extractor.
    """

    def __init__(
        self, shards: ShardSet, resolution: int, by: Measurement | None = None, spare: Storage | None = None
    ) -> None:
        self.shards = shards
        self.places = Places(shards.storages[0], *([] if spare is None else [spare]))
        self._reference: Reference | None = None
        super().__init__(resolution, shards.channels, shards.classes, by or Measurement())
        if self.kind == "classifier" and shards.num_classes < 2:
            raise ValueError(
                f"the shards at {shards.url!r} have no labels to train a classifier on, and Inception's weights are "
                "not on this machine: name them by evaluation.weights (--weights), or set evaluation to null"
            )
        #: Of the evaluation alone: what it finds must not change which images the training sees.
        self.faults = Faults(shards.shard_samples, 0, *shards.budget)

    @property
    def standard(self) -> str:
        return f"shards {self.shards.url!r} ({self.shards.hash[:8]}) at {self.resolution}²"

    @property
    def classifier_key(self) -> str:
        """Where the classifier is kept, beside the shards."""
        return f"evaluation/classifier-{self.shards.hash[:16]}-r{self.resolution}.safetensors"

    def _opened(self) -> Extractor:
        return self.classifier() if self.kind == "classifier" else super()._opened()

    def classifier(self) -> ClassifierExtractor:
        """The one that is kept beside the shards, or else one that is trained now, and then kept."""
        key = self.classifier_key
        storage = next(self.places.holding(key), None)
        if storage is None:
            made = train_classifier(
                self.real_images(),
                self.shards.num_classes,
                self.resolution,
                self.shards.channels,
                CLASSIFIER_SEED,
                trained_on=self.shards.hash,
                device=self.by.device,
            )
            storage = self.places.keep("the classifier", lambda place: made.save(place, key))
            if storage is None:
                return made
        return ClassifierExtractor.load(storage, key)

    def reference(self, metrics: Sequence[str]) -> Reference | None:
        """Of all real images, but for damaged ones, as many as the budget allows; measured when it is first needed."""
        needs = needs_of(metrics)
        if "reference" not in needs:
            return None
        parts = needs & set(PARTS)
        if self._reference is None or not self._reference.load.keys() >= parts:
            self._reference = self._measured_reference(parts)
        return self._reference

    def _measured_reference(self, parts: Collection[str]) -> Reference:
        whole, damaged = (
            content_key(self.shards.hash, self.resolution, self.extractor, damaged=damaged) for damaged in (False, True)
        )
        found = reference_statistics(
            self.places, whole, lambda: self._measure(parts), damaged, self.faults.allowed, parts
        )
        if found.left_out:
            _log.warning(
                "damaged images are left out of the reference: %d of %d; the protocol of its scores says so",
                found.left_out,
                self.shards.samples,
            )
        for sums in (found.features, found.spatial):
            if sums is not None:
                sums.ddof = self.conventions.ddof  # what is kept serves any
        return found

    def _measure(self, parts: Collection[str]) -> Reference:
        with progress("measuring real images", self.shards.samples) as shown:
            images, classes = self.real_images(self.batch_size, shown), self.shards.num_classes
            made = measure_reference(images, self.extractor, self.shards.hash, classes, parts=parts)
        return replace(made, left_out=self.shards.samples - int(made.features.count))

    def real_images(self, size: int = 128, shown: Progress | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """All sound images of the shards as stored, uint8 [n, c, h, w], and their labels, in batches of `size`.

        Args:
            size: of a batch.
            shown: is told how many have been taken.

        Raises:
            TooManyFaultsError: naming shard, key and offset, if more is damaged than the shards' budget allows.
        """
        done = 0
        for images, labels in Reader(self.shards, self.faults).all(self.resolution, size):
            self.by.alive()
            if shown is not None:
                shown.update(done := done + len(images))
            yield to_tensor(images).contiguous(), torch.from_numpy(labels)
