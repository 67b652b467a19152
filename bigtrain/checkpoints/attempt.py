"""The writing of one checkpoint: each rank its share, then rank 0 the marker, without a word between the ranks."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

from bigtrain.checkpoints.layout import FACTS, MARKER, Folders, failure_file, pieces_file, tensors_file
from bigtrain.checkpoints.share import Share

_log = logging.getLogger(__name__)
#: Seconds between two looks for the files of the other ranks, at first and at most.
FIRST_PAUSE, LONGEST_PAUSE = 0.02, 2.0


@dataclass(frozen=True)
class Attempt:
    """A rank's part in one attempt to write a checkpoint. It runs in a thread, so it uses no collectives.

    The ranks meet in the storage: each writes its tensors, then a json with the attempt's token, for which rank 0
    looks. What an earlier attempt left there has another token.

    Args:
        folders: of the checkpoints.
        name: of this one.
        token: on which the ranks agreed.
        rank: this one.
        ranks: how many there are.
        timeout_seconds: how long rank 0 waits for the others when it has written its own share.
    """

    folders: Folders
    name: str
    token: str
    rank: int
    ranks: int
    timeout_seconds: float

    def write(self, share: Share, state: bytes) -> None:
        """Writes this rank's files; on rank 0 the checkpoint is complete after it.

        Raises:
            OSError: if that fails, or (on rank 0) another rank fails or is missing.
        """
        try:
            files = self._write_share(share)
        except Exception as error:
            if self.rank != 0:
                self._report(error)
            raise
        if self.rank != 0:
            return
        files[FACTS] = self._put(FACTS, state)
        for rank, said in self._others().items():
            files |= said["files"] | {pieces_file(rank): said["checksum"]}
        self._put(MARKER, json.dumps(files).encode())

    def give_up(self) -> None:
        """Removes, on rank 0, what has been written; what another rank writes yet, the next attempt removes."""
        if self.rank == 0:
            with suppress(OSError):  # (the next attempt removes it too)
                self.folders.empty(self.name)

    def _write_share(self, share: Share) -> dict[str, str]:
        """Returns the checksums of this rank's files."""
        files = {}
        if share.pieces:
            file = tensors_file(self.rank)
            files[file] = self._put(file, share.content)
        said = {"token": self.token, "files": files, "pieces": share.pieces}
        file = pieces_file(self.rank)
        return files | {file: self._put(file, json.dumps(said).encode())}

    def _report(self, error: Exception) -> None:
        """Tells rank 0, which otherwise has to wait to the end.

        In a file of its own: a json that was written, although the store said otherwise, may have been counted already.
        """
        try:
            self._put(failure_file(self.rank), json.dumps({"token": self.token, "error": str(error)}).encode())
        except (OSError, ValueError):
            where = self.folders.storage.locate(self.name)
            _log.warning("rank %d can neither write its part of checkpoint %s nor say so: %s", self.rank, where, error)

    def _put(self, file: str, content: bytes | memoryview) -> str:
        """Writes a file; returns its checksum."""
        checksum = hashlib.sha256(content).hexdigest()
        self.folders.storage.write(f"{self.name}/{file}", cast(bytes, content))  # (obstore takes any buffer)
        return checksum

    def _others(self) -> dict[int, dict[str, Any]]:
        """What each other rank says of its files, when the last has written them."""
        said: dict[int, dict[str, Any]] = {}
        deadline, pause = time.monotonic() + self.timeout_seconds, FIRST_PAUSE
        while True:
            missing = [rank for rank in range(1, self.ranks) if rank not in said]
            said |= self._heard(missing)
            if len(said) == self.ranks - 1:
                return said
            left = deadline - time.monotonic()
            if left <= 0:
                raise OSError(self._too_late(said))
            time.sleep(min(pause, left))
            pause = min(2 * pause, LONGEST_PAUSE)

    def _heard(self, ranks: list[int]) -> dict[int, dict[str, Any]]:
        """What those of these ranks say that are done."""
        present = {key.partition("/")[2] for key, _ in self.folders.storage.list(self.name)} if ranks else set()
        done = {}
        for rank in ranks:
            if said := self._said(pieces_file(rank), present):
                done[rank] = said
            elif failure := self._said(failure_file(rank), present):
                raise OSError(f"rank {rank}: {failure['error']}")
        return done

    def _said(self, file: str, present: set[str]) -> dict[str, Any] | None:
        """A rank's json with its checksum, if it is of this attempt."""
        if file not in present:
            return None
        try:
            content = self.folders.storage.read(f"{self.name}/{file}")
            said = json.loads(content)
        except (ValueError, FileNotFoundError):  # something else of that name
            return None
        if not isinstance(said, dict) or said.get("token") != self.token:
            return None
        return said | {"checksum": hashlib.sha256(content).hexdigest()}

    def _too_late(self, said: dict[int, Any]) -> str:
        missing = [str(rank) for rank in range(1, self.ranks) if rank not in said]
        return (
            f"nothing came within {self.timeout_seconds:g} s from rank{'s' * (len(missing) > 1)} "
            f"{', '.join(missing)} of {self.ranks} (do all ranks write to the same folder?)"
        )
