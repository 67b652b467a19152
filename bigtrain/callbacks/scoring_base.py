"""By what generators are measured, whatever they are compared with."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
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
from bigtrain.evaluation.extractors.lpips import LpipsExtractor
from bigtrain.evaluation.extractors.named import PUBLISHED, check_name, is_available, named_extractor
from bigtrain.evaluation.metrics.path_length import PATH_METRICS
from bigtrain.evaluation.paths import check_takes_unrounded, evaluate_paths
from bigtrain.evaluation.protocol import Provenance, Score
from bigtrain.evaluation.reference import Reference
from bigtrain.evaluation.table import METRICS, check_metrics
from bigtrain.sampling.generate import Sampler
from bigtrain.sampling.outputs import place_of
from bigtrain.sampling.pixels import enlarge

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

    @cached_property
    def path_extractor(self) -> Extractor:
        """What compares images of latents beside each other: LPIPS where a network that knows ImageNet measures.

        Other extractors were chosen for images that it does not know, and compare them themselves.
        """
        if self.kind not in PUBLISHED:
            check_takes_unrounded(self.extractor, self.resolution)
            return self.extractor
        return LpipsExtractor(self.resolution).to(self.by.device)

    def prepare(self, metrics: Sequence[str], num: int) -> None:
        """Does before a training what could fail after it: the extractor and the statistics of the real images.

        Raises:
            ValueError, OSError: if the metrics cannot be had.
        """
        of_samples, _ = self._possible(metrics, conditional=True)
        if of_samples:
            reference, splits = self.reference(of_samples), self.conventions.splits
            Evaluation(self.extractor, reference, of_samples, num, self.batch_size, splits, self.conventions)

    def score(
        self,
        samples: Samples,
        metrics: Sequence[str],
        num: int,
        provenance: Provenance,
        conditional: bool,
        alive: Callable[[], None] = lambda: None,
    ) -> list[Score]:
        """The scores of samples 0 … num - 1, in the order of the metrics.

        Args:
            samples: makes the images and labels of sample indices; a `Sampler` where a metric is of the generator.
            metrics: recognition is left out where there is nothing to be recognised, or nobody to recognise it.
            num: at least 2.
            provenance: how the samples are made.
            conditional: whether the samples have labels that they were asked for.
            alive: is called after each batch.

        Raises:
            ValueError: if the metrics cannot be had of these samples.
        """
        of_samples, of_paths = self._possible(metrics, conditional)
        if of_paths and not isinstance(samples, Sampler):
            raise ValueError(f"metrics {of_paths} are of a generator: give a run or a snapshot, not images")
        scores = self._of_samples(samples, of_samples, num, provenance, conditional, alive)
        found = dict(zip(of_samples, scores, strict=True))
        for metric in of_paths:
            assert isinstance(samples, Sampler)
            found[metric] = self._of_paths(samples, metric, num, provenance, alive)
        return [found[metric] for metric in metrics if metric in found]

    def _of_samples(
        self,
        samples: Samples,
        metrics: Sequence[str],
        num: int,
        provenance: Provenance,
        conditional: bool,
        alive: Callable[[], None],
    ) -> list[Score]:
        if not metrics:
            return []
        with _shown("evaluating", num, alive) as after_batch:
            return evaluate(
                lambda indices: self._measured(samples, indices, conditional),
                self.extractor,
                self.reference(metrics),
                metrics,
                num,
                self.batch_size,
                provenance,
                splits=self.conventions.splits,
                conventions=self.conventions,
                progress=after_batch,
            )

    def _of_paths(
        self, generator: Sampler, metric: str, num: int, provenance: Provenance, alive: Callable[[], None]
    ) -> Score:
        with _shown(f"measuring {metric}", num, alive) as after_batch:
            return evaluate_paths(
                generator,
                self.path_extractor,
                metric,
                num,
                self.batch_size,
                provenance,
                self.resolution,
                conventions=self.conventions,
                progress=after_batch,
            )

    def _possible(self, metrics: Sequence[str], conditional: bool) -> tuple[list[str], list[str]]:
        """The metrics of samples and those of paths that can be had; recognition only of what can be recognised."""
        check_metrics(metrics)
        able = "recognition" not in metrics or (conditional and self.extractor.recognises_labels)
        left = [metric for metric in metrics if able or metric != "recognition"]
        if not left:
            raise ValueError("recognition needs samples with labels, and a classifier of the data's own classes")
        of_paths = [metric for metric in left if metric in PATH_METRICS]
        if of_paths:
            _ = self.path_extractor  # what it lacks is known before anything is measured
        return [metric for metric in left if metric in METRICS], of_paths

    def _measured(self, samples: Samples, indices: np.ndarray, conditional: bool) -> tuple[Tensor, Tensor | None]:
        images, labels = samples(indices)
        return enlarge(images, self.resolution), labels if conditional else None


@contextlib.contextmanager
def _shown(what: str, num: int, alive: Callable[[], None]) -> Iterator[Callable[[int, int], None]]:
    """Progress that is shown, and a sign of life, after each batch."""
    with progress(what, num) as shown:

        def after_batch(done: int, _: int) -> None:
            alive()
            shown.update(done)

        yield after_batch
