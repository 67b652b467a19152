"""Looks after the ranks: tells the watch that a step has ended, and users which rank keeps the others waiting."""

from __future__ import annotations

import logging
import statistics
import time
from typing import Any

from lightning import Callback, Trainer

from bigtrain.games import Game
from bigtrain.runtime.watch import Watch
from bigtrain.runtime.world import World

_log = logging.getLogger(__name__)


class Watching(Callback):
    """Stands behind what may take long, such as scores.

    Args:
        watch: over the ranks.
        timeout_seconds: for which ranks wait for each other from the second step on.
    """

    def __init__(self, watch: Watch, timeout_seconds: float) -> None:
        self.watch, self.timeout_seconds = watch, timeout_seconds
        self._first = True

    def on_train_batch_end(self, trainer: Trainer, game: Game, outputs: Any, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        self.watch.step(game.clock.images_seen)
        if self._first:
            game.parallel.set_timeout(self.timeout_seconds)
            self._first = False


class Stragglers(Callback):
    """Warns when a rank has much more to do than the others, or waits longer for its data.

    Steps take equally long on all ranks, because they wait for each other; so it compares what waiting does not
    count: on a CPU the processor time of a step; everywhere the time for which a rank waited for its batch.

    Args:
        world: of the ranks.
        every: steps between two comparisons.
        factor: of the median, beyond which a rank is a straggler.
    """

    def __init__(self, world: World, every: int = 200, factor: float = 1.5) -> None:
        self.world, self.every, self.factor = world, every, factor
        self._steps = 0

    def on_train_start(self, trainer: Trainer, game: Game) -> None:  # type: ignore[override]
        self._begin(trainer)

    def on_train_batch_end(self, trainer: Trainer, game: Game, outputs: Any, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        self._steps += 1
        if self.world.size == 1 or self._steps % self.every:
            return
        now = self._now(trainer)
        step, work, wait = [(b - a) / self.every for a, b in zip(self._before, now, strict=True)]
        told = self.world.gather([step, work if game.device.type == "cpu" else 0.0, wait])
        if self.world.is_first:
            for text in stragglers(told, self.factor):
                _log.warning(text)
        self._begin(trainer)

    def _begin(self, trainer: Trainer) -> None:
        self._before = self._now(trainer)

    @staticmethod
    def _now(trainer: Trainer) -> tuple[float, float, float]:
        waited = getattr(trainer.train_dataloader, "seconds_waited", 0.0)
        return time.perf_counter(), time.process_time(), waited


def stragglers(told: list[list[float]], factor: float) -> list[str]:
    """What is to be said of the ranks' seconds a step, of work, and of waiting for data.

    Args:
        told: by rank.
        factor: of the median, beyond which a rank is named; by a tenth of a step at least.
    """
    step = statistics.median(seconds for seconds, *_ in told)
    lines = []
    for column, what in ((1, "works"), (2, "waits for its data")):
        values = [row[column] for row in told]
        median = statistics.median(values)
        for rank, value in enumerate(values):
            if value > factor * median and value - median > step / 10:
                lines.append(f"rank {rank} {what} {value:.3f} s a step, the median rank {median:.3f} s: others wait")
    return lines
