"""Something that happens at a cadence of the clock, and at the end of training."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from lightning import Callback, Trainer

from bigtrain.clock import Cadence
from bigtrain.games import Game


class Periodic(Callback, ABC):
    """Acts after each step in which a multiple of `kimg` falls, and after the last one."""

    def __init__(self, kimg: float) -> None:
        self.cadence = Cadence(kimg)

    def on_train_batch_end(self, trainer: Trainer, game: Game, outputs: Any, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        now = game.clock.images_seen
        if self.cadence.due(game.moment.images_seen, now) or now >= game.schedule.total_images:
            self.act(trainer, game)

    @abstractmethod
    def act(self, trainer: Trainer, game: Game) -> None: ...
