"""evaluation.jsonl: scores of the averaged generator, each with its protocol."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial

from lightning import Trainer

from bigtrain.callbacks.loggers import log_scores
from bigtrain.callbacks.periodic import Periodic
from bigtrain.callbacks.records import Records
from bigtrain.callbacks.scoring_base import Scoring
from bigtrain.callbacks.time_budget import TimeBudget
from bigtrain.evaluation.protocol import Provenance, Score
from bigtrain.games import AdversarialGame
from bigtrain.runtime.world import World
from bigtrain.sampling.generate import Sampler, drawn
from bigtrain.sampling.standing_stats import StandingStats


class Evaluating(Periodic):
    """Scores the samples 0 … num - 1 of the run's seed, with labels of the data's frequencies, at each cadence.

    The training that follows does not notice: no number that it uses is drawn here. Each rank makes and measures a part
    of the samples, by standing statistics that it estimates itself, of the same latents as all others; rank 0 records.

    Args:
        kimg: the cadence.
        scorer: measures.
        records: the file.
        metrics, num, truncation: of the samples.
        standing_stats: batches on which the samples' batch-norm statistics are estimated; None for running averages.
        max_minutes: that a scoring may take; where that is not enough, fewer samples are scored. None for all of them.
        world: of the ranks.
    """

    def __init__(
        self,
        kimg: float,
        scorer: Scoring,
        records: Records,
        metrics: Sequence[str],
        num: int,
        truncation: float | None = None,
        standing_stats: int | None = None,
        max_minutes: float | None = None,
        world: World | None = None,
    ) -> None:
        super().__init__(kimg)
        self.scorer, self.records, self.world = scorer, records, world or World()
        self.metrics, self.num, self.truncation, self.standing_stats = metrics, num, truncation, standing_stats
        self.max_minutes = max_minutes

    def prepare(self) -> None:
        """To be called by all ranks before the training: what cannot be measured is said then."""
        self.scorer.prepare(self.metrics, self.num, self.world)

    def act(self, trainer: Trainer, game: AdversarialGame) -> None:  # type: ignore[override]
        with game.whole_average():
            scores = self.scores(game)
        if self.world.is_first:
            for score in scores:
                self.records.append({"images_seen": game.clock.images_seen, **score.to_dict()})
            log_scores(trainer, scores, game.clock.images_seen)
        self.world.wait()  # longer than the training's collectives do

    def scores(self, game: AdversarialGame) -> list[Score]:
        """Of the average now; by all ranks, in a block in which it is whole."""
        sampler = self._sampler(game)
        conditional = game.generator_network.num_classes > 0
        provenance = Provenance(
            seed=game.seed,
            label_distribution="frequencies of the data" if game.class_counts else None,
            kimg=game.clock.kimg,
            truncation=self.truncation,
            standing_stats=sampler.standing_stats,
            ema=True,
        )
        score = partial(self.scorer.score, sampler, self.metrics)
        if self._budget is None:
            return score(self.num, provenance, conditional, self.world)
        with self._budget.scoring(partial(self.scorer.measure, sampler)) as num:
            return score(num, provenance, conditional, self.world)

    @cached_property
    def _budget(self) -> TimeBudget | None:
        if self.max_minutes is None:
            return None
        least = self.scorer.least(self.metrics)
        return TimeBudget(self.max_minutes, self.num, least, self.scorer.batch_size, self.world)

    def _sampler(self, game: AdversarialGame) -> Sampler:
        return Sampler(
            game.average,
            game.seed,
            drawn(game.seed, game.class_counts),
            self.truncation,
            self.scorer.batch_size,
            game.place(game.moment, game.average),
            StandingStats.of(self.standing_stats, game.class_counts),
        )
