"""Whole shards that can be read at any byte: files on this machine, and bytes in memory."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from pathlib import Path


class ShardError(ValueError):
    """A shard that is not what the manifest says: of another length, changed, or with damaged bytes."""


class Readable(ABC):
    """A shard's bytes."""

    @abstractmethod
    def read(self, offset: int, size: int) -> bytes | memoryview: ...


class InFile(Readable):
    """An open file, closed when nobody holds it any more. It can be read by many threads, also after it was removed.

    It is read by `pread` and not mapped into memory: a mapped file that is cut short kills the process.

    Raises:
        FileNotFoundError: if there is none.
        ShardError: if its length is not the expected one.
    """

    def __init__(self, path: Path, size: int) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.path = path
        found = os.fstat(self._descriptor).st_size
        if found != size:
            raise ShardError(f"{path} has {found} bytes, and {size} by the manifest")

    def read(self, offset: int, size: int) -> bytes:
        content = os.pread(self._descriptor, size, offset)
        if len(content) != size:
            raise ShardError(f"{self.path} was cut short: it ends before byte {offset + size}")
        return content

    @property
    def removed(self) -> bool:
        """Whether the file has no name any more: its bytes lie on the disk only because it is open."""
        return os.fstat(self._descriptor).st_nlink == 0

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)


class InMemory(Readable):
    """Bytes in memory."""

    def __init__(self, content: bytes) -> None:
        self.content = memoryview(content)

    def read(self, offset: int, size: int) -> memoryview:
        return self.content[offset : offset + size]
