"""Whole shards on this node's disk: fetched once, checked, shared by all its processes, the oldest removed."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from bigtrain.data.files import InFile, ShardError

#: Writes a shard's bytes into an open file.
Download = Callable[[int], None]
_CHUNK = 1 << 20
LOCK_SECONDS = 120.0  # longer than a shard takes; a process that was suspended must not hold up the others


class CacheFullError(Exception):
    """There is no room for a shard, on the disk or under the cache's bound."""


def default_folder() -> Path:
    """This user's cache on this node."""
    return Path(tempfile.gettempdir()) / f"bigtrain-cache-{os.getuid()}"


class ShardCache:
    """A folder of shards by name. A shard is there whole and checked, or not at all.

    One process at a time fetches a shard, the others wait for it. A shard that is removed while somebody reads it stays
    readable for him.

    Args:
        folder: is made if needed; it must belong to this user. The shards lie in a folder of their own in it.
        max_bytes: the sum of all shards, beyond which those that were not used for longest are removed.

    Raises:
        ValueError: if the folder belongs to another user.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_uid != os.getuid():
            raise ValueError(f"data.cache_folder (={str(folder)!r}) belongs to another user; name one of your own")
        self.folder, self.max_bytes = folder / "bigtrain-shards", max_bytes
        (self.folder / "locks").mkdir(parents=True, exist_ok=True)

    def find(self, name: str, size: int) -> InFile | None:
        """The shard of that name, if it is there."""
        path = self.folder / name
        try:
            found = InFile(path, size)
        except FileNotFoundError:
            return None
        except ShardError:
            self.drop(name)
            return None
        self.touch(name)
        return found

    def touch(self, name: str) -> None:
        """Notes that the shard is used now."""
        with contextlib.suppress(FileNotFoundError):
            os.utime(self.folder / name)

    def fetch(self, name: str, size: int, sha256: str | None, download: Download) -> InFile:
        """The shard of that name, downloaded if it is not there.

        Raises:
            CacheFullError: if there is no room for it.
            ShardError: if it does not have its checksum.
        """
        with self._locked(name):
            if (found := self.find(name, size)) is not None:
                return found
            part = self.folder / f"{name}.part"
            try:
                self._reserve(part, size)
                with part.open("r+b") as file:
                    download(file.fileno())
                    if sha256 is not None:
                        _check(file.fileno(), name, sha256)
                part.rename(self.folder / name)
            finally:
                part.unlink(missing_ok=True)
            return InFile(self.folder / name, size)

    def drop(self, name: str) -> None:
        (self.folder / name).unlink(missing_ok=True)

    def _reserve(self, part: Path, size: int) -> None:
        """Makes room, and takes it: others count the file in its full length from now on."""
        part.unlink(missing_ok=True)  # of a process that died
        with self._locked("all"):
            files = sorted(self._files(), key=lambda item: item[1].st_mtime_ns)
            used = sum(status.st_size for _, status in files)
            for path, status in files:
                if used + size <= self.max_bytes and _allocate(part, size):
                    return
                if path.suffix == ".part" and not self._orphan(path):
                    continue  # somebody writes it
                path.unlink(missing_ok=True)
                used -= status.st_size
            if used + size > self.max_bytes or not _allocate(part, size):
                raise CacheFullError(f"a shard of {size} bytes has no room in {self.folder}, or on its disk")

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        for path in self.folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if path.is_file():
                    yield path, path.stat()

    def _orphan(self, part: Path) -> bool:
        """Whether a process died while it wrote the file."""
        with (self.folder / "locks" / part.stem).open("a") as lock:
            return _try_lock(lock)

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Held by one thread of one process on this node; given up by the system when the process dies."""
        with (self.folder / "locks" / name).open("a") as lock:
            deadline = time.monotonic() + LOCK_SECONDS
            while not _try_lock(lock):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"another process has held {lock.name} for {LOCK_SECONDS:g} s")
                time.sleep(0.05)
            yield


def _try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _allocate(part: Path, size: int) -> bool:
    """Makes a file of that size; False if the disk has no room for it."""
    try:
        with part.open("wb") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:  # macOS: what the disk lacks is noticed when it is written
                file.truncate(size)
    except OSError as error:
        part.unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return False
        raise
    return True


def _check(descriptor: int, name: str, sha256: str) -> None:
    digest, offset = hashlib.sha256(), 0
    while content := os.pread(descriptor, _CHUNK, offset):
        digest.update(content)
        offset += len(content)
    if digest.hexdigest() != sha256:
        raise ShardError(f"shard {name} does not have the manifest's checksum after its download")
