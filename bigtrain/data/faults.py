"""Damaged data: what is set aside, what takes its place, and when it is too much. Never silence."""

from __future__ import annotations

import bisect
import logging
import threading
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple, NoReturn

from bigtrain import randomness

_log = logging.getLogger(__name__)
Place = tuple[int, int]  # shard, sample within it


class Budget(NamedTuple):
    """How much of the data may be damaged before the work with it stops: a share of all samples, and shards."""

    max_sample_share: float = 1e-4
    max_shards: int = 1


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
        self._fatal: TooManyFaultsError | None = None

    def is_clean(self) -> bool:
        """Whether nothing is known to be damaged. Raises as `has`."""
        if self._fatal is not None:
            raise self._fatal
        return not (self.shards or self.samples)

    def has(self, place: Place) -> bool:
        """Whether that sample is known to be damaged.

        Raises:
            TooManyFaultsError: if the budget was exceeded before: nothing is read any more.
        """
        if self._fatal is not None:
            raise self._fatal
        return place[0] in self.shards or place in self.samples

    def add_shard(self, shard: int, error: Exception) -> None:
        """Sets a shard aside.

        Raises:
            TooManyFaultsError: if that is beyond the budget.
        """
        with self._lock:
            self.is_clean()  # or it has ended
            if shard in self.shards:
                return
            share, count = self._sizes[shard] / self._ends[-1], len(self.shards) + 1
            if count > self.max_shards or share > 0.01:
                self._end(
                    f"{error}; with it {count} of {len(self._sizes)} shards are damaged, this one has {share:.2%} of "
                    f"the samples (at most {self.max_shards} may be, of at most 1 % each: max_bad_shards)",
                    error,
                )
            self.shards.add(shard)
        _log.warning("shard set aside as damaged, with its %d samples: %s", self._sizes[shard], error)

    def add_sample(self, place: Place, error: Exception) -> None:
        """Sets a sample aside.

        Raises:
            TooManyFaultsError: if that is beyond the budget.
        """
        with self._lock:
            if self.has(place):
                return
            count = len(self.samples) + 1
            if count > (allowed := self._samples_allowed):
                self._end(
                    f"{error}; with it {count} of {self._ends[-1]} samples are damaged, at most {allowed} may be "
                    f"(max_bad_samples = {self.max_sample_share:g})",
                    error,
                )
            self.samples.add(place)
        _log.warning("sample set aside as damaged: %s", error)

    def _end(self, text: str, error: Exception) -> NoReturn:
        """What is beyond the budget is not noted: a checkpoint of another thread must not let it pass."""
        remedy = "Mend the data, or look for more with `bigtrain shards verify`"
        self._fatal = TooManyFaultsError(f"{text}. {remedy}")
        raise self._fatal from error

    @property
    def damaged(self) -> int:
        """Samples that are known to be damaged, those of damaged shards with them."""
        single = sum(shard not in self.shards for shard, _ in self.samples)
        return single + sum(self._sizes[shard] for shard in self.shards)

    @property
    def allowed(self) -> int:
        """The most that `damaged` can be within the budget."""
        shards = sorted((size for size in self._sizes if size <= 0.01 * self._ends[-1]), reverse=True)
        return self._samples_allowed + sum(shards[: self.max_shards])

    @property
    def _samples_allowed(self) -> int:
        return int(self.max_sample_share * self._ends[-1])

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
        """The reverse of `state`: what was set aside stays so, also if it was mended meanwhile."""
        self.shards = set(state["shards"])
        self.samples = {(shard, sample) for shard, sample in state["samples"]}
        if self.shards or self.samples:
            _log.warning("set aside as damaged before: %d shards, %d samples", len(self.shards), len(self.samples))
