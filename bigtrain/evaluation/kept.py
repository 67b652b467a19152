"""Samples that are kept for the metrics that sums do not serve: features, labels and pixels, by global index."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.distributed import all_reduce

from bigtrain.evaluation.statistics import Sums
from bigtrain.randomness import uniform

KEPT = 50_000  # features, at most
PIXEL_BYTES = 2**26  # of images


def kept_images(shape: Sequence[int]) -> int:
    """How many uint8 images of a shape [c, h, w] are kept: 64 MiB, 21845 of 32² in colour."""
    return min(KEPT, max(2, PIXEL_BYTES // int(np.prod(shape))))


class Kept(Sums):
    """The rows of the first samples by global index. Each sample is written by one rank and 0 on all others.

    So the sum over ranks is what has to be gathered, in order and to the bit, however unevenly it is spread; and parts
    merge as other sums do.

    Args:
        limit: samples that are kept: those whose index is below it.
        shape: of a row.
        dtype: of a row.
    """

    count: Tensor
    rows: Tensor
    labels: Tensor

    def __init__(self, limit: int, shape: Sequence[int], dtype: torch.dtype) -> None:
        super().__init__()
        self.add_sum("count")
        self._add_rows("rows", (limit, *shape), dtype)
        self._add_rows("labels", (limit,), torch.int64)  # 0 without labels

    def _add_rows(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        """torchmetrics keeps a second copy of the initial value: here one number, expanded."""
        self.add_state(name, torch.zeros((), dtype=dtype).expand(shape), dist_reduce_fx="sum")
        setattr(self, name, torch.zeros(shape, dtype=dtype))

    def write(self, rows: Tensor, labels: Tensor | None, indices: Tensor) -> None:
        """Keeps rows [n, *shape] and labels [n] of the samples with these global indices, int64 [n]."""
        kept = indices < len(self.rows)
        self.rows[indices[kept]] = rows[kept].to(self.rows)
        if labels is not None:
            self.labels[indices[kept]] = labels[kept].to(self.labels)
        self.count += kept.sum()

    def add_ranks(self) -> None:
        """In place: there is no room for the copies that torchmetrics would make."""
        for name in self.metric_state:
            all_reduce(getattr(self, name))


class KeptFeatures(Kept):
    """Features, float32 [limit, d], and labels."""

    def __init__(self, limit: int, dim: int) -> None:
        super().__init__(limit, (dim,), torch.float32)

    def update(self, features: Tensor, labels: Tensor | None, indices: Tensor) -> None:
        self.write(features, labels, indices)


class KeptImages(Kept):
    """Images, uint8 [limit, c, h, w], and labels."""

    def __init__(self, limit: int, shape: Sequence[int]) -> None:
        super().__init__(limit, shape, torch.uint8)

    def update(self, images: Tensor, labels: Tensor | None, indices: Tensor) -> None:
        self.write(images, labels, indices)


class KeptDistances(Kept):
    """A number of each sample, float64 [limit]."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit, (), torch.float64)

    def update(self, distances: Tensor, indices: Tensor) -> None:
        self.write(distances, None, indices)


class Choice:
    """At most `limit` rows of a stream of unknown length, each with the same chance: those of the lowest numbers.

    The number of row i is drawn at (seed 0, "kept", i), so the choice does not depend on how the stream is cut, and a
    smaller one is part of a larger. (The first rows would not do: shards may be sorted by class.)

    Args:
        limit: rows that are kept.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.parts: list[tuple[NDArray[np.int64], Tensor, Tensor]] = []  # indices, rows, labels

    def update(self, indices: NDArray[np.int64], rows: Tensor, labels: Tensor) -> None:
        self.parts.append((indices, rows.cpu(), labels.cpu()))
        if sum(len(part[0]) for part in self.parts) > 1.25 * self.limit + 1024:
            self._cut()

    def _cut(self) -> None:
        indices = np.concatenate([part[0] for part in self.parts])
        lowest = np.argsort(uniform(0, "kept", indices)[:, 0], kind="stable")[: self.limit]
        places = lowest[np.argsort(indices[lowest])]
        rows, labels = (torch.cat(some)[places] for some in list(zip(*self.parts, strict=True))[1:])
        self.parts = [(indices[places], rows, labels)]

    def rows_and_labels(self) -> tuple[Tensor, Tensor]:
        """In order of index."""
        self._cut()
        return self.parts[0][1:]
