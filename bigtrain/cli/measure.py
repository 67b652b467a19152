"""What `bigtrain evaluate` does with one source, on each rank."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence

from bigtrain.callbacks.precomputed import PrecomputedScorer
from bigtrain.callbacks.scoring import Scorer
from bigtrain.callbacks.scoring_base import Measurement, Scoring
from bigtrain.cli.comparison import Entry, kind_of, minutes_of
from bigtrain.cli.pictures import Pictures, open_pictures
from bigtrain.cli.processes import Rank, as_first_has
from bigtrain.cli.reference import reference_shards
from bigtrain.evaluation.metrics.path_length import PATH_METRICS
from bigtrain.evaluation.precomputed import is_precomputed
from bigtrain.evaluation.protocol import Provenance, Score
from bigtrain.sampling.generate import Sampler, drawn
from bigtrain.sampling.standing_stats import StandingStats, batch_norms
from bigtrain.snapshots import Snapshot, holds_snapshot, load_snapshot

_log = logging.getLogger(__name__)
SAMPLES = 10000  # of a generator, unless --num says otherwise


class Measure:
    """Of one source: what will be measured, and against what, is known before anything is.

    Args:
        source: a run, a snapshot, or where images are.
        options: of the command.
        rank: which of the processes this is.

    Raises:
        ValueError: if it cannot be measured.
    """

    def __init__(self, source: str, options: argparse.Namespace, rank: Rank) -> None:
        self.source, self.options, self.rank = source, options, rank
        self.snapshot = self._snapshot()
        self.standing = None if self.snapshot is None else self._standing(self.snapshot)
        self.scorer = self._scorer()
        self.pictures = None if self.snapshot is not None else self._pictures()

    def _snapshot(self) -> Snapshot | None:
        """The generator on this rank's device; None if the source holds images."""
        if holds_snapshot(self.source):
            found = as_first_has(load_snapshot(self.source), self.rank.world)
            found.generator.to(self.rank.device)
            return found
        if self.options.truncation != [None]:
            raise ValueError(f"--truncation is for generators; {self.source!r} holds images")
        if (standing := self.options.standing_stats) is not None:
            raise ValueError(f"--standing-stats (={standing}) is for generators; {self.source!r} holds images")
        return None

    def _standing(self, snapshot: Snapshot) -> StandingStats | None:
        standing = StandingStats.of(self.options.standing_stats, snapshot.card.class_counts)
        if standing is None or (len(self.options.source) > 1 and not batch_norms(snapshot.generator)):
            return None  # there is nothing to estimate in this one
        standing.check(snapshot.generator)
        return standing

    def _scorer(self) -> Scoring:
        """Against shards, or the statistics in an .npz, at the resolution of the snapshot or of the first image."""
        options, generator = self.options, None if self.snapshot is None else self.snapshot.generator
        by = Measurement(
            options.extractor,
            options.weights,
            options.protocol,
            options.batch,
            options.channels_last,
            options.compiled,
            self.rank.device,
            self.rank.watch.alive,
        )
        if options.reference is not None and is_precomputed(options.reference):
            if generator is None:
                return PrecomputedScorer(options.reference, open_pictures(self.source).resolution, None, by)
            return PrecomputedScorer(options.reference, generator.resolution, generator.image_channels, by)
        resolution = None if generator is None else generator.resolution
        return Scorer(*reference_shards(options.reference, self.snapshot, resolution), by)

    def _pictures(self) -> Pictures:
        url, options, scorer = self.source, self.options, self.scorer
        if of_generators := [name for name in options.metrics if name in PATH_METRICS]:
            raise ValueError(f"--metrics {','.join(of_generators)} are of a generator; {url!r} holds images")
        pictures = open_pictures(url, scorer.resolution, scorer.channels, options.seed)
        pictures.label_as(scorer.classes)
        if len(pictures) < 2:
            raise ValueError(f"there is only one image in {url!r}; scores need at least 2")
        if (options.num or 2) > len(pictures):
            raise ValueError(f"--num (={options.num}) is more than the {len(pictures)} images in {url!r}")
        return pictures

    def __call__(self) -> Entry:
        """Measures, together with the other ranks."""
        scores: list[Score] = []
        if self.pictures is not None:
            scores.extend(self._of_images(self.pictures))
        elif self.snapshot is not None:
            self._prepare(self.options.num or SAMPLES)
            for threshold in self.options.truncation:
                scores.extend(self._of_snapshot(self.snapshot, threshold))
        if self.rank.world.is_first:
            self._warn_of_few(scores)
        return Entry(self.source, scores, self.scorer.classes, minutes_of(self.source))

    def _prepare(self, num: int) -> None:
        """Rank 0 makes what is kept beside the shards, and all make sure that they measure by the same."""
        if self.rank.world.size > 1:
            self.scorer.prepare(self.options.metrics, num, self.rank.world)

    def _of_snapshot(self, snapshot: Snapshot, truncation: float | None) -> list[Score]:
        options, card, conditional = self.options, snapshot.card, snapshot.generator.num_classes > 0
        labels = drawn(options.seed, card.class_counts)
        sampler = Sampler(
            snapshot.generator, options.seed, labels, truncation, options.batch, card.place, self.standing
        )
        provenance = Provenance(
            seed=options.seed,
            label_distribution="frequencies of the data" if conditional else None,
            kimg=card.kimg,
            truncation=truncation,
            standing_stats=sampler.standing_stats,
            ema=True,
        )
        num = options.num or SAMPLES
        return self.scorer.score(sampler, options.metrics, num, provenance, conditional, self.rank.world)

    def _of_images(self, pictures: Pictures) -> list[Score]:
        num = self.options.num or len(pictures)
        self._prepare(num)
        scores = self.scorer.score(
            pictures, self.options.metrics, num, pictures.provenance, pictures.labelled, self.rank.world
        )
        pictures.tell_of_others(self.rank.world)
        return scores

    def _warn_of_few(self, scores: Sequence[Score]) -> None:
        """A Fréchet distance of fewer samples than dimensions is mostly bias, whatever the samples are."""
        few = [score for score in scores if kind_of(score.metric) == "fid"]
        if few and few[0].num_fake <= (dim := self.scorer.extractor.feature_dim):
            _log.warning(
                "%s is of %d samples in %d dimensions: far above that of many samples; compare it only with scores of "
                "as many",
                few[0].metric,
                few[0].num_fake,
                dim,
            )


def check_comparable(measures: Sequence[Measure]) -> None:
    """Whether scores of the sources can be set beside each other.

    Raises:
        ValueError: if they have other real images, or are measured by other extractors.
    """
    first, *others = measures
    for other in others:
        if (other.scorer.standard, other.scorer.kind) != (first.scorer.standard, first.scorer.kind):
            raise ValueError(
                f"{first.source!r} and {other.source!r} have other real images to be compared with "
                f"({first.scorer.standard} and {other.scorer.standard}): name one --reference, or evaluate them by "
                "themselves"
            )
