"""The batches of a training from any moment on, decoded ahead by threads."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from bigtrain import randomness
from bigtrain.data.order import Order
from bigtrain.data.reader import Reader
from bigtrain.schedules import Moment, Schedule

Batch = dict[str, Any]  # images uint8 [n, c, h, w], labels int64 [n], first: the global index of the first image


class Batches:
    """One batch for each step, which holds the images of all its discriminator turns, one after the other.

    The images of the step that begins at `images_seen` are those of global indices images_seen, images_seen + 1, …

    Args:
        reader: of the shards.
        order: which sample each global index is.
        schedule: the resolution and number of images of each step.
        images_seen: where to begin.
        seed: of the flips.
        mirror: whether each image is flipped left to right with probability ½, addressed by its global index.
        threads: that read and decode; a step is read by one of them.
        ahead: steps that are read before they are asked for.
    """

    def __init__(
        self,
        reader: Reader,
        order: Order,
        schedule: Schedule,
        images_seen: int,
        seed: int,
        mirror: bool = False,
        threads: int = 2,
        ahead: int = 4,
    ) -> None:
        self.reader, self.order, self.schedule, self.images_seen = reader, order, schedule, images_seen
        self.seed, self.mirror, self.threads, self.ahead = seed, mirror, threads, ahead
        #: How long the trainer has waited for batches so far.
        self.seconds_waited = 0.0

    def __iter__(self) -> Iterator[Batch]:
        moments = self.schedule.steps(self.images_seen)
        pending: deque[Future[Batch]] = deque()
        pool = ThreadPoolExecutor(self.threads, thread_name_prefix="decode")
        try:
            for moment in moments:
                pending.append(pool.submit(self.batch, moment))
                if len(pending) > self.ahead:
                    yield self._wait(pending.popleft())
            while pending:
                yield self._wait(pending.popleft())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _wait(self, future: Future[Batch]) -> Batch:
        begun = time.perf_counter()
        batch = future.result()
        self.seconds_waited += time.perf_counter() - begun
        return batch

    def batch(self, moment: Moment) -> Batch:
        """The batch of the step that begins at that moment."""
        indices = range(moment.images_seen, moment.images_seen + moment.phase.images_per_step)
        images, labels = self.reader.read([self.order.at(g) for g in indices], moment.resolution)
        if self.mirror:
            flipped = randomness.uniform(self.seed, "mirror", indices)[:, 0] < 0.5
            images[flipped] = np.ascontiguousarray(images[flipped, :, :, ::-1])
        return {"images": torch.from_numpy(images), "labels": torch.from_numpy(labels), "first": moment.images_seen}
