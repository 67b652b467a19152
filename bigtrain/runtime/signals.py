"""Signals that ask a training to stop: the handler only notes them, so that a step is never cut in two."""

from __future__ import annotations

import signal
from types import FrameType


class StopRequest:
    """Notes SIGTERM and SIGINT between `install` and `uninstall`. A second SIGINT interrupts at once."""

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, object] = {}

    def install(self) -> None:
        self._before = {number: signal.signal(number, self._note) for number in self.SIGNALS}

    def uninstall(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._before = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number
