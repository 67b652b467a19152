"""One pass over the samples of a generator for all the metrics that are asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from bigtrain.evaluation.ahead import made_ahead
from bigtrain.evaluation.conventions import TF1, Conventions
from bigtrain.evaluation.extractors import Extractor, exact_arithmetic
from bigtrain.evaluation.kept import KEPT, Kept, KeptFeatures, KeptImages, kept_images
from bigtrain.evaluation.protocol import Protocol, Provenance, Score, score_name
from bigtrain.evaluation.reference import PARTS, Reference
from bigtrain.evaluation.statistics import (
    DirectionStatistics,
    FeatureStatistics,
    LogitStatistics,
    PosteriorStatistics,
    RecognitionCount,
    SpatialStatistics,
    Sums,
)
from bigtrain.evaluation.table import METRICS, Gathered, needs_of

#: Makes the samples of these global indices: uint8 images [n, c, h, w] and the labels asked for [n], None without.
Sampler = Callable[[NDArray[np.int64]], tuple[Tensor, Tensor | None]]
#: Is told how many samples of this process are done, and how many there are; again after each metric.
Progress = Callable[[int, int], None]


#: From the evaluation and the shape [c, h, w] of an image to what is added up over its samples.
STATISTICS: dict[str, Callable[[Evaluation, Sequence[int]], Sums]] = {
    "features": lambda asked, _: FeatureStatistics(
        asked.extractor.feature_dim,
        None if asked.reference is None else asked.reference.features.mean,
        asked.conventions.ddof,
    ),
    "spatial": lambda asked, _: _spatial_statistics(asked),
    "logits": lambda asked, _: LogitStatistics(asked.num, asked.extractor.num_classes, asked.splits),
    "posteriors": lambda asked, _: PosteriorStatistics(asked.extractor.num_classes),
    "recognition": lambda asked, _: RecognitionCount(asked.extractor.num_classes),
    "directions": lambda asked, _: DirectionStatistics(asked.extractor.feature_dim),
    "kept": lambda asked, _: KeptFeatures(min(asked.num, KEPT), asked.extractor.feature_dim),
    "images": lambda asked, shape: KeptImages(min(asked.num, kept_images(shape)), shape),
}


def _has_kept(part: str, asked: Evaluation) -> bool:
    return asked.reference is None or part in asked.reference.load


#: What a metric can need besides samples, and what is wrong if it is not there.
NEEDS: dict[str, tuple[Callable[[Evaluation], bool], str]] = {
    "reference": (lambda asked: asked.reference is not None, "need a reference of real images"),
    **{
        part: (
            partial(_has_kept, part),
            "need single real images, and this reference has only sums of them: measure it from shards",
        )
        for part in PARTS
    },
    "real_labels": (
        lambda asked: asked.reference is None or len(asked.reference.class_counts) > 0,
        "need labels of the real images, and the reference has none",
    ),
    "posterior": (
        lambda asked: asked.reference is None or asked.reference.posterior is not None,
        "need the classes that the real images are taken for, which this reference does not tell: measure it anew",
    ),
    "logits": (lambda asked: asked.extractor.num_classes > 1, "need an extractor with logits"),
    "classifier": (lambda asked: asked.extractor.recognises_labels, "need a classifier of the data's own classes"),
    "spatial": (
        lambda asked: (
            asked.extractor.spatial_dim > 0 and (asked.reference is None or asked.reference.spatial is not None)
        ),
        "need an extractor with spatial features, and a reference by it",
    ),
    "labels": (lambda asked: True, "need the labels that the samples were asked for"),  # known only of the samples
}


def _spatial_statistics(asked: Evaluation) -> SpatialStatistics:
    reals = None if asked.reference is None else asked.reference.spatial
    mean = None if reals is None else reals.mean
    return SpatialStatistics(asked.extractor.spatial_dim, mean, asked.conventions.ddof)


@dataclass(frozen=True)
class Evaluation:
    """What is to be measured; the arguments are those of `evaluate`."""

    extractor: Extractor
    reference: Reference | None
    metrics: Sequence[str]
    num: int
    batch_size: int
    splits: int = 10
    conventions: Conventions = TF1

    def __post_init__(self) -> None:
        needs = needs_of(self.metrics)
        if self.num < 2 or self.batch_size < 1:
            raise ValueError(f"num (={self.num}) must be at least 2, batch_size (={self.batch_size}) at least 1")
        if "is" in self.metrics and not 1 <= self.splits <= self.num:
            raise ValueError(
                f"splits (={self.splits}) must be at least 1 and at most num (={self.num}): 'is' needs more samples"
            )
        for need, (is_there, message) in NEEDS.items():
            if need in needs and not is_there(self):
                raise ValueError(f"metrics {self._that_need(need)} {message}; the extractor is {self.extractor.name!r}")
        for name in self.metrics:
            if self._least_count() < METRICS[name].least:
                raise ValueError(
                    f"metric {name!r} needs at least {METRICS[name].least} samples and real images; "
                    f"there are {self._least_count()}"
                )

    def _that_need(self, need: str) -> list[str]:
        return [name for name in self.metrics if need in METRICS[name].needs]

    def _least_count(self) -> int:
        reals = None if self.reference is None else self.reference.num_real
        return self.num if reals is None else min(self.num, reals)

    def gather(
        self, sampler: Sampler, rank: int = 0, world_size: int = 1, progress: Progress | None = None
    ) -> dict[str, Sums]:
        """The statistics of this rank's samples, by name."""
        statistics: MetricCollection | None = None
        total = len(range(rank, self.num, world_size))
        done = 0
        batches = index_batches(self.num, self.batch_size, rank, world_size)
        ahead = made_ahead(lambda batch: sampler(batch[0]), batches, self.extractor.device)
        # Around both threads, until the other has ended: some of it holds for the whole process.
        with exact_arithmetic(self.extractor.device), contextlib.closing(ahead):
            for (indices, valid), (images, labels) in ahead:
                self._check_samples(images, labels)
                if statistics is None:
                    statistics = self._statistics(images.shape[1:])
                measures = self.extractor.measure(images, self.batch_size)
                device = measures.logits.device
                statistics.update(  # hands each statistic the arguments that it names
                    features=measures.features[:valid],
                    logits=measures.logits[:valid],
                    spatial=None if measures.spatial is None else measures.spatial[:valid],
                    images=images[:valid].to(device),
                    labels=None if labels is None else labels[:valid].to(device),
                    indices=torch.from_numpy(indices[:valid]).to(device),
                )
                done += valid
                if progress is not None:
                    progress(done, total)
        assert statistics is not None  # there is a batch for each rank
        return {str(name): sums for name, sums in statistics.items() if isinstance(sums, Sums)}

    def _statistics(self, shape: Sequence[int]) -> MetricCollection:
        needed = dict.fromkeys(statistic for name in self.metrics for statistic in METRICS[name].statistics)
        made: dict[str, Metric | MetricCollection] = {name: STATISTICS[name](self, shape) for name in needed}
        return MetricCollection(made, compute_groups=False).to(self.extractor.device)

    def _check_samples(self, images: Tensor, labels: Tensor | None) -> None:
        if len(images) != self.batch_size:
            raise ValueError(f"the sampler made {len(images)} images of {self.batch_size} indices; one each is needed")
        wanting = self._that_need("labels")
        if labels is None and wanting:
            raise ValueError(f"metrics {wanting} need the labels that the samples were asked for; there are none")

    def scores(
        self, statistics: Mapping[str, Sums], provenance: Provenance, after: Callable[[], None] = lambda: None
    ) -> list[Score]:
        """The scores of the statistics of all `num` samples, in the order of the metrics; `after` each is called."""
        for name, sums in statistics.items():
            expected = len(sums.rows) if isinstance(sums, Kept) else self.num
            counted = int(torch.as_tensor(sums.count).sum())
            assert counted == expected, f"{name}: {counted} samples of {expected} were gathered"
        on_cpu = {name: sums.cpu() for name, sums in statistics.items()}
        gathered = Gathered(on_cpu, self.reference, self.extractor, self.conventions)
        scores = []
        for name in self.metrics:
            scores.append(self._score(name, gathered, provenance))
            after()
        return scores

    def _score(self, name: str, gathered: Gathered, provenance: Provenance) -> Score:
        metric = METRICS[name]
        statistic = metric.statistics[0]
        reference = self.reference if "reference" in metric.needs else None
        num_fake, num_real = gathered.counts(statistic, self.num)
        full = reference is not None and reference.full and num_real == reference.num_real
        result = metric.value(gathered)
        return Score(
            metric=score_name(name, num_fake, full),
            value=result.value,
            std=result.std,
            num_fake=num_fake,
            num_real=None if reference is None else num_real,
            kimg=provenance.kimg,
            truncation=provenance.truncation,
            protocol=Protocol.of(
                self.extractor,
                reference,
                num_fake,
                self.splits if statistic == "logits" else None,
                provenance,
                num_real,
                gathered.settings(metric),
                self.conventions,
            ),
            per_class=result.per_class,
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
    conventions: Conventions = TF1,
    rank: int = 0,
    world_size: int = 1,
    progress: Progress | None = None,
    wait: Callable[[], None] = lambda: None,
) -> list[Score]:
    """Scores `num` samples of a generator, in the order of the metrics.

    With more than one rank each makes every `world_size`-th sample; all of them must call this and get the same scores.

    Args:
        sampler: makes the samples of given indices, in eval mode; an index's sample must depend on nothing else.
        extractor: that measures them.
        reference: statistics of real images by the same extractor; None if no metric compares with real images.
        metrics: of METRICS (table.py).
        num: samples over all ranks, at least 2.
        batch_size: of the sampler and the extractor on each rank; the last batch is padded to it.
        provenance: how the samples are made, for the protocol.
        splits: parts of the samples for the Inception Score.
        conventions: of the protocol that extractor and reference were made by.
        rank, world_size: which of the samples are this process's.
        progress: is called after each batch, and after each metric.
        wait: is called before the ranks add up what they have: one may be later than their collectives wait for it.

    Raises:
        ValueError: if a metric is unknown, or cannot be had from this extractor, reference, sampler or `num`.
    """
    evaluation = Evaluation(extractor, reference, metrics, num, batch_size, splits, conventions)
    statistics = evaluation.gather(sampler, rank, world_size, progress)
    if world_size > 1:
        wait()
        for sums in statistics.values():
            sums.add_ranks()
    mine = len(range(rank, num, world_size))
    after = (lambda: None) if progress is None else (lambda: progress(mine, mine))
    return evaluation.scores(statistics, provenance or Provenance(), after)
