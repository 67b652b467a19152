"""Signals that ask a training to stop: the handler only notes them, so that a step is never cut in two."""

from __future__ import annotations

import signal
from types import FrameType


class StopRequest:
    """Notes SIGTERM and SIGINT inside `with`. A second SIGINT interrupts at once."""

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        self._before = {number: signal.getsignal(number) for number in self.SIGNALS}
        self.arm()
        return self

    def arm(self) -> None:
        """Puts the handlers in place, again where somebody else has put his."""
        for number in self.SIGNALS:
            signal.signal(number, self._note)

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number
