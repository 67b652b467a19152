"""The batches of a training from any moment on, decoded ahead by threads."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bigtrain import randomness
from bigtrain.data.order import SampleOrder
from bigtrain.data.prefetch import Prefetcher
from bigtrain.data.reader import Reader
from bigtrain.data.threads import Threads
from bigtrain.schedules import Moment, Schedule

#: What is read at once, so that small steps cost no more than large ones.
BLOCK_IMAGES, BLOCK_BYTES = 256, 16 << 20
Batch = dict[str, Any]  # images uint8 [n, c, h, w], labels int64 [n], first: the global index of the step's first image


def to_tensor(images: NDArray[np.uint8]) -> Tensor:
    """Images as they are decoded, [n, h, w, c], as a tensor [n, c, h, w] of the same memory."""
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def mirror(images: NDArray[np.uint8], chosen: NDArray[np.int64]) -> None:
    """Flips the chosen ones of images [n, h, w, c] left to right, in place."""
    pixels = images.view(np.dtype((np.void, images.shape[-1])))[..., 0]  # whole pixels: three times as fast as channels
    for position in chosen:
        pixels[position] = pixels[position, :, ::-1].copy()


class Batches:
    """One batch for each step, which holds the images of all its discriminator turns, one after the other.

    The images of the step that begins at `images_seen` are those of global indices images_seen, images_seen + 1, …; the
    i-th of them is read by rank i mod `world`.

    Args:
        reader: of the shards.
        order: which sample each global index is.
        schedule: the resolution and number of images of each step.
        images_seen: where to begin.
        seed: of the flips.
        mirror: whether each image is flipped left to right with probability ½, addressed by its global index.
        threads: that read and decode; a block of steps is read by one of them.
        ahead: steps that are read before they are asked for, at least; small ones are read several at once.
        prefetcher: fetches whole shards before they are read; it is closed with the iteration.
        rank: of this process,
        world: of so many; it must divide the batch size.
    """

    def __init__(
        self,
        reader: Reader,
        order: SampleOrder,
        schedule: Schedule,
        images_seen: int,
        seed: int,
        mirror: bool = False,
        threads: int = 2,
        ahead: int = 4,
        prefetcher: Prefetcher | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        for phase in schedule.phases:
            if phase.batch_size % world:
                raise ValueError(
                    f"batch_size (={phase.batch_size}) at {phase.resolution}² must be a multiple of the number of "
                    f"processes (={world})"
                )
        self.reader, self.order, self.schedule, self.images_seen = reader, order, schedule, images_seen
        self.seed, self.mirror, self.threads, self.ahead = seed, mirror, threads, ahead
        self.prefetcher, self.rank, self.world = prefetcher, rank, world
        #: How long the trainer has waited for batches so far.
        self.seconds_waited = 0.0
        #: Asked while a batch is late: whether to end without it.
        self.stopping: Callable[[], bool] = lambda: False

    @property
    def counts(self) -> dict[str, int]:
        """What happened to the data so far: cache hits and misses, samples read again, substitutions, requests, …"""
        return {**self.reader.faults.counts, **self.reader.shards.requests}

    def __iter__(self) -> Iterator[Batch]:
        pending: deque[Future[list[Batch]]] = deque()
        steps_pending = 0
        pool = Threads(self.threads, "decode")
        try:
            for block in self._blocks():
                if self.prefetcher is not None:
                    self.prefetcher.advance(block[0].images_seen)
                pending.append(pool.submit(self.block, block))
                steps_pending += len(block)
                while steps_pending > self.ahead and len(pending) > self.threads:
                    if not self._wait(pending[0]):
                        return
                    batches = pending.popleft().result()
                    steps_pending -= len(batches)
                    yield from batches
            while pending and self._wait(pending[0]):
                yield from pending.popleft().result()
        finally:
            if self.prefetcher is not None:
                self.prefetcher.close()
            pool.close()

    def _blocks(self) -> Iterator[list[Moment]]:
        """Steps that are read at once: of one phase, and few enough images of this rank."""
        block: list[Moment] = []
        for moment in self.schedule.steps(self.images_seen):
            phase = moment.phase
            size = (len(block) + 1) * phase.images_per_step // self.world
            most = min(BLOCK_IMAGES, BLOCK_BYTES // (self.reader.shards.channels * phase.resolution**2))
            if block and (phase is not block[0].phase or size > most):
                yield block
                block = []
            block.append(moment)
        if block:
            yield block

    def _wait(self, future: Future[list[Batch]]) -> bool:
        """Until a batch is there; False if the training is to stop before it is."""
        begun = time.perf_counter()
        while not wait([future], timeout=0.5).done:
            if self.stopping():
                return False
        self.seconds_waited += time.perf_counter() - begun
        return True

    def batch(self, moment: Moment) -> Batch:
        """This rank's part of the batch of the step that begins at that moment."""
        return self.block([moment])[0]

    def block(self, moments: Sequence[Moment]) -> list[Batch]:
        """The same for steps of one phase that follow each other."""
        first, phase = moments[0].images_seen, moments[0].phase
        indices = range(first + self.rank, first + len(moments) * phase.images_per_step, self.world)
        images, labels = self.reader.read(self.order.pairs(indices), phase.resolution, indices)
        if self.mirror:
            mirror(images, np.flatnonzero(randomness.uniform(self.seed, "mirror", indices)[:, 0] < 0.5))
        each = phase.images_per_step // self.world
        parts = zip(to_tensor(images).split(each), torch.from_numpy(labels).split(each), moments, strict=True)
        return [{"images": some, "labels": of, "first": moment.images_seen} for some, of, moment in parts]
