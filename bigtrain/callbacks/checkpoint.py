"""checkpoints/ and snapshots/, at a cadence, at the end, and when the run is asked to stop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning import Trainer

from bigtrain.callbacks.periodic import Periodic
from bigtrain.callbacks.records import how_measured
from bigtrain.checkpoints import Checkpoints
from bigtrain.games import AdversarialGame, Game
from bigtrain.runtime.parallel import whole
from bigtrain.runtime.signals import Agreement
from bigtrain.snapshots import Card, save_snapshot
from bigtrain.storage import Storage


class Checkpointing(Periodic):
    """Stands last among the callbacks: what a checkpoint holds has been recorded, scored and drawn before.

    Args:
        kimg: the cadence.
        checkpoints: where they go.
        facts: gives what a checkpoint says beside the tensors; called by all ranks.
        snapshots: where the averaged generator goes at the same time.
        card: makes a snapshot's card; the checkpoint with the best FID is kept, where some were measured otherwise
            (of fewer samples, say) the best of each kind.
        agreement: of the ranks to end the training after the step, with a checkpoint.
        share: is told the name and the card of each snapshot.
    """

    def __init__(
        self,
        kimg: float,
        checkpoints: Checkpoints,
        facts: Callable[[], dict[str, Any]],
        snapshots: Storage,
        card: Callable[[AdversarialGame], Card],
        agreement: Agreement,
        share: Callable[[str, Card], None] = lambda name, card: None,
    ) -> None:
        super().__init__(kimg)
        self.checkpoints, self.facts, self.snapshots, self.card = checkpoints, facts, snapshots, card
        self.agreement, self.share = agreement, share
        #: The signal by which the training was ended.
        self.stopped_by: int | None = None

    def on_train_start(self, trainer: Trainer, game: Game) -> None:  # type: ignore[override]
        self._saved = game.clock.images_seen
        self.agreement.stop.arm()  # Lightning's own handler of SIGTERM would end the loop without a checkpoint

    def on_train_batch_end(self, trainer: Trainer, game: Game, outputs: Any, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        self.stopped_by = self.agreement.signal()
        if self.stopped_by is None:
            super().on_train_batch_end(trainer, game, outputs, batch, batch_idx)
            return
        self.save(game, wait=True)  # type: ignore[arg-type]
        trainer.should_stop = True

    def on_train_end(self, trainer: Trainer, game: Game) -> None:  # type: ignore[override]
        alone, signal = self.agreement.world.size == 1, self.agreement.stop.signal
        if alone and signal is not None and self._saved != game.clock.images_seen:  # while it waited for data
            self.stopped_by = self.agreement.stop.signal
            self.save(game, wait=True)  # type: ignore[arg-type]
        self.checkpoints.finish()

    def act(self, trainer: Trainer, game: AdversarialGame) -> None:  # type: ignore[override]
        self.save(game, wait=game.clock.images_seen >= game.schedule.total_images)

    def save(self, game: AdversarialGame, wait: bool) -> None:
        """Takes snapshot and checkpoint; all ranks do so at the same step."""
        average = {name: whole(tensor) for name, tensor in game.average.state_dict().items()}
        score, measured = None, ""
        if game.parallel.rank == 0:
            card = self.card(game)
            self.share(save_snapshot(self.snapshots, average, card), card)
            if card.fid is not None:
                score, measured = float(card.fid["value"]), how_measured(card.fid)
        now = game.clock.images_seen
        self.checkpoints.save(now, game.training_state(), self.facts(), score, wait, measured)
        self._saved = now
