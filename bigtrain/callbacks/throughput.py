"""throughput.jsonl: how fast the run is, and how long it waits for data."""

from __future__ import annotations

import time
from typing import Any

from lightning import Trainer

from bigtrain.callbacks.loggers import log
from bigtrain.callbacks.periodic import Periodic
from bigtrain.callbacks.records import Records
from bigtrain.callbacks.utilization import Utilization, memory
from bigtrain.games import AdversarialGame, Game


class Throughput(Periodic):
    """Measures from one record to the next, with the shares of the time spent in steps and in waiting for a batch.

    The rest of the time is that of the other callbacks (samples, scores, checkpoints), before which this one stands.

    Args:
        kimg: the cadence.
        records: the file.
        utilization: of the devices.
    """

    def __init__(self, kimg: float, records: Records, utilization: Utilization) -> None:
        super().__init__(kimg)
        self.records, self.utilization = records, utilization

    def on_train_start(self, trainer: Trainer, game: Game) -> None:  # type: ignore[override]
        self._waited = 0.0
        self._begin(game)

    def _begin(self, game: Game) -> None:
        self._since, self._from = time.perf_counter(), game.clock.images_seen
        self._cpu_since = time.process_time()
        self._stepping, self._waited_before = 0.0, self._waited

    def on_train_batch_start(self, trainer: Trainer, game: Game, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        self._started = time.perf_counter()

    def on_train_batch_end(self, trainer: Trainer, game: Game, outputs: Any, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        self._stepping += time.perf_counter() - self._started
        super().on_train_batch_end(trainer, game, outputs, batch, batch_idx)

    def act(self, trainer: Trainer, game: AdversarialGame) -> None:  # type: ignore[override]
        seconds, count = time.perf_counter() - self._since, game.clock.images_seen - self._from
        self._waited = getattr(trainer.train_dataloader, "seconds_waited", 0.0)
        record = {
            "images_seen": game.clock.images_seen,
            "kimg": game.clock.kimg,
            "images_per_second": count / seconds,
            "seconds_per_kimg": 1000 * seconds / max(1, count),
            "seconds": seconds,
            "cpu_seconds": time.process_time() - self._cpu_since,  # of this process
            "step_share": self._stepping / seconds,
            "data_wait_share": (self._waited - self._waited_before) / seconds,
            **self.utilization.of(game, count / seconds),
            **memory(),
            **{f"data/{name}": times for name, times in getattr(trainer.train_dataloader, "counts", {}).items()},
            "time": time.time(),
        }
        if trainer.is_global_zero:
            self.records.append(record)
            log(trainer, record)
        self._begin(game)
