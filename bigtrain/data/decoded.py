"""Decoded images kept in memory, for data that is small enough: the second epoch of Fashion-MNIST decodes nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Read = tuple[NDArray[np.uint8], NDArray[np.int64]]


class DecodedImages:
    """All samples of one resolution, as they are read for the first time. May be used by many threads at once.

    Args:
        shard_samples: number of samples of each shard.
        channels: of the images.
        resolution: of the images.
    """

    def __init__(self, shard_samples: Sequence[int], channels: int, resolution: int) -> None:
        self._starts = np.concatenate(([0], np.cumsum(shard_samples)))
        samples = int(self._starts[-1])
        self._images = np.empty((samples, resolution, resolution, channels), dtype=np.uint8)  # paged in as it fills
        self._labels = np.zeros(samples, dtype=np.int64)
        self._known = np.zeros(samples, dtype=bool)

    @staticmethod
    def size(samples: int, channels: int, resolution: int) -> int:
        """Bytes that all samples take."""
        return samples * (channels * resolution**2 + 9)

    def find(self, places: Sequence[tuple[int, int]]) -> Read | None:
        """Images and labels at (shard, sample) places, if all are there."""
        rows = self._rows(places)
        return (self._images[rows], self._labels[rows]) if self._known[rows].all() else None

    def keep(self, places: Sequence[tuple[int, int]], images: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
        rows = self._rows(places)
        self._images[rows], self._labels[rows] = images, labels
        self._known[rows] = True  # last: another thread may look at any time

    def _rows(self, places: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
        pairs = np.asarray(places, dtype=np.int64).reshape(-1, 2)
        return self._starts[pairs[:, 0]] + pairs[:, 1]
