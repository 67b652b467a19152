"""Watches over the ranks: one that dies or stands still ends all others soon, with a message that names it."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType

import torch.distributed as dist

from bigtrain.runtime.world import World

FAILED, MISTAKE, INTERRUPTED = 1, 2, 130  # exit codes
SECONDS_TO_CLEAR_UP = 10.0


class Watch:
    """Every rank gives a sign of life each second, and looks at those of the others, from a thread of its own.

    Inside `with`. A collective whose partner is gone waits, or fails with a connection that was closed; neither says
    whose. So each sign tells also how far the rank is and where its program stands.

    Args:
        world: of the ranks; nothing is watched over one alone.
        stalled_seconds: without a step, after which it is said where every rank stands, and all end;
        start_seconds: the same before the first step, if it is longer.
        dead_seconds: without a sign, after which a rank is dead.
        again: what a user can do when all have ended.
        end: ends the process; a test may do otherwise.
        clean: takes secrets out of what is told to the others.
    """

    def __init__(
        self,
        world: World,
        stalled_seconds: float = 600.0,
        start_seconds: float = 0.0,
        dead_seconds: float = 30.0,
        again: str = "the same command resumes",
        end: Callable[[int], None] = os._exit,
        clean: Callable[[str], str] = str,
    ) -> None:
        self.world, self.dead_seconds, self._end, self.again = world, dead_seconds, end, again
        self.stalled_seconds, self.start_seconds, self._clean = stalled_seconds, start_seconds, clean
        self._main = threading.main_thread().ident or 0
        self._progress, self._since = 0, time.monotonic()
        self._closed = threading.Event()
        self._signs: dict[int, tuple[str, float]] = {}
        self._store: dist.Store | None = None

    def __enter__(self) -> Watch:
        if self.world.size > 1:
            self._store = _store(self.world)
            self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._store is None:
            return
        if error is not None:
            self._tell(error)
        self._say(f"bye {self.world.rank}")
        self._closed.set()
        self._thread.join(5)
        if self.world.is_first:  # it keeps the store: the others still have to read in it
            self._wait_for_others()

    def step(self, progress: int) -> None:
        """To be called after each step, with a number that grows."""
        self._progress = progress
        self.alive()

    def alive(self) -> None:
        """To be called now and then by what takes long between two steps, on one rank at least."""
        self._since = time.monotonic()

    def _say(self, key: str) -> None:
        assert self._store is not None
        with contextlib.suppress(RuntimeError):
            self._store.set(key, "1")

    def _tell(self, error: BaseException) -> None:
        """Tells the others that this rank fails; or, if it fails because another is gone, waits for its name."""
        assert self._store is not None
        if isinstance(error, RuntimeError):  # of a collective, perhaps
            self.dead_seconds = min(self.dead_seconds, 5.0)
            time.sleep(self.dead_seconds + 15)  # in which the thread ends this process, if another one is gone
        text = self._clean(" ".join(str(error).split())) or type(error).__name__
        self._announce(f"rank {self.world.rank} failed: {text}", _code(error))

    def _announce(self, text: str, code: int = FAILED) -> bool:
        """Whether this was the first bad news."""
        assert self._store is not None
        try:
            first = self._store.add("failures", 1) == 1
            if first:
                self._store.set("failure", f"{code} {text}")
            return first
        except RuntimeError:
            return False

    def _wait_for_others(self) -> None:
        assert self._store is not None
        deadline = time.monotonic() + 5
        with contextlib.suppress(RuntimeError):
            self._store.add("left", 1)
            while self._store.add("left", 0) < self.world.size and time.monotonic() < deadline:
                time.sleep(0.1)

    def _watch(self) -> None:
        assert self._store is not None
        while not self._closed.wait(1.0):
            try:
                self._round(self._store)
            except RuntimeError:
                if not self._closed.is_set():
                    self._stop("rank 0 is gone, which keeps the list of the ranks")
        if not self.world.is_first:
            with contextlib.suppress(RuntimeError):
                self._store.add("left", 1)

    def _round(self, store: dist.Store) -> None:
        now = time.monotonic()
        stalled = now - self._since
        place = self._place() if stalled > min(10.0, self.stalled_seconds / 2) else ""
        store.set(f"sign {self.world.rank}", json.dumps([now, self._progress, stalled, place]))
        if store.check(["failure"]):
            code, _, text = store.get("failure").decode().partition(" ")
            if not text.startswith(f"rank {self.world.rank} "):
                self._follow(text, int(code))
            return
        signs = [self._look(store, rank, now) for rank in range(self.world.size)]
        stalls = [stalled for _, stalled, _ in signs]
        begun = max(progress for progress, *_ in signs) > 0
        limit = self.stalled_seconds if begun else max(self.stalled_seconds, self.start_seconds)
        if min(stalls) > limit:  # (one may still evaluate while the others wait for it)
            ordered = sorted((progress, "waits for" in place, rank) for rank, (progress, _, place) in enumerate(signs))
            places = "; ".join(f"rank {rank} {signs[rank][2]}" for *_, rank in ordered)
            self._stop(f"no step for {stalled:.0f} s; {places}")

    def _look(self, store: dist.Store, rank: int, now: float) -> tuple[int, float, str]:
        """How far a rank is, how long without a step, and where it stands."""
        sign = store.get(f"sign {rank}").decode() if store.check([f"sign {rank}"]) else ""
        before = self._signs.get(rank)
        if before is None or before[0] != sign:
            self._signs[rank] = (sign, now)
        elif now - before[1] > self.dead_seconds and not store.check([f"bye {rank}"]):
            self._stop(f"rank {rank} is dead: no sign of it for {now - before[1]:.0f} s")
        if not sign:
            return 0, 0.0, "has not begun"
        _, progress, stalled, place = json.loads(sign)
        return progress, stalled, place

    def _place(self) -> str:
        """Where the main thread stands."""
        frame = sys._current_frames().get(self._main)
        if frame is None:
            return "has ended"
        stack = traceback.extract_stack(frame)
        waits = any("torch/distributed" in at.filename or at.name == "_engine_run_backward" for at in stack[-6:])
        own = next((at for at in reversed(stack) if "bigtrain" in at.filename), stack[-1])
        verb = "waits for others" if waits else "stands"
        return f"{verb} in {own.name} ({own.filename.rpartition('bigtrain/')[2]}:{own.lineno}, {stack[-1].name})"

    def _stop(self, text: str) -> None:
        if self._announce(text) or not self._store_answers():
            print(f"bigtrain: error: {text}; all ranks end, {self.again}", file=sys.stderr, flush=True)
        self._end(FAILED)

    def _follow(self, text: str, code: int) -> None:
        """Ends after another rank, whose error the first one tells: it is the one that users look at."""
        if self.world.is_first:
            if code == INTERRUPTED and self._closed.wait(SECONDS_TO_CLEAR_UP):
                return  # it was interrupted too, has cleared up and says so itself
            said = "interrupted" if code == INTERRUPTED else f"error: {text}; all ranks end, {self.again}"
            print(f"bigtrain: {said}", file=sys.stderr, flush=True)
            time.sleep(2)  # so that the others find it here too
        self._end(code)

    def _store_answers(self) -> bool:
        assert self._store is not None
        try:
            return bool(self._store.check(["failure"]))
        except RuntimeError:
            return False


def _store(world: World) -> dist.Store:
    """A store of the watch's own, kept by rank 0: no collective disturbs it."""
    seconds = timedelta(seconds=20)
    host = os.environ.get("MASTER_ADDR", "127.0.0.1")
    if world.is_first:
        store = dist.TCPStore(host, 0, is_master=True, timeout=seconds, wait_for_workers=False)
        world.tell(str(store.port))
        return store
    return dist.TCPStore(host, int(world.tell(None) or 0), is_master=False, timeout=seconds, wait_for_workers=False)


def _code(error: BaseException) -> int:
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if (code := getattr(error, "exit_code", None)) is not None:
        return int(code)
    return MISTAKE if isinstance(error, (ValueError, OSError)) else FAILED
