"""What is seen of long work on a terminal: the training's bar stays while the samples are scored."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace
from typing import Any

from bigtrain.callbacks.progress import TrainingProgress
from bigtrain.data.progress import console, progress
from tests.unit.tiny import progressive_game


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_an_evaluation_is_shown_below_the_training(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    console.cache_clear()  # one that was made for another terminal is of its width
    bar, game = TrainingProgress(), progressive_game()
    trainer: Any = SimpleNamespace()
    bar.on_train_start(trainer, game)
    try:
        game.clock.images_seen = 64
        bar.on_train_batch_end(trainer, game, None, None, 0)
        with progress("evaluating", 60) as shown:
            shown.update(45)
            before = len(terminal.getvalue())
            assert bar._bar is not None
            bar._bar.refresh()  # as it does by itself ten times a second
            seen = terminal.getvalue()[before:]
    finally:
        bar.teardown(trainer, game, "fit")
    assert seen.index("0.1/0.2 kimg") < seen.index("evaluating")
    assert "45/60" in seen
