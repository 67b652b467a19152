"""One pass over the samples of a generator for all the metrics that are asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import MetricCollection

from bigtrain.evaluation.extractors import Extractor, exact_arithmetic
from bigtrain.evaluation.metrics import frechet_distance, inception_score
from bigtrain.evaluation.protocol import REFERENCED, Protocol, Provenance, Score, score_name
from bigtrain.evaluation.reference import Reference
from bigtrain.evaluation.statistics import FeatureStatistics, LogitStatistics, RecognitionCount, Sums

#: Makes the samples of these global indices: uint8 images [n, c, h, w] and the labels asked for [n], None without.
Sampler = Callable[[NDArray[np.int64]], tuple[Tensor, Tensor | None]]
#: Is told how many samples of this process are done, and how many there are.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Metric:
    """Which statistic (a name in STATISTICS) a metric is computed from, and how: value and deviation; each class."""

    statistic: str
    value: Callable[[Any, Reference | None], tuple[float, float | None]]
    per_class: Callable[[Any], list[float | None]] | None = None


def _fid(features: FeatureStatistics, reference: Reference | None) -> tuple[float, float | None]:
    assert reference is not None
    return frechet_distance(reference.features, features, reference.root), None


def _inception_score(logits: LogitStatistics, _: Reference | None) -> tuple[float, float | None]:
    return inception_score(logits)


def _recognition(counts: RecognitionCount, _: Reference | None) -> tuple[float, float | None]:
    return float(counts.fraction), None


def _recognition_of_classes(counts: RecognitionCount) -> list[float | None]:
    return [None if math.isnan(value) else value for value in counts.per_class.tolist()]


METRICS = {
    "fid": Metric("features", _fid),
    "is": Metric("logits", _inception_score),
    "recognition": Metric("recognition", _recognition, _recognition_of_classes),
}

STATISTICS: dict[str, Callable[[Evaluation], Sums]] = {
    "features": lambda asked: FeatureStatistics(
        asked.extractor.feature_dim, None if asked.reference is None else asked.reference.features.mean
    ),
    "logits": lambda asked: LogitStatistics(asked.num, asked.extractor.num_classes, asked.splits),
    "recognition": lambda asked: RecognitionCount(asked.extractor.num_classes),
}


@dataclass(frozen=True)
class Evaluation:
    """What is to be measured; the arguments are those of `evaluate`."""

    extractor: Extractor
    reference: Reference | None
    metrics: Sequence[str]
    num: int
    batch_size: int
    splits: int = 10

    def __post_init__(self) -> None:
        unknown = [name for name in self.metrics if name not in METRICS]
        if unknown or not self.metrics:
            raise ValueError(f"metrics (={list(self.metrics)}): {unknown} are unknown; valid are {sorted(METRICS)}")
        if self.num < 2 or self.batch_size < 1:
            raise ValueError(f"num (={self.num}) must be at least 2, batch_size (={self.batch_size}) at least 1")
        if "is" in self.metrics and not 1 <= self.splits <= self.num:
            raise ValueError(f"splits (={self.splits}) must be at least 1 and at most num (={self.num})")
        if self.reference is None and set(REFERENCED) & set(self.metrics):
            raise ValueError(f"metrics (={list(self.metrics)}): {REFERENCED} need a reference of real images")
        if "recognition" in self.metrics and not self.extractor.recognises_labels:
            raise ValueError(
                f"metric 'recognition' needs a classifier of the data's own classes; {self.extractor.name!r} is none"
            )

    def gather(
        self, sampler: Sampler, rank: int = 0, world_size: int = 1, progress: Progress | None = None
    ) -> MetricCollection:
        """The statistics of this rank's samples, by name."""
        needed = dict.fromkeys(METRICS[name].statistic for name in self.metrics)
        statistics = MetricCollection({name: STATISTICS[name](self) for name in needed}, compute_groups=False)
        statistics.to(self.extractor.device)
        total = len(range(rank, self.num, world_size))
        done = 0
        for indices, valid in index_batches(self.num, self.batch_size, rank, world_size):
            with exact_arithmetic(self.extractor.device):
                images, labels = sampler(indices)
            self._check_samples(images, labels)
            features, logits = self.extractor.features(images)
            statistics.update(  # hands each statistic the arguments that it names
                features=features[:valid],
                logits=logits[:valid],
                labels=None if labels is None else labels[:valid].to(logits.device),
                indices=torch.from_numpy(indices[:valid]).to(logits.device),
            )
            done += valid
            if progress is not None:
                progress(done, total)
        return statistics

    def _check_samples(self, images: Tensor, labels: Tensor | None) -> None:
        if len(images) != self.batch_size:
            raise ValueError(f"the sampler made {len(images)} images of {self.batch_size} indices; one each is needed")
        if labels is None and "recognition" in self.metrics:
            raise ValueError("metric 'recognition' needs the labels that the samples were asked for; there are none")

    def scores(self, statistics: MetricCollection, provenance: Provenance) -> list[Score]:
        """The scores of the statistics of all `num` samples, in the order of the metrics."""
        return [self._score(name, statistics[METRICS[name].statistic].cpu(), provenance) for name in self.metrics]

    def _score(self, name: str, sums: Any, provenance: Provenance) -> Score:
        assert int(sums.count.sum()) == self.num, f"{name}: {sums.count.sum()} samples of {self.num} were gathered"
        reference = self.reference if name in REFERENCED else None
        metric = METRICS[name]
        value, std = metric.value(sums, reference)
        return Score(
            metric=score_name(name, self.num, reference is not None and reference.full),
            value=value,
            std=std,
            num_fake=self.num,
            num_real=None if reference is None else reference.num_real,
            kimg=provenance.kimg,
            truncation=provenance.truncation,
            protocol=Protocol.of(self.extractor, reference, self.num, getattr(sums, "splits", None), provenance),
            per_class=None if metric.per_class is None else metric.per_class(sums),
        )


