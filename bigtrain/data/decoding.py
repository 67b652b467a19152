"""A process of `Decoders`: reads samples from files, checks and decodes them into memory that it shares."""

from __future__ import annotations

import json
import math
import mmap
import os
import socket
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bigtrain.data.buffers import MARGIN
from bigtrain.data.decode import decode, decode_any_size
from bigtrain.data.files import InFile

#: Of a sample of a job (int64): which of the files, which image of the batch, where its bytes are, their CRC-32 (-1 if
#: that is not known), and which of EXTENSIONS it has, or ANY_SIZE if it is to be cropped and resized.
COLUMNS = ("file", "position", "offset", "size", "crc32", "kind")
EXTENSIONS = ("jpg", "png", "webp")
ANY_SIZE = -1
#: Before a job (with the shared memory's descriptor): lengths of its files as JSON and of its samples.
JOB = struct.Struct("=QQ")
#: Before an answer, which is the positions (int64) that are left: their number.
ANSWER = struct.Struct("=Q")
_OPEN_FILES = 512
_SHARED = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)


def receive(connection: socket.socket, size: int) -> bytes:
    """So many bytes.

    Raises:
        EOFError: if the other side has gone.
    """
    content = bytearray(size)
    view = memoryview(content)
    while view:
        if not (count := connection.recv_into(view)):
            raise EOFError
        view = view[count:]
    return bytes(content)


class _Files:
    """The files that were read last, open."""

    def __init__(self) -> None:
        self._open: dict[str, InFile] = {}

    def get(self, path: str, size: int) -> InFile | None:
        if path not in self._open:
            for old in [name for name, file in self._open.items() if file.removed]:
                del self._open[old]  # the cache needed its room
            if len(self._open) >= _OPEN_FILES:
                del self._open[next(iter(self._open))]
            try:
                self._open[path] = InFile(Path(path), size)
            except (OSError, ValueError):
                return None  # the trainer will meet it too, and knows what to do
        return self._open[path]


def _serve(connection: socket.socket, files: _Files) -> None:
    """Does one job, and answers."""
    header, descriptors, *_ = socket.recv_fds(connection, JOB.size, 1)
    if not header:
        raise EOFError
    try:
        header += receive(connection, JOB.size - len(header))
        names, samples = (receive(connection, size) for size in JOB.unpack(header))
        job = json.loads(names)
        shape = tuple(job["shape"])
        with mmap.mmap(descriptors[0], MARGIN + math.prod(shape), _SHARED) as memory:
            left = _decode(
                job["files"], np.frombuffer(samples, np.int64).reshape(-1, len(COLUMNS)), memory, shape, files
            )
    finally:
        os.close(descriptors[0])
    connection.sendall(ANSWER.pack(len(left)) + np.asarray(left, dtype=np.int64).tobytes())


def _decode(
    names: list[tuple[str, int]], samples: NDArray[np.int64], memory: mmap.mmap, shape: tuple[int, ...], files: _Files
) -> list[int]:
    """Decodes the samples; returns the positions of those with which something is wrong."""
    images = np.ndarray(shape, np.uint8, memory, MARGIN)
    opened = [files.get(path, size) for path, size in names]
    left: list[int] = []
    for file, position, offset, size, crc32, kind in samples.tolist():
        try:
            if (shard := opened[file]) is None:
                raise FileNotFoundError
            content = shard.read(offset, size)
            if crc32 >= 0 and zlib.crc32(content) != crc32:
                raise ValueError("damaged")
            if kind == ANY_SIZE:
                decode_any_size(content, images[position])
            else:
                decode(content, EXTENSIONS[kind], images[position])
        except (ValueError, OSError):
            left.append(position)
    return left


def main() -> None:
    """Serves the socket whose descriptor is the argument until its other side is closed."""
    files = _Files()
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        try:
            while True:
                _serve(connection, files)
        except (EOFError, ConnectionError):
            pass


if __name__ == "__main__":
    main()
