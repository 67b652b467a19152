"""Memory of batches, used again: fresh memory costs the kernel a tenth of the time that decoding a small jpeg takes."""

from __future__ import annotations

import math
import mmap
import os
import weakref
from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

#: libjpeg-turbo writes past the processor's cache if it may, to memory aligned to 32 bytes: a quarter slower. So here.
MARGIN = 16


class Buffers:
    """Gives arrays whose memory comes back as soon as nobody holds the array, or a tensor made of it, any more.

    May be used by many threads at once.

    Args:
        keep: how many unused ones of a shape are kept.
    """

    def __init__(self, keep: int = 16) -> None:
        self.keep = keep
        self._free: dict[tuple[int, ...], list[NDArray[np.uint8]]] = defaultdict(list)

    def empty(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """A uint8 array of that shape with any content."""
        free = self._free[shape]
        try:
            memory = free.pop()
        except IndexError:
            memory = self._make(shape)
        lent = memory.view()
        weakref.finalize(lent, self._take_back, memory).atexit = False
        return lent

    def _make(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        size = math.prod(shape)
        memory = np.empty(size + 32, dtype=np.uint8)
        start = (MARGIN - memory.ctypes.data) % 32
        return memory[start : start + size].reshape(shape)

    def _take_back(self, memory: NDArray[np.uint8]) -> None:
        free = self._free[memory.shape]
        if len(free) < self.keep:
            free.append(memory)


class SharedBuffers(Buffers):
    """The same in memory that other processes can be given, by its descriptor (Linux only)."""

    def __init__(self, keep: int = 16) -> None:
        super().__init__(keep)
        self._descriptors: dict[int, int] = {}  # by address

    def descriptor(self, array: NDArray[np.uint8]) -> int:
        """Of the memory of an array that `empty` gave."""
        return self._descriptors[array.ctypes.data]

    def _make(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        # Not in /dev/shm, which containers keep small.
        descriptor = os.memfd_create("bigtrain", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, MARGIN + math.prod(shape))
        memory = np.frombuffer(mmap.mmap(descriptor, 0), np.uint8)[MARGIN:].reshape(shape)
        self._descriptors[memory.ctypes.data] = descriptor
        weakref.finalize(memory, self._forget, memory.ctypes.data).atexit = False
        return memory

    def _forget(self, address: int) -> None:
        os.close(self._descriptors.pop(address))
