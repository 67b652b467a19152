"""metrics.jsonl and the loggers: what the steps measured."""

from __future__ import annotations

from lightning import Trainer

from bigtrain.callbacks.loggers import log
from bigtrain.callbacks.periodic import Periodic
from bigtrain.callbacks.records import Records
from bigtrain.games import Game
from bigtrain.runtime.world import World


class Metrics(Periodic):
    """Records what the step at each cadence measured: numbers that a repetition of the run gives again, bit for bit.

    (What a clock on the wall measures is not among them: see `Throughput`.)
    """

    def __init__(self, kimg: float, records: Records, world: World) -> None:
        super().__init__(kimg)
        self.records, self.world = records, world

    def act(self, trainer: Trainer, game: Game) -> None:
        moment, measured = game.moment, game.measured
        means = self.world.means(list(measured.values()))
        if not self.world.is_first:
            return
        record = {
            "images_seen": game.clock.images_seen,
            "kimg": game.clock.kimg,
            "resolution": moment.resolution,
            "alpha": moment.alpha,
            "phase": moment.phase.kind,
            "batch_size": moment.phase.batch_size,
            **{f"lr/{name}": player.optimizer.param_groups[0]["lr"] for name, player in game.players.items()},
            **dict(zip(measured, means, strict=True)),
        }
        self.records.append(record)
        log(trainer, record)
