"""Saving while the training goes on, and finding the place again."""

from __future__ import annotations

import json
import logging
import math
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from bigtrain.checkpoints.attempt import Attempt
from bigtrain.checkpoints.layout import FACTS, FORMAT, MARKER, Folders
from bigtrain.checkpoints.share import Share, share_of
from bigtrain.checkpoints.whole import Files, WholeTensors
from bigtrain.clock import moment_name
from bigtrain.runtime.parallel import Piece
from bigtrain.runtime.world import World
from bigtrain.storage import Storage

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """What `Checkpoints.load` gives back. The tensors are whole, each put together when it is asked for."""

    images_seen: int
    tensors: WholeTensors
    facts: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run. `save` and `load` are called by all ranks at the same point.

    Args:
        storage: their folder, the same for all ranks.
        keep: how many of the newest are kept, beside the one with the best score.
        world: the ranks.
        timeout_seconds: how long rank 0 waits for the others' files when it has written its own.
    """

    def __init__(
        self, storage: Storage, keep: int = 3, world: World | None = None, timeout_seconds: float = 600.0
    ) -> None:
        self.storage, self.world, self.timeout_seconds = storage, world or World(), timeout_seconds
        self._folders, self._share = Folders(storage, keep), Share()
        self._writing: Future[None] | None = None
        self._present: set[str] | None = None  # names of folders that may be there; known to rank 0

    def names(self) -> list[str]:
        """The complete ones, oldest first."""
        return self._folders.complete()

    def spare(self, spared: Callable[[list[str]], list[str]]) -> None:
        """Has others kept too: which ones of the complete ones' names, rank 0 asks when it tidies up, in a thread."""
        self._folders.spared = spared

    def facts(self, name: str) -> dict[str, Any]:
        """The facts of one, without a look at its tensors.

        Raises:
            ValueError, FileNotFoundError: if they cannot be read.
        """
        return self._folders.facts(name)

    def remove_after(self, name: str) -> None:
        """Removes all that are newer than the one of that name. On rank 0, while nothing is written."""
        self._outcome()
        names = self._folders.all()
        for later in names[names.index(name) + 1 :]:
            self._folders.remove(later)

    def save(
        self,
        images_seen: int,
        pieces: Mapping[str, Piece],
        facts: dict[str, Any],
        score: float | None = None,
        wait: bool = False,
        measured: str = "",
    ) -> None:
        """Copies what this rank has to write, and writes it while the training goes on.

        The one before it is waited for. Then what is more than `keep` back is removed, and what a kill left unfinished.
        If it cannot be written there is a warning; the former ones stay.

        Args:
            images_seen: names it; one of the same moment is replaced.
            pieces: what this rank holds.
            facts: anything that json can say; those of rank 0 are written.
            score: lower is better; the best is kept however old it is. None if it is not known.
            wait: until it is complete; the same on all ranks.
            measured: how the score was; scores that were measured otherwise are not compared, the best of each is kept.

        Raises:
            OSError: with `wait`, on all ranks, if it cannot be written.
        """
        self._outcome()  # of the one before, of which has been told
        self._share.copy(share_of(self.world.rank, pieces))
        state = _state(images_seen, self.world.size, score, measured, facts)
        self._writing = self._begun(moment_name(images_seen), state, warn=not wait)
        if wait:
            failure = self._outcome()
            verdict = self.world.tell(None if failure is None else str(failure))
            if verdict is not None:
                raise OSError(verdict) from failure

    def finish(self) -> None:
        """Waits for this rank's part of the writing under way; on rank 0 that is the whole.

        Raises:
            OSError: if it failed.
        """
        failure = self._outcome()
        if failure is not None:
            raise OSError(str(failure)) from failure

    def load(self, name: str | None = None) -> Checkpoint | None:
        """The checkpoint of that name, or the newest, the same on all ranks; None if there is none.

        Raises:
            ValueError: if it is damaged or of another version; the message names the one before it.
        """
        self._outcome()
        name = name or self._agree(lambda: next(reversed(self.names()), None))
        if name is None:
            return None
        names = self.names()
        if name not in names:
            raise ValueError(f"there is no complete checkpoint {self.storage.locate(name)}; there are: {names or None}")
        with self._naming_damage(name, names[: names.index(name)]):
            files, state = self._opened(name)
        if state["format"] != FORMAT:
            raise ValueError(
                f"checkpoint {self.storage.locate(name)} has format {state['format']}, this bigtrain reads {FORMAT}: "
                f"go on with the bigtrain that wrote it"
            )
        with self._naming_damage(name, names[: names.index(name)]):
            tensors = WholeTensors([files.rows(rank) for rank in range(state["world_size"])])
        return Checkpoint(state["images_seen"], tensors, state["facts"])

    def _begun(self, name: str, state: bytes, warn: bool) -> Future[None]:
        """The writing of this rank's copy, in a thread; or what keeps all ranks from it."""
        try:
            token = self._agree(lambda: self._make_place(name))
        except OSError as error:
            if warn and self.world.is_first:
                self._warn(name, error)
            failed: Future[None] = Future()
            failed.set_exception(OSError(self._failed(name, error)))
            return failed
        assert token is not None
        attempt = Attempt(self._folders, name, token, self.world.rank, self.world.size, self.timeout_seconds)
        return _in_thread(lambda: self._write(attempt, state, warn))

    def _make_place(self, name: str) -> str:
        """Rank 0 makes the place free, before anybody writes there; gives the token by which this attempt is known."""
        if self._present is None:
            self._present = set(self._folders.all())
        if name in self._present:
            self._folders.remove(name)
        self._present.add(name)
        return secrets.token_hex(8)

    def _write(self, attempt: Attempt, state: bytes, warn: bool) -> None:
        """In the thread. Of a failure tells rank 0, which hears of those of the others."""
        try:
            if self.world.is_first:
                with suppress(OSError):  # (what cannot be removed is told of below, what cannot be written here)
                    self._folders.tidy(attempt.name)
            attempt.write(self._share, state)
        except Exception as error:
            attempt.give_up()
            if warn and self.world.is_first:
                self._warn(attempt.name, error)
            raise OSError(self._failed(attempt.name, error)) from error
        if self.world.is_first:
            try:
                self._folders.tidy(attempt.name)
            except (OSError, ValueError) as error:
                _log.warning("checkpoints that are no longer needed could not be removed: %s", error)

    def _warn(self, name: str, error: Exception) -> None:
        _log.warning("%s; the former ones stay, the training goes on", self._failed(name, error))

    def _failed(self, name: str, error: Exception) -> str:
        return f"checkpoint {self.storage.locate(name)} could not be written: {error}"

    def _outcome(self) -> Exception | None:
        """Waits for the thread; what failed in it."""
        failure = None if self._writing is None else self._writing.exception()
        self._writing = None
        if failure is not None and not isinstance(failure, Exception):
            raise failure
        return failure

    def _agree(self, find: Callable[[], str | None]) -> str | None:
        """What rank 0 finds, on all ranks; an OSError on all if it fails."""
        found, fault = None, None
        if self.world.is_first:
            try:
                found = find()
            except (OSError, ValueError) as error:
                fault = error
        told = self.world.tell(json.dumps({"found": found, "fault": None if fault is None else str(fault)}))
        assert told is not None
        said = json.loads(told)
        if said["fault"] is not None:
            raise OSError(said["fault"]) from fault
        return said["found"]

    def _opened(self, name: str) -> tuple[Files, dict[str, Any]]:
        try:
            checksums = dict(json.loads(self.storage.read(f"{name}/{MARKER}")))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{MARKER} cannot be read: {error}") from error
        files = Files(self.storage, name, checksums)
        return files, files.json(FACTS)

    @contextmanager
    def _naming_damage(self, name: str, before: list[str]) -> Iterator[None]:
        try:
            yield
        except (ValueError, FileNotFoundError) as error:
            remedy = f"remove it to go on from {before[-1]}" if before else "there is no earlier one"
            raise ValueError(f"checkpoint {self.storage.locate(name)} is damaged ({error}); {remedy}") from error


def _state(images_seen: int, world_size: int, score: float | None, measured: str, facts: dict[str, Any]) -> bytes:
    known = score if score is not None and math.isfinite(score) else None
    state = {
        "format": FORMAT,
        "images_seen": images_seen,
        "world_size": world_size,
        "score": known,
        "measured": measured,
        "facts": facts,
    }
    return json.dumps(state, indent=1).encode()


def _in_thread(action: Callable[[], None]) -> Future[None]:
    """Does it in a thread that does not keep a process alive which ends: that is a kill, after which nothing counts."""
    future: Future[None] = Future()

    def run() -> None:
        try:
            action()
            future.set_result(None)
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="checkpoint", daemon=True).start()
    return future
