"""checkpoints/ and snapshots/, at a cadence, at the end, and when the run is asked to stop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning import Trainer

from bigtrain.callbacks.periodic import Periodic
from bigtrain.checkpoints import Checkpoints
from bigtrain.games import AdversarialGame, Game
from bigtrain.runtime.signals import StopRequest
from bigtrain.snapshots import Card, save_snapshot
from bigtrain.storage import Storage


class Checkpointing(Periodic):
    """Stands last among the callbacks: what a checkpoint holds has been recorded, scored and drawn before.

    Args:
        kimg: the cadence.
        checkpoints: where they go.
        facts: gives what a checkpoint says beside the tensors.
        snapshots: where the averaged generator goes at the same time.
        card: makes a snapshot's card.
        stop: the request that ends the training after the step in which it comes, with a checkpoint.
    """

    def __init__(
        self,
        kimg: float,
        checkpoints: Checkpoints,
        facts: Callable[[], dict[str, Any]],
        snapshots: Storage,
        card: Callable[[AdversarialGame], Card],
        stop: StopRequest,
    ) -> None:
        super().__init__(kimg)
        self.checkpoints, self.facts, self.snapshots, self.card, self.stop = checkpoints, facts, snapshots, card, stop

    def on_train_start(self, trainer: Trainer, game: Game) -> None:  # type: ignore[override]
        self._saved = game.clock.images_seen
        self.stop.arm()  # Lightning's own handler of SIGTERM would end the loop without a checkpoint

    def on_train_batch_end(self, trainer: Trainer, game: Game, outputs: Any, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        if self.stop.signal is None:
            super().on_train_batch_end(trainer, game, outputs, batch, batch_idx)
            return
        self.act(trainer, game)  # type: ignore[arg-type]
        trainer.should_stop = True

    def on_train_end(self, trainer: Trainer, game: Game) -> None:  # type: ignore[override]
        if self.stop.signal is not None and self._saved != game.clock.images_seen:  # asked while it waited for data
            self.act(trainer, game)  # type: ignore[arg-type]

    def act(self, trainer: Trainer, game: AdversarialGame) -> None:  # type: ignore[override]
        save_snapshot(self.snapshots, game.average, self.card(game))
        self.checkpoints.save(game.clock.images_seen, game.training_state(), self.facts())
        self._saved = game.clock.images_seen
