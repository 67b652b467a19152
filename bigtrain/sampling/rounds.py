"""Many samples by many processes, which hand them in to the first one, in order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from bigtrain.runtime.world import World
from bigtrain.sampling.generate import Sampler


class Batch(NamedTuple):
    """Samples that were made together."""

    indices: Sequence[int]
    images: Tensor  # uint8 [n, c, h, w], on the host
    labels: Tensor  # int64 [n]


def rounds(sampler: Sampler, indices: Sequence[int], world: World) -> Iterator[list[Batch]]:
    """The samples: a round gives rank 0 a batch of each rank, in the order of the indices, and the others nothing.

    Rank r makes the batches r, r + W, …. They are those that one process makes, padded alike, so that an image does not
    depend on the number of ranks. All ranks call this together.
    """
    starts = range(0, len(indices), sampler.batch)
    for first in range(0, len(starts), world.size):
        mine = min(first + world.rank, len(starts) - 1)  # where none is left, the last one again: all ranks hand in
        images, _ = sampler(_part(sampler, indices, starts[mine]))
        padding = images.new_zeros(sampler.batch - len(images), *images.shape[1:])
        handed_in = world.collect(torch.cat((images, padding)))
        parts = [_part(sampler, indices, start) for start in starts[first : first + world.size]]
        yield [
            Batch(part, made[: len(part)], sampler.labels(part)) for part, made in zip(parts, handed_in, strict=False)
        ]


def _part(sampler: Sampler, indices: Sequence[int], start: int) -> Sequence[int]:
    return indices[start : start + sampler.batch]
