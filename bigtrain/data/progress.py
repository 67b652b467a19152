"""How far a long work over images is: a bar on a terminal, else a plain line now and then."""

from __future__ import annotations

import contextlib
import functools
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console

_SECONDS_BETWEEN_LINES = 10.0


class Progress(ABC):
    """Shows how many images of the total are done and skipped."""

    @abstractmethod
    def update(self, done: int, skipped: int = 0) -> None:
        """`done` images in all, `skipped` of them left out."""


class Lines(Progress):
    """A plain line every ten seconds, for logs.

    Args:
        title: of the work.
        total: images.
        done: images that were done before.
        stream: to write to.
        seconds: between two lines.
    """

    def __init__(
        self, title: str, total: int, done: int, stream: TextIO, seconds: float = _SECONDS_BETWEEN_LINES
    ) -> None:
        self._title, self._total, self._before, self._stream, self._seconds = title, total, done, stream, seconds
        self._start = self._last = time.monotonic()

    def update(self, done: int, skipped: int = 0) -> None:
        now = time.monotonic()
        if now - self._last < self._seconds:
            return
        self._last = now
        rate = max(done - self._before, 1e-9) / (now - self._start)
        self._stream.write(
            f"{self._title}: {done:,} of {self._total:,} images, {rate:,.0f} images/s, "
            f"{(self._total - done) / rate:,.0f} s left{_skipped(skipped)}\n"
        )
        self._stream.flush()


def _skipped(count: int) -> str:
    return f", {count:,} skipped" if count else ""


@functools.cache
def console() -> Console:
    """The one for all bars: what is drawn on two consoles at a time would overwrite each other."""
    from rich.console import Console  # noqa: PLC0415 - only a terminal needs it

    return Console(stderr=True)


@contextlib.contextmanager
def progress(title: str, total: int, done: int = 0) -> Iterator[Progress]:
    """Shows progress on stderr inside the block."""
    if not sys.stderr.isatty():
        yield Lines(title, total, done, sys.stderr)
        return
    with _bar(title, total, done) as bar:
        yield bar


@contextlib.contextmanager
def _bar(title: str, total: int, done: int) -> Iterator[Progress]:
    from rich import progress as rich  # noqa: PLC0415

    columns = (
        rich.TextColumn("{task.description}"),
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        rich.TextColumn("{task.fields[rate]:,.0f} images/s"),
        rich.TimeRemainingColumn(),
        rich.TextColumn("{task.fields[skipped]}"),
    )
    with rich.Progress(*columns, console=console()) as display:
        yield _Bar(display, display.add_task(title, total=total, completed=done, rate=0.0, skipped=""), done)


class _Bar(Progress):
    def __init__(self, display: Any, task: Any, done: int) -> None:
        self._display, self._task, self._before = display, task, done
        self._start = time.monotonic()

    def update(self, done: int, skipped: int = 0) -> None:
        rate = (done - self._before) / max(time.monotonic() - self._start, 1e-9)
        self._display.update(self._task, completed=done, skipped=_skipped(skipped), rate=rate)
