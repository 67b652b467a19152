"""evaluation.jsonl: scores of the averaged generator, each with its protocol."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lightning import Trainer

from bigtrain.callbacks.metrics import log
from bigtrain.callbacks.periodic import Periodic
from bigtrain.callbacks.records import Records
from bigtrain.callbacks.scoring import Scorer
from bigtrain.evaluation.protocol import Provenance
from bigtrain.games import AdversarialGame
from bigtrain.runtime.world import World
from bigtrain.sampling.generate import Sampler, drawn
from bigtrain.sampling.standing_stats import StandingStats


class Evaluating(Periodic):
    """Scores the samples 0 … num - 1 of the run's seed, with labels of the data's frequencies, at each cadence.

    The training that follows does not notice: no number that it uses is drawn here. Rank 0 scores; the others wait.

    Args:
        kimg: the cadence.
        scorer: measures.
        records: the file.
        metrics, num, truncation: of the samples.
        standing_stats: batches on which the samples' batch-norm statistics are estimated; None for running averages.
        world: of the ranks.
        alive: called now and then while it lasts.
    """

    def __init__(
        self,
        kimg: float,
        scorer: Scorer,
        records: Records,
        metrics: Sequence[str],
        num: int,
        truncation: float | None = None,
        world: World | None = None,
        alive: Callable[[], None] = lambda: None,
        standing_stats: int | None = None,
    ) -> None:
        super().__init__(kimg)
        self.scorer, self.records, self.world, self.alive = scorer, records, world or World(), alive
        self.metrics, self.num, self.truncation, self.standing_stats = metrics, num, truncation, standing_stats

    def act(self, trainer: Trainer, game: AdversarialGame) -> None:  # type: ignore[override]
        with game.whole_average():
            self.world.first_does(lambda: self._score(trainer, game))

    def _score(self, trainer: Trainer, game: AdversarialGame) -> None:
        sampler = Sampler(
            game.average,
            game.seed,
            drawn(game.seed, game.class_counts),
            self.truncation,
            self.scorer.batch_size,
            game.place(game.moment, game.average),
            StandingStats.of(self.standing_stats, game.class_counts),
        )
        provenance = Provenance(
            seed=game.seed,
            label_distribution="frequencies of the data" if game.class_counts else None,
            kimg=game.clock.kimg,
            truncation=self.truncation,
            standing_stats=sampler.standing_stats,
            ema=True,
        )
        conditional = game.generator_network.num_classes > 0
        scores = self.scorer.score(sampler, self.metrics, self.num, provenance, conditional, self.alive)
        for score in scores:
            self.records.append({"images_seen": game.clock.images_seen, **score.to_dict()})
        log(trainer, {"kimg": game.clock.kimg, **{score.metric: score.value for score in scores}})
