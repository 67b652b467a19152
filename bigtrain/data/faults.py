"""Damaged data: what is set aside, what takes its place, and when it is too much. Never silence."""

from __future__ import annotations

import bisect
import logging
import threading
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from bigtrain import randomness

_log = logging.getLogger(__name__)
Place = tuple[int, int]  # shard, sample within it


class TooManyFaultsError(OSError):
    """More of the data is damaged than the budget allows: the training stops."""


class Faults:
    """What of the data is damaged, with a budget. May be used by many threads at once.

    A damaged sample, or one of a damaged shard, is replaced by another that only depends on seed, global index and
    attempt, so that a batch keeps its size and a resumed training the same substitutes.

    Args:
        shard_samples: number of samples of each shard.
        seed: of the substitutes.
        max_sample_share: damaged samples, as a share of all; beyond it the training stops.
        max_shards: damaged shards, beyond which the training stops; one with more than a hundredth of all samples
            stops it at once.
    """

    def __init__(
        self, shard_samples: Sequence[int], seed: int, max_sample_share: float = 1e-4, max_shards: int = 1
    ) -> None:
        if not 0 <= max_sample_share <= 1 or max_shards < 0:
            raise ValueError(
                f"max_bad_samples (={max_sample_share}) must be between 0 and 1, and max_bad_shards (={max_shards}) "
                "at least 0"
            )
        self._sizes, self._ends = list(shard_samples), list(accumulate(shard_samples))
        self.seed, self.max_sample_share, self.max_shards = seed, max_sample_share, max_shards
        self.shards: set[int] = set()
        self.samples: set[Place] = set()
        #: What happened so far, by kind.
        self.counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def has(self, place: Place) -> bool:
        """Whether that sample is known to be damaged."""
        return place[0] in self.shards or place in self.samples

    def add_shard(self, shard: int, error: Exception) -> None:
        """Sets a shard aside.

        Raises:
            TooManyFaultsError: if that is beyond the budget.
        """
        with self._lock:
            if shard in self.shards:
                return
            self.shards.add(shard)
        share = self._sizes[shard] / self._ends[-1]
        if len(self.shards) > self.max_shards or share > 0.01:
            raise TooManyFaultsError(
                f"{error}; with it {len(self.shards)} of {len(self._sizes)} shards are damaged, this one has "
                f"{share:.2%} of the samples (at most {self.max_shards} may be, of at most 1 % each: "
                "data.max_bad_shards). Mend the data, or look for more with `bigtrain shards verify`"
            ) from error
        _log.warning("shard set aside, others take the place of its %d samples: %s", self._sizes[shard], error)

    def add_sample(self, place: Place, error: Exception) -> None:
        """Sets a sample aside.

        Raises:
            TooManyFaultsError: if that is beyond the budget.
        """
        with self._lock:
            if place in self.samples:
                return
            self.samples.add(place)
        allowed = int(self.max_sample_share * self._ends[-1])
        if len(self.samples) > allowed:
            raise TooManyFaultsError(
                f"{error}; with it {len(self.samples)} of {self._ends[-1]} samples are damaged, at most {allowed} may "
                f"be (data.max_bad_samples = {self.max_sample_share:g}). Mend the data, or look for more with "
                "`bigtrain shards verify`"
            ) from error
        _log.warning("sample set aside, another takes its place: %s", error)

    def substitute(self, g: int) -> Place:
        """A sound sample (as far as is known) in the place of a damaged one at global index g."""
        for attempt in range(1, 10_000):
            drawn = float(randomness.uniform(self.seed, "substitute", [g], attempt=attempt)[0, 0])
            index = int(drawn * self._ends[-1])
            shard = bisect.bisect_right(self._ends, index)
            place = (shard, index - self._ends[shard] + self._sizes[shard])
            if not self.has(place):
                return place
        raise TooManyFaultsError("nearly all of the data is damaged")

    def count(self, kind: str, times: int = 1) -> None:
        with self._lock:
            self.counts[kind] += times

    def state(self) -> dict[str, Any]:
        """For a checkpoint, as JSON."""
        with self._lock:
            return {"shards": sorted(self.shards), "samples": sorted(self.samples)}

    def load(self, state: dict[str, Any]) -> None:
        """The reverse of `state`."""
        self.shards = set(state["shards"])
        self.samples = {(shard, sample) for shard, sample in state["samples"]}
