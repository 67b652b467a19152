"""Threads that wait for object stores, and for which nobody waits when the process ends."""

from __future__ import annotations

import atexit
import contextlib
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from queue import Empty, SimpleQueue
from typing import Any, ClassVar, TypeVar

T = TypeVar("T")
S = TypeVar("S")
_Task = tuple["Future[Any]", Callable[..., Any], tuple[Any, ...]]
LAST_SECONDS = 1.0


class Threads:
    """Runs actions in threads, as a `ThreadPoolExecutor` does, but does not hold up the end of the process.

    The interpreter joins an executor's threads before it ends, and one that waits for a dead store does so until its
    retries end. These are left behind, after a second in which those that are served can come back from obstore.

    Args:
        most: threads at the same time; they are started as they are needed.
        name: of the threads.
    """

    def __init__(self, most: int, name: str) -> None:
        self.most, self.name = most, name
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self._waiting = threading.Semaphore(0)  # threads that have nothing to do
        self._lock, self._started = threading.Lock(), 0
        self._end = weakref.finalize(self, self._tasks.put, None)  # what was asked for before is still done
        self._end.atexit = False

    def submit(self, action: Callable[..., T], *arguments: Any) -> Future[T]:
        """The action's result, which comes later.

        Raises:
            RuntimeError: if `close` was called.
        """
        future: Future[T] = Future()
        with self._lock:
            if not self._end.alive:
                raise RuntimeError(f"the threads {self.name!r} are closed")
            self._tasks.put((future, action, arguments))
            if not self._waiting.acquire(blocking=False) and self._started < self.most:
                self._started += 1
                _Thread(self._tasks, self._waiting, f"{self.name}_{self._started}").start()
        return future

    def map(self, action: Callable[[S], T], arguments: Iterable[S]) -> list[T]:
        """The action's results for all arguments, in their order; none is under way any more if one has failed."""
        futures = [self.submit(action, argument) for argument in arguments]
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()
            wait(futures)

    def close(self) -> None:
        """Cancels what has not begun; the threads end after what they do now."""
        with self._lock:
            while self._end.alive:
                try:
                    task = self._tasks.get_nowait()
                except Empty:
                    self._end()
                else:
                    if task is not None and task[0].cancel():
                        task[0].set_running_or_notify_cancel()  # tells those who wait for it


class _Thread(threading.Thread):
    """Does one task after the other; None ends it, and the others."""

    ending: ClassVar[bool] = False  # the process

    def __init__(self, tasks: SimpleQueue[_Task | None], waiting: threading.Semaphore, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._tasks, self._waiting, self.busy = tasks, waiting, True

    def run(self) -> None:
        while (task := self._next()) is not None and not _Thread.ending:
            _do(*task)
            del task  # with what it holds
        self._tasks.put(None)
        self.busy = False

    def _next(self) -> _Task | None:
        with contextlib.suppress(Empty):
            return self._tasks.get_nowait()
        self.busy = False
        self._waiting.release()
        task = self._tasks.get()
        self.busy = True
        return task


def _do(future: Future[Any], action: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(action(*arguments))
    except BaseException as error:
        future.set_exception(error)
        del future  # which the error's traceback would hold, and it the error


@atexit.register
def _let_finish() -> None:
    """A thread that comes back from obstore while the interpreter is taken down would abort the process."""
    _Thread.ending = True
    deadline = time.monotonic() + LAST_SECONDS
    while any(isinstance(one, _Thread) and one.busy for one in threading.enumerate()) and time.monotonic() < deadline:
        time.sleep(0.01)
