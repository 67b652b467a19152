"""An object of a store as a file, read where it is needed."""

from __future__ import annotations

import io
import os

from bigtrain.sampling.outputs import place_of

#: Read at once: the images of a zip are mostly read one after the other.
AT_ONCE = 1 << 20


class RemoteFile(io.RawIOBase):
    """For `zipfile`, which looks for the list at the end and then for one member after the other.

    Args:
        url: of the object.

    Raises:
        OSError: if there is none, or it cannot be read.
    """

    def __init__(self, url: str) -> None:
        super().__init__()
        self._storage, self._name = place_of(url)
        self._size, self._at = self._storage.size(self._name), 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
        count = max(0, min(len(buffer), self._size - self._at))
        if count:
            buffer[:count] = self._storage.read_range(self._name, self._at, count)
        self._at += count
        return count


def opened(url: str) -> io.BufferedReader:
    """That file, with what was read at once kept."""
    return io.BufferedReader(RemoteFile(url), AT_ONCE)
