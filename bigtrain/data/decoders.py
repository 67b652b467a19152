"""Processes that decode, for trainers whose interpreter the decoding threads would keep."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import subprocess
import sys
import weakref
from collections.abc import Sequence
from queue import SimpleQueue

import numpy as np
from numpy.typing import NDArray

from bigtrain.data.buffers import SharedBuffers
from bigtrain.data.children import without_signals
from bigtrain.data.decoding import ANSWER, ANY_SIZE, COLUMNS, EXTENSIONS, JOB, receive
from bigtrain.data.manifest import ShardIndex

_log = logging.getLogger(__name__)
File = tuple[str, int]  # path and size


class Decoders:
    """Decodes samples that lie in files of this machine, into shared memory. May be used by many threads at once.

    The processes end with this one, however it ends, and see no signal that is sent to all processes of a job. In the
    place of one that dies nothing is started: its share is left to whoever asks.

    Args:
        processes: at the same time; they are started as they are needed.

    Raises:
        ValueError: if this system cannot share memory so.
    """

    def __init__(self, processes: int) -> None:
        if not hasattr(os, "memfd_create"):
            raise ValueError(f"decode_processes (={processes}) needs Linux: use 0, and decode_threads")
        #: Of the batches that they decode into.
        self.buffers = SharedBuffers()
        self._idle: SimpleQueue[_Process] = SimpleQueue()
        for _ in range(processes):
            self._idle.put(_Process())

    def decode(self, files: Sequence[File], samples: NDArray[np.int64], images: NDArray[np.uint8]) -> list[int]:
        """Decodes samples; returns the positions of those with which something is wrong: whoever asks finds out what.

        Args:
            files: that hold them.
            samples: of them, a row each (see `jobs_of`).
            images: of the batch, uint8 [n, h, w, c], in memory of `buffers`.
        """
        process = self._idle.get()
        try:
            return process.decode(files, samples, images.shape, self.buffers.descriptor(images))
        finally:
            self._idle.put(process)


def jobs_of(
    file: int, positions: Sequence[int], samples: Sequence[int], index: ShardIndex, any_size: bool
) -> NDArray[np.int64]:
    """What is to be decoded of one shard, a row for each sample (see `decoding.COLUMNS`).

    Args:
        file: its number among the files.
        positions: of the images in their batch.
        samples: by number in the shard.
        index: of the shard.
        any_size: whether the images are to be cropped and resized.
    """
    rows = np.empty((len(samples), len(COLUMNS)), np.int64)
    rows[:, 0], rows[:, 1] = file, positions
    rows[:, 2], rows[:, 3] = index.offsets[samples], index.sizes[samples]
    rows[:, 4] = -1 if index.crc32 is None else index.crc32[samples]
    rows[:, 5] = ANY_SIZE if any_size else [EXTENSIONS.index(index.extensions[sample]) for sample in samples]
    return rows


class _Process:
    """One of them, with the socket by which it is asked."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._dead = False

    def decode(
        self, files: Sequence[File], samples: NDArray[np.int64], shape: Sequence[int], descriptor: int
    ) -> list[int]:
        if not self._dead:
            try:
                return self._ask(json.dumps({"files": files, "shape": shape}).encode(), samples.tobytes(), descriptor)
            except (OSError, EOFError) as error:
                self._dead = True
                reason = str(error) or "it died, perhaps for lack of memory"
                _log.warning("a process that decodes is lost (%s): the threads do its work", reason)
        positions: list[int] = samples[:, 1].tolist()
        return positions

    def _ask(self, files: bytes, samples: bytes, descriptor: int) -> list[int]:
        if self._socket is None:
            self._socket = self._start()
        socket.send_fds(self._socket, [JOB.pack(len(files), len(samples))], [descriptor])
        self._socket.sendall(files + samples)
        (count,) = ANSWER.unpack(receive(self._socket, ANSWER.size))
        positions: list[int] = np.frombuffer(receive(self._socket, 8 * count), np.int64).tolist()
        return positions

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        with theirs, without_signals():
            number = theirs.fileno()
            child = subprocess.Popen(
                [sys.executable, "-m", "bigtrain.data.decoding", str(number)],
                stdin=subprocess.DEVNULL,
                pass_fds=[number],
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        weakref.finalize(self, _end, ours, child)
        return ours


def _end(connection: socket.socket, child: subprocess.Popen[bytes]) -> None:
    """Without its socket the process ends; nobody waits for one whose disk does not answer."""
    connection.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(timeout=5)