def index_batches(
    num: int, batch_size: int, rank: int = 0, world_size: int = 1
) -> Iterator[tuple[NDArray[np.int64], int]]:
    """Global indices [batch_size] of this rank's batches, every `world_size`-th from `rank`, and how many are valid.

    All batches are of one size and all ranks have equally many, so that neither the numerics nor the collectives of a
    sharded generator depend on the tail: it is filled with the last index.
    """
    for first in range(0, num, batch_size * world_size):
        indices = first + rank + world_size * np.arange(batch_size, dtype=np.int64)
        yield np.minimum(indices, num - 1), int((indices < num).sum())


def evaluate(
    sampler: Sampler,
    extractor: Extractor,
    reference: Reference | None,
    metrics: Sequence[str],
    num: int,
    batch_size: int,
    provenance: Provenance | None = None,
    *,
    splits: int = 10,
    rank: int = 0,
    world_size: int = 1,
    progress: Progress | None = None,
) -> list[Score]:
    """Scores `num` samples of a generator, in the order of the metrics.

    With more than one rank each makes every `world_size`-th sample; all of them must call this and get the same scores.

    Args:
        sampler: makes the samples of given indices, in eval mode; an index's sample must depend on nothing else.
        extractor: that measures them.
        reference: statistics of real images by the same extractor; None if no metric compares with real images.
        metrics: of METRICS; "recognition" is the fraction of samples that a classifier gives the label asked for.
        num: samples over all ranks, at least 2.
        batch_size: of the sampler and the extractor on each rank; the last batch is padded to it.
        provenance: how the samples are made, for the protocol.
        splits: parts of the samples for the Inception Score.
        rank, world_size: which of the samples are this process's.
        progress: is called after each batch.

    Raises:
        ValueError: if a metric is unknown, or cannot be had from this extractor, reference, sampler or `num`.
    """
    evaluation = Evaluation(extractor, reference, metrics, num, batch_size, splits)
    statistics = evaluation.gather(sampler, rank, world_size, progress)
    if world_size > 1:
        for sums in statistics.values():
            sums.add_ranks()  # type: ignore[operator]
    return evaluation.scores(statistics, provenance or Provenance())
