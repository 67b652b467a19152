"""How many samples are scored, so that a scoring is expected to end in time."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from bigtrain.runtime.world import World

TIMED = 2  # batches, of which the faster one counts
_log = logging.getLogger(__name__)


class TimeBudget:
    """Fewer samples where the time does not suffice for all: 1, 2 or 5 times a power of ten, so that names compare.

    It never gives more than it gave before: after a hold-up the scores of a process do not change their names twice.

    Args:
        minutes: that a scoring may take.
        num: samples that are wanted.
        least: samples without which there are no scores.
        batch_size: images that a rank makes at a time.
        world: of the ranks, which all come to the same number.
    """

    def __init__(self, minutes: float, num: int, least: int, batch_size: int, world: World) -> None:
        self.minutes, self.num, self.batch_size, self.world = minutes, num, batch_size, world
        self.least = _rounded_up(least)
        #: Seconds that the scoring before took beyond its batches: metrics are computed, statistics loaded.
        self._beyond = 0.0

    @contextmanager
    def scoring(self, make: Callable[[np.ndarray], object]) -> Iterator[int]:
        """How many samples to score inside the block, from the time that some batches take.

        Args:
            make: makes and measures the batch of these sample indices; the first may take longer than the others.
        """
        begun = time.monotonic()
        seconds = [self._seconds(make, number) for number in range(1 + TIMED)]
        spent = time.monotonic() - begun
        told = self.world.gather([spent, min(seconds[1:]), self._beyond])
        spent, batch, beyond = (max(column) for column in zip(*told, strict=True))  # the slowest rank's
        self._shrink(60 * self.minutes - spent - beyond, batch)
        yield self.num
        self._beyond = max(0.0, time.monotonic() - begun - spent - batch * self._rounds(self.num))

    def _seconds(self, make: Callable[[np.ndarray], object], number: int) -> float:
        begun = time.monotonic()
        make(np.arange(number * self.batch_size, (number + 1) * self.batch_size))
        return time.monotonic() - begun

    def _rounds(self, num: int) -> int:
        return math.ceil(num / (self.batch_size * self.world.size))

    def _shrink(self, left: float, batch: float) -> None:
        """Takes so many samples that their batches need at most the seconds that are left."""
        wanted = batch * self._rounds(self.num)
        if wanted <= left:
            return
        before = self.num
        most = int(max(0.0, left) / batch) * self.batch_size * self.world.size
        self.num = min(before, max(rounded_down(most), self.least))
        if self.num < before and self.world.is_first:
            _log.warning(
                "evaluation.max_minutes (=%g) is not enough for %d samples, which take %.3g minutes: from now on %d "
                "are scored, and the scores' names say so",
                self.minutes,
                before,
                (60 * self.minutes - left + wanted) / 60,
                self.num,
            )


def rounded_down(most: int) -> int:
    """The largest of 1, 2, 5, 10, 20, 50, 100 … that is not larger; 0 if there is none."""
    if most < 1:
        return 0
    power = 10 ** (len(str(most)) - 1)
    return next(factor for factor in (5, 2, 1) if factor * power <= most) * power


def _rounded_up(least: int) -> int:
    """The smallest of them that is not smaller than `least`, which is at least 1."""
    below = rounded_down(least)
    return below if below == least else next(n for n in range(least, 10 * least) if rounded_down(n) == n)
