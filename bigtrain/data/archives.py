"""The bytes of an archive: in memory, or fetched as far as they are needed. Read without torch."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable

from bigtrain.storage import Stat, Storage

WINDOW = 256 * 2**10
_WHOLE_WINDOW = 8 * 2**20


class Archive(ABC):
    """Bytes that are read forwards: each piece starts where the one before it started, or behind.

    Attributes:
        size: of all, in bytes.
    """

    size: int

    @abstractmethod
    def read(self, start: int, length: int) -> memoryview:
        """The bytes [start, start + length), of which there are fewer at the end."""


class InMemory(Archive):
    """Bytes that are there."""

    def __init__(self, content: bytes | memoryview) -> None:
        self._view = memoryview(content)
        self.size = len(self._view)

    def read(self, start: int, length: int) -> memoryview:
        return self._view[start : start + length]


class Windowed(Archive):
    """Bytes that are fetched a window at a time.

    Args:
        fetch: the bytes [start, start + length), both of which it is given.
        size: of all, in bytes.
        window: bytes to fetch at a time.
        whole: fetch everything once, also what nobody reads, and make its SHA-256; else what lies between is left out.
    """

    def __init__(
        self, fetch: Callable[[int, int], bytes | memoryview], size: int, window: int = WINDOW, whole: bool = False
    ) -> None:
        self._fetch, self.size, self._window, self._whole = fetch, size, window, whole
        self._buffer, self._start = memoryview(b""), 0
        self._digest = hashlib.sha256()

    def read(self, start: int, length: int) -> memoryview:
        assert start >= self._start, "an archive is read forwards"
        start, stop = min(start, self.size), min(start + length, self.size)
        while start < stop and (end := self._end) < stop:
            kept = self._buffer[start - self._start :] if start < end else memoryview(b"")
            first = end if kept or self._whole else start
            found = self._fetch(first, min(max(self._window, stop - first), self.size - first))
            if self._whole:
                self._digest.update(found)
            self._start = first - len(kept)
            self._buffer = memoryview(b"".join((kept, found)) if kept else found)
        return self._buffer[start - self._start : stop - self._start]

    @property
    def _end(self) -> int:
        """The byte behind those that are in memory."""
        return self._start + len(self._buffer)

    def sha256(self) -> str:
        """Of all bytes; fetches those that are left."""
        assert self._whole
        while self._end < self.size:
            self.read(self._end, self._window)
        return self._digest.hexdigest()


Content = bytes | memoryview | Archive


def archive_of(content: Content) -> Archive:
    return content if isinstance(content, Archive) else InMemory(content)


def stored_archive(storage: Storage, key: str, version: Stat, whole: bool) -> Windowed:
    """An object as an archive; reading it fails if it is replaced meanwhile.

    Args:
        storage: where it is.
        key: of it.
        version: its size and ETag.
        whole: as of `Windowed`.
    """

    def fetch(start: int, length: int) -> memoryview:
        return storage.read_range(key, start, length, if_match=version.etag)

    return Windowed(fetch, version.size, _WHOLE_WINDOW if whole else WINDOW, whole)
