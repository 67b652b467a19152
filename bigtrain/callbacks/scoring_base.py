"""By what generators are measured, whatever they are compared with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from bigtrain.data.progress import progress
from bigtrain.evaluation.classifier import ClassifierExtractor
from bigtrain.evaluation.conventions import conventions
from bigtrain.evaluation.evaluate import Evaluation, evaluate
from bigtrain.evaluation.extractors import Extractor
from bigtrain.evaluation.extractors.named import check_name, is_available, named_extractor
from bigtrain.evaluation.protocol import Provenance, Score
from bigtrain.evaluation.reference import Reference
from bigtrain.sampling.outputs import place_of

#: Images uint8 [n, c, h, w] and labels [n] of sample indices.
Samples = Callable[[np.ndarray], tuple[Tensor, Tensor]]
#: Of a classifier that was trained before.
TRAINED = ".safetensors"


@dataclass(frozen=True)
class Measurement:
    """By what is measured.

    Args:
        extractor: the name of one with published weights, `classifier` (trained on the labelled shards, kept beside
            them), the file of one trained before, the path of a class, or `auto`: the protocol's own, but if no
            protocol is named and its weights are not on this machine, the classifier.
        weights: path or URL of the weights of a published one or a class; None for the published ones.
        protocol: a name of PROTOCOLS; None for `tf1`.
        batch_size: images measured at a time.
        channels_last, compiled: see `Extractor.hasten`.
        device: of the extractor.
    """

    extractor: str = "auto"
    weights: str | None = None
    protocol: str | None = None
    batch_size: int = 100
    channels_last: bool = False
    compiled: bool = False
    device: torch.device | str = "cpu"


class Scoring(ABC):
    """Measures generators against real images at one resolution.

    Args:
        resolution: at which images are measured; smaller samples are enlarged to it.
        channels: of the images.
        classes: of the real images, by name; empty without labels.
        by: extractor and protocol.

    Raises:
        ValueError: if there is no such extractor or protocol.
    """

    def __init__(self, resolution: int, channels: int, classes: Sequence[str], by: Measurement) -> None:
        self.resolution, self.channels, self.classes, self.by = resolution, channels, classes, by
        self.batch_size, self.conventions = by.batch_size, conventions(by.protocol)
        self.kind = self._kind()
        check_name(self.kind, "auto", "classifier")
        if by.weights is not None and (self.kind == "classifier" or self.kind.endswith(TRAINED)):
            raise ValueError(
                f"weights (={by.weights!r}) are for published extractors and classes, not for {self.kind!r}"
            )

    def _kind(self) -> str:
        own, by = self.conventions.extractor, self.by
        if by.extractor != "auto":
            return by.extractor
        return own if by.protocol is not None or is_available(own, by.weights) else "classifier"

    @abstractmethod
    def reference(self, metrics: Sequence[str]) -> Reference | None:
        """What these metrics compare with: statistics of the real images; None if they compare with nothing."""

    @property
    @abstractmethod
    def standard(self) -> str:
        """What scores are compared with, in words; another one for other images."""

    @cached_property
    def extractor(self) -> Extractor:
        made = self._opened()
        made.to(self.by.device)
        made.hasten(self.by.channels_last, self.by.compiled)
        return made

    def _opened(self) -> Extractor:
        if self.kind.endswith(TRAINED):
            return self._trained(*place_of(self.kind))
        return named_extractor(self.kind, self.by.weights, self.conventions.resize(self.kind), self.resolution)

    def _trained(self, *place: object) -> ClassifierExtractor:
        """A classifier that was trained before; it recognises labels if it has as many classes as the real images."""
        found = ClassifierExtractor.load(*place)  # type: ignore[arg-type]
        if (found.card.resolution, found.channels) != (self.resolution, self.channels):
            raise ValueError(
                f"extractor (={self.kind!r}) was trained on images of {found.card.resolution} pixels and "
                f"{found.channels} channels; here are {self.resolution} and {self.channels}"
            )
        found.recognises_labels = found.num_classes == len(self.classes)
        return found

    def prepare(self, metrics: Sequence[str], num: int) -> None:
        """Does before a training what could fail after it: the extractor and the statistics of the real images.

        Raises:
            ValueError, OSError: if the metrics cannot be had.
        """
        Evaluation(
            self.extractor,
            self.reference(metrics),
            self._possible(metrics, conditional=True),
            num,
            self.batch_size,
            self.conventions.splits,
            self.conventions,
        )

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
                self.reference(metrics),
                self._possible(metrics, conditional),
                num,
                self.batch_size,
                provenance,
                splits=self.conventions.splits,
                conventions=self.conventions,
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
