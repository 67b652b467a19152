"""The progress bar of a training: a live line on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import time
from typing import Any

from lightning import Callback, Trainer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from bigtrain.data.progress import console
from bigtrain.games import Game

REFRESH_SECONDS, PLAIN_SECONDS = 0.5, 10.0


class TrainingProgress(Callback):
    """Shows kimg, resolution, alpha, images/s, losses and the time that is left."""

    def __init__(self) -> None:
        self.console = console()
        self._bar: Progress | None = None

    def on_train_start(self, trainer: Trainer, game: Game) -> None:  # type: ignore[override]
        self._start, self._from = time.perf_counter(), game.clock.images_seen
        self._shown = 0.0
        if self.console.is_terminal:
            columns = (BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
            self._bar = Progress(*columns, console=self.console, transient=True)
            self._task = self._bar.add_task("", total=game.schedule.total_images, completed=self._from)
            self._bar.start()

    def on_train_batch_end(self, trainer: Trainer, game: Game, outputs: Any, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        now, last = time.perf_counter(), game.clock.images_seen >= game.schedule.total_images
        if not last and now - self._shown < (REFRESH_SECONDS if self._bar else PLAIN_SECONDS):
            return
        self._shown = now
        rate = (game.clock.images_seen - self._from) / (now - self._start)
        text = self._describe(game, rate)
        if self._bar is not None:
            self._bar.update(self._task, completed=game.clock.images_seen, description=text)
        else:
            left = (game.schedule.total_images - game.clock.images_seen) / max(rate, 1e-9)
            self.console.print(f"{text}  {_clock(left)} left", highlight=False, soft_wrap=True)

    @staticmethod
    def _describe(game: Game, rate: float) -> str:
        moment = game.moment
        fading = f" alpha {moment.alpha:.2f}" if moment.phase.kind == "transition" else ""
        losses = " ".join(
            f"{name.removeprefix('loss_').upper()} {float(value):.3f}"
            for name, value in game.measured.items()
            if name.startswith("loss_") and "/" not in name
        )
        total = game.schedule.total_images / 1000
        place = f"{game.clock.kimg:.1f}/{total:g} kimg  {moment.resolution}x{moment.resolution}{fading}"
        return f"{place}  {rate:.0f} images/s  {losses}"

    def teardown(self, trainer: Trainer, game: Game, stage: str) -> None:  # type: ignore[override]
        if self._bar is not None:
            self._bar.stop()


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
