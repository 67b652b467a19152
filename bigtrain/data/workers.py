"""Runs the parts of a build in this process or in several, and ends cleanly however it ends."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bigtrain.data.children import without_signals
from bigtrain.data.parts import Plan, write_part
from bigtrain.data.progress import Progress
from bigtrain.data.sources import Source
from bigtrain.storage import Storage

_SECONDS_BETWEEN_UPDATES = 0.2


@dataclass(frozen=True)
class Job:
    """What all parts have in common: where the images come from, what becomes of them, and where to write to."""

    source: Source
    plan: Plan
    storage: Storage

    def write(self, number: int, indices: NDArray[np.int64], count: Callable[[bool], None]) -> None:
        write_part(self.source, self.plan, self.storage, number, indices.tolist(), count)


def write_parts(
    job: Job, parts: dict[int, NDArray[np.int64]], workers: int, progress: Progress, done: int, skipped: int
) -> None:
    """Writes these parts. However it ends, the parts that are finished stay.

    Args:
        job: what the parts have in common.
        parts: by number, the indices of their images in the source.
        workers: processes; 1 is this one.
        progress: to show it with.
        done: images of the parts that were finished before.
        skipped: how many of these were left out.

    Raises:
        OSError: if the source cannot be read, the storage not be written, or a worker died.
    """
    if min(workers, len(parts)) > 1:
        _in_processes(job, parts, min(workers, len(parts)), progress, _Tally(done, skipped))
        return

    def count(kept: bool) -> None:
        nonlocal done, skipped
        done, skipped = done + 1, skipped + (not kept)
        progress.update(done, skipped)

    for number, indices in parts.items():
        job.write(number, indices, count)


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Inside the block SIGTERM, which schedulers send, interrupts as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _StoppedError(Exception):
    """In a worker: the build has ended."""


class _Tally:
    """Images done and skipped, shared by all workers; and whether they shall stop."""

    def __init__(self, done: int, skipped: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.done, self.skipped = context.Value("q", done), context.Value("q", skipped)
        self.stopped = context.RawValue("b", 0)

    def count(self, kept: bool) -> None:
        with self.done.get_lock():
            self.done.value += 1
            self.skipped.value += not kept
        if self.stopped.value:
            raise _StoppedError


def _in_processes(
    job: Job, parts: dict[int, NDArray[np.int64]], workers: int, progress: Progress, tally: _Tally
) -> None:
    context = multiprocessing.get_context("spawn")  # a forked child of a process that has used obstore hangs
    executor = ProcessPoolExecutor(workers, context, _begin, (job, tally))
    try:
        with without_signals():
            pending = {executor.submit(_write, number, indices) for number, indices in parts.items()}
        while pending:
            finished, pending = wait(pending, _SECONDS_BETWEEN_UPDATES, FIRST_COMPLETED)
            progress.update(tally.done.value, tally.skipped.value)
            for future in finished:
                future.result()
    except BrokenProcessPool as error:
        raise ChildProcessError(
            f"a worker process of the build died, perhaps for lack of memory; what is finished in {job.storage.url} is "
            f"kept: run the same command again, with fewer --workers (={workers}) if it happens again"
        ) from error
    finally:
        tally.stopped.value = 1
        executor.shutdown(wait=True, cancel_futures=True)


_worker: dict[str, Any] = {}  # of a worker process: what `_begin` was given, as an executor's tasks share nothing else


def _begin(job: Job, tally: _Tally) -> None:
    _worker.update(job=job, tally=tally)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Without this a worker would wait for ever for the tasks of a parent that was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _write(number: int, indices: NDArray[np.int64]) -> None:
    _worker["job"].write(number, indices, _worker["tally"].count)
