"""Fetches whole shards into the node's cache before they are needed, under a budget of bytes."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator
from itertools import islice

from bigtrain.data.cache import CacheFullError
from bigtrain.data.fetch import Fetcher
from bigtrain.data.order import SampleOrder
from bigtrain.data.shard_set import ShardPlace
from bigtrain.data.threads import Threads
from bigtrain.schedules import Schedule

_log = logging.getLogger(__name__)
PATIENCE = 30.0  # seconds after which a shard that could not be fetched is tried again
NEEDS = 2_000  # shards that a plan looks at, at most
IDLE_STRIDE = 4_096  # images from one plan to the next, while there is nothing to fetch
NEAR = 100_000  # images before a resolution begins, from which on its shards are fetched
Need = tuple[int, int]  # resolution, shard


class Prefetcher:
    """Threads that fetch the shards which an order reads now, and those that it reads next.

    What cannot be fetched is left to the reader, who reads by ranges and knows what to do about errors. So is what the
    cache has no room for: a shard that is still needed never goes for another, or all would be fetched many times over.

    Args:
        fetcher: brings shards into its cache.
        order: says which are next.
        schedule: says at which resolution; the shards of the next one are fetched before it begins.
        max_bytes: of the shards that are held ahead of those which are read now.
        threads: shards that are fetched at the same time.
        rank: of this process,
        world: of so many.
    """

    def __init__(
        self,
        fetcher: Fetcher,
        order: SampleOrder,
        schedule: Schedule,
        max_bytes: int,
        threads: int = 4,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.fetcher, self.order, self.schedule, self.max_bytes = fetcher, order, schedule, max_bytes
        self.rank, self.world, self.threads = rank, world, threads
        self.room = fetcher.cache.max_bytes if fetcher.cache is not None else 0
        self._pool = Threads(threads + 1, "prefetch")
        self._queue: deque[Need] = deque()  # planned, not begun
        self._under_way: set[Need] = set()
        self._not_before: dict[Need, float] = {}
        self._plan_at: int | None = 0  # the global index from which a new plan is made; None while one is made
        self._lock, self._closed = threading.Lock(), False
        if rank == 0:
            self._warn_if_cramped()

    def _warn_if_cramped(self) -> None:
        """Tells if the cache cannot hold what this rank reads at the same time (it does not know of its neighbours)."""
        needed = max(self._open_bytes(resolution) for resolution in self.schedule.resolutions)
        if 0 < self.room < needed:
            count = self.order.open_shards(self.world)
            _log.warning(
                "cache_gib (=%.3g) has room for about %d of the %d shards that are read at the same time; the others "
                "are read by a request for each sample: set cache_gib to %.3g or more, or take fewer lanes",
                self.room / 2**30,
                self.room * count // needed,
                count,
                1.01 * needed / 2**30,  # (rounded)
            )

    def _open_bytes(self, resolution: int) -> int:
        """Bytes of the shards that are read at the same time."""
        shards = self.fetcher.shards
        return shards.total_bytes(resolution) * self.order.open_shards(self.world) // len(shards.shard_samples)

    def advance(self, g: int) -> None:
        """The training is about to read global index g. Costs nothing most of the time: plans are made by a thread."""
        with self._lock:
            if not self._closed and self._plan_at is not None and g >= self._plan_at:
                self._plan_at = None
                self._pool.submit(self._plan, g)

    def _plan(self, g: int) -> None:
        missing, plan_at = [], g + 1
        try:
            wanted, shards = self.wanted(g), self.fetcher.shards
            places = [shards.locate(*need) for need in wanted]
            self.fetcher.pin(places)
            missing = [need for need, place in zip(wanted, places, strict=True) if not self.fetcher.has(place)]
            held = sum(shards.shard_samples[shard] for _, shard in wanted)
            plan_at = g + (held // 4 if wanted else IDLE_STRIDE)
        except Exception:  # the training can do without a plan, and the next one may succeed
            _log.warning("what to fetch ahead could not be planned", exc_info=True)
        now = time.monotonic()
        with self._lock:
            later = {need for need in missing if self._not_before.get(need, 0.0) > now} | self._under_way
            self._queue, self._plan_at = deque(need for need in missing if need not in later), plan_at
        self._begin()

    def _begin(self) -> None:
        """Fetches what is planned, as many at a time as there are threads."""
        with self._lock:
            while self._queue and len(self._under_way) < self.threads and not self._closed:
                need = self._queue.popleft()
                self._under_way.add(need)
                self._pool.submit(self._fetch, *need)

    def wanted(self, g: int) -> list[Need]:
        """The shards to hold from global index g on, as (resolution, shard), as many as the cache has room for."""
        moment = self.schedule.at(g)
        later_phases = [phase for phase in self.schedule.phases if phase.start > g]
        ends = [phase.start for phase in later_phases if phase.resolution != moment.resolution]
        near = bool(ends) and ends[0] - g < NEAR
        ahead = self.max_bytes // 2 if near else self.max_bytes  # half is for the next resolution, if that is near
        needed = list(self._within(g, moment.resolution, self._open_bytes(moment.resolution) + ahead))
        if near:
            needed += self._within(ends[0], self.schedule.at(ends[0]).resolution, ahead)
        if sum(place.info.bytes for _, place in needed) > self.room:
            needed.sort(key=lambda one: not self.fetcher.has(one[1]))  # (the order of need stays otherwise)
        wanted, room = [], self.room
        for need, place in needed:
            room -= place.info.bytes
            if room < 0:
                break
            wanted.append(need)
        return wanted

    def _within(self, g: int, resolution: int, budget: int) -> Iterator[tuple[Need, ShardPlace]]:
        """The shards that are needed from global index g on, as many as the budget holds."""
        seen: set[int] = set()
        shards = sum(count > 0 for count in self.fetcher.shards.shard_samples)  # an empty one is never needed
        for shard in islice(self.order.read_ahead(g, self.rank, self.world), NEEDS):
            if shard in seen:
                continue
            seen.add(shard)
            place = self.fetcher.shards.locate(resolution, shard)
            budget -= place.info.bytes
            if budget < 0:
                return
            if not place.storage.is_local:
                yield (resolution, shard), place
            if len(seen) == shards:
                return

    def _fetch(self, resolution: int, shard: int) -> None:
        try:
            self.fetcher.fetch(resolution, shard)
        except Exception as error:  # of whatever kind: the reader meets it too, and stops or goes on as it should
            _log.info("shard %d at %d pixels was not fetched ahead: %s", shard, resolution, error)
            if not isinstance(error, CacheFullError):  # (then other processes need the room)
                self.fetcher.faults.count("fetch_failures")
            self._not_before[resolution, shard] = time.monotonic() + PATIENCE
        with self._lock:
            self._under_way.discard((resolution, shard))
        self._begin()

    def close(self) -> None:
        with self._lock:
            self._closed = True
        self._pool.close()
