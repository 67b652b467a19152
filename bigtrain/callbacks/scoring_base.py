"""By what generators are measured, whatever they are compared with."""

from __future__ import annotations

import contextlib
import hashlib
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
from bigtrain.evaluation.extractors import Extractor, exact_arithmetic
from bigtrain.evaluation.extractors.lpips import LpipsExtractor
from bigtrain.evaluation.extractors.named import PUBLISHED, check_name, is_available, named_extractor
from bigtrain.evaluation.metrics.path_length import PATH_METRICS
from bigtrain.evaluation.paths import check_takes_unrounded, evaluate_paths
from bigtrain.evaluation.protocol import Provenance, Score
from bigtrain.evaluation.reference import Reference
from bigtrain.evaluation.table import METRICS, check_metrics, least_of
from bigtrain.runtime.world import World
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
        alive: is called now and then by what takes long, on every process.
    """

    extractor: str = "auto"
    weights: str | None = None
    protocol: str | None = None
    batch_size: int = 100
    channels_last: bool = False
    compiled: bool = False
    device: torch.device | str = "cpu"
    alive: Callable[[], None] = lambda: None

    @property
    def kind(self) -> str:
        """The extractor that is named, or the one that `auto` stands for where there are labelled shards."""
        own = conventions(self.protocol).extractor
        if self.extractor != "auto":
            return self.extractor
        return own if self.protocol is not None or is_available(own, self.weights) else "classifier"


def device_of_scores(device: torch.device) -> torch.device:
    """Where a training on this device has its scores measured: sums are in float64, which mps has not."""
    return torch.device("cpu") if device.type == "mps" else device


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
        return self.by.kind

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

    def prepare(self, metrics: Sequence[str], num: int, world: World) -> None:
        """Does before a training what could fail after it: the extractor and the statistics of the real images.

        Rank 0 makes what there is not yet; then the others find it. Where nothing can be stored, they make the same.

        Raises:
            ValueError, OSError: if the metrics cannot be had, or not by the same extractor on all ranks.
        """
        world.first_does(lambda: self._prepare(metrics, num))
        if not world.is_first:
            self._prepare(metrics, num)
        told = world.gather([self._fingerprint(metrics)])
        if any(others != told[0] for others in told):
            raise ValueError(
                f"extractor (={self.kind!r}) or what it measured of the real images is not the same on all ranks "
                f"({self.extractor.name}, {self.extractor.weight_hash} on rank {world.rank}): let rank 0 store them "
                "where all can read them, or give all the same weights"
            )

    def _prepare(self, metrics: Sequence[str], num: int) -> None:
        of_samples, _ = self._possible(metrics, conditional=True)
        if of_samples:
            reference, splits = self.reference(of_samples), self.conventions.splits
            Evaluation(self.extractor, reference, of_samples, num, self.batch_size, splits, self.conventions)

    def _fingerprint(self, metrics: Sequence[str]) -> int:
        """Of what samples are measured by; less than 2⁴⁸."""
        of_samples, _ = self._possible(metrics, conditional=True)
        reference = self.reference(of_samples) if of_samples else None
        digest = hashlib.sha256(f"{self.extractor.name} {self.extractor.weight_hash}".encode())
        if reference is not None:
            digest.update(reference.features.mean.cpu().numpy().tobytes())
        return int(digest.hexdigest()[:12], 16)

    def least(self, metrics: Sequence[str]) -> int:
        """Samples without which there are no such scores."""
        of_samples, _ = self._possible(metrics, conditional=True)
        return least_of(of_samples, self.conventions.splits)

    def score(
        self,
        samples: Samples,
        metrics: Sequence[str],
        num: int,
        provenance: Provenance,
        conditional: bool,
        world: World | None = None,
    ) -> list[Score]:
        """The scores of samples 0 … num - 1, in the order of the metrics, on all ranks, which make a part of them each.

        Args:
            samples: makes the images and labels of sample indices; a `Sampler` where a metric is of the generator.
            metrics: recognition is left out where there is nothing to be recognised, or nobody to recognise it.
            num: at least 2.
            provenance: how the samples are made.
            conditional: whether the samples have labels that they were asked for.
            world: of the ranks; None if this process is alone.

        Raises:
            ValueError: if the metrics cannot be had of these samples.
        """
        world = world or World()
        of_samples, of_paths = self._possible(metrics, conditional)
        if of_paths and not isinstance(samples, Sampler):
            raise ValueError(f"metrics {of_paths} are of a generator: give a run or a snapshot, not images")
        scores = self._of_samples(samples, of_samples, num, provenance, conditional, world) if of_samples else []
        found = dict(zip(of_samples, scores, strict=True))
        for metric in of_paths:
            assert isinstance(samples, Sampler)
            found[metric] = self._of_paths(samples, metric, num, provenance, world)
        return [found[metric] for metric in metrics if metric in found]

    def _of_samples(
        self,
        samples: Samples,
        metrics: Sequence[str],
        num: int,
        provenance: Provenance,
        conditional: bool,
        world: World,
    ) -> list[Score]:
        with self._shown("evaluating", num, world) as after_batch:
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
                rank=world.rank,
                world_size=world.size,
                progress=after_batch,
                wait=world.wait,
            )

    def _of_paths(self, generator: Sampler, metric: str, num: int, provenance: Provenance, world: World) -> Score:
        with self._shown(f"measuring {metric}", num, world) as after_batch:
            return evaluate_paths(
                generator,
                self.path_extractor,
                metric,
                num,
                self.batch_size,
                provenance,
                self.resolution,
                conventions=self.conventions,
                rank=world.rank,
                world_size=world.size,
                progress=after_batch,
                wait=world.wait,
            )

    @contextlib.contextmanager
    def _shown(self, what: str, num: int, world: World) -> Iterator[Callable[[int, int], None]]:
        """Progress that the first rank shows, and a sign of life of each, after each batch."""
        with progress(what, num) if world.is_first else contextlib.nullcontext() as shown:

            def after_batch(done: int, _: int) -> None:
                self.by.alive()
                if shown is not None:
                    shown.update(min(num, done * world.size))

            yield after_batch

    def measure(self, samples: Samples, indices: np.ndarray) -> None:
        """Makes and measures a batch for nothing but the time that it takes."""
        with exact_arithmetic(self.extractor.device):
            images, _ = self._measured(samples, indices, conditional=False)
        self.extractor.measure(images, self.batch_size).features.cpu()

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
