"""Whole shards on this node's disk: fetched once, checked, shared by all its processes, the oldest removed."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import tempfile
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO

from bigtrain.data.files import InFile, ShardError

#: Writes a shard's bytes into an open file.
Download = Callable[[int], None]
_CHUNK = 1 << 20
LOCK_SECONDS = 120.0  # longer than a shard takes; a process that was suspended must not hold up the others


class CacheFullError(Exception):
    """There is no room for a shard under the cache's bound, beside those that somebody needs."""


class DiskFullError(CacheFullError):
    """There is no room for a shard on the disk."""


def default_folder() -> Path:
    """This user's cache on this node."""
    return Path(tempfile.gettempdir()) / f"bigtrain-cache-{os.getuid()}"


class ShardCache:
    """A folder of shards by name. A shard is there whole and checked, or not at all.

    One process at a time fetches a shard, the others wait for it. What a process has pinned stays until it pins other
    shards, or ends. Another shard that is removed while somebody reads it stays readable for him.

    Args:
        folder: is made if needed; it must belong to this user. The shards lie in a folder of their own in it.
        max_bytes: the sum of all shards, beyond which those that were not used for longest are removed.

    Raises:
        ValueError: if the folder belongs to another user.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_uid != os.getuid():
            raise ValueError(f"cache_folder (={str(folder)!r}) belongs to another user; name one of your own")
        self.folder, self.max_bytes = folder / "bigtrain-shards", max_bytes
        for name in ("locks", "pins"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self._pins: int | None = None  # this cache's list of them, locked for as long as it is used

    def has(self, name: str) -> bool:
        """Whether the shard is there. Costs less than `find`, and is no use of it."""
        return (self.folder / name).exists()

    def pin(self, names: Iterable[str]) -> None:
        """Names all shards that this process is going to need; nobody removes them to make room."""
        with self._locked("all"):
            if self._pins is None:
                self._pins, _ = tempfile.mkstemp(dir=self.folder / "pins")
                fcntl.flock(self._pins, fcntl.LOCK_EX)
                weakref.finalize(self, os.close, self._pins)
            os.ftruncate(self._pins, 0)
            os.pwrite(self._pins, "\n".join(names).encode(), 0)

    def _pinned(self) -> set[str]:
        """The shards that a living process has pinned."""
        names: set[str] = set()
        for path in (self.folder / "pins").iterdir():
            with contextlib.suppress(FileNotFoundError), path.open() as file:
                if _try_lock(file):
                    path.unlink()  # its process died
                else:
                    names.update(file.read().split())
        return names

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
            CacheFullError: if there is no room for it, beside what is pinned.
            DiskFullError: if there is none on the disk.
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
            files, pinned = sorted(self._files(), key=lambda item: item[1].st_mtime_ns), self._pinned()
            free = self.max_bytes - sum(status.st_size for _, status in files)
            unused = deque(item for item in files if item[0].name not in pinned and not self._being_written(item[0]))
            if free + sum(status.st_size for _, status in unused) < size:
                raise CacheFullError(f"a shard of {size} bytes has no room in {self.folder}, of {self.max_bytes} bytes")
            while free < size or not _allocate(part, size):
                if not unused:
                    raise DiskFullError(f"a shard of {size} bytes has no room on the disk of {self.folder}")
                path, status = unused.popleft()
                path.unlink(missing_ok=True)
                free += status.st_size

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        for path in self.folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if path.is_file():
                    yield path, path.stat()

    def _being_written(self, path: Path) -> bool:
        """Whether a living process writes the file."""
        if path.suffix != ".part":
            return False
        with (self.folder / "locks" / path.stem).open("a") as lock:
            return not _try_lock(lock)

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
