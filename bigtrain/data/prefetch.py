"""Fetches whole shards into the node's cache before they are needed, under a budget of bytes."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from bigtrain.data.fetch import Fetcher
from bigtrain.data.order import SampleOrder
from bigtrain.schedules import Schedule

_log = logging.getLogger(__name__)
PATIENCE = 30.0  # seconds after which a shard that could not be fetched is tried again
NEEDS = 2_000  # shards that a plan looks at, at most
IDLE_STRIDE = 4_096  # images from one plan to the next, while there is nothing to fetch
NEAR = 100_000  # images before a resolution begins, from which on its shards are fetched
Need = tuple[int, int]  # resolution, shard


class Prefetcher:
    """Threads that fetch the next shards of an order.

    What cannot be fetched is left to the reader, who reads by ranges and knows what to do about errors.

    Args:
        fetcher: brings shards into its cache.
        order: says which are next.
        schedule: says at which resolution; the shards of the next one are fetched before it begins.
        max_bytes: of the shards that are needed next and held at the same time.
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
        self._pool = ThreadPoolExecutor(threads + 1, thread_name_prefix="prefetch")
        self._queue: deque[Need] = deque()  # planned, not begun
        self._under_way = 0
        self._not_before: dict[Need, float] = {}
        self._plan_at: int | None = 0  # the global index from which a new plan is made; None while one is made
        self._lock, self._closed = threading.Lock(), False

    def advance(self, g: int) -> None:
        """The training is about to read global index g. Costs nothing most of the time: plans are made by a thread."""
        with self._lock:
            if not self._closed and self._plan_at is not None and g >= self._plan_at:
                self._plan_at = None
                self._pool.submit(self._plan, g)

    def _plan(self, g: int) -> None:
        wanted, now = self.wanted(g), time.monotonic()
        shards = self.fetcher.shards
        held = sum(shards.shard_samples[shard] for _, shard in wanted)
        with self._lock:
            self._queue = deque(need for need in wanted if self._not_before.get(need, 0.0) <= now)
            self._plan_at = g + (held // 4 if wanted else IDLE_STRIDE)
        self._begin()

    def _begin(self) -> None:
        """Fetches what is planned, as many at a time as there are threads."""
        with self._lock:
            while self._queue and self._under_way < self.threads and not self._closed:
                need = self._queue.popleft()
                self._under_way += 1
                self._pool.submit(self._fetch, *need)

    def wanted(self, g: int) -> list[Need]:
        """The shards that are needed from global index g on, as (resolution, shard), as many as the budget holds."""
        moment = self.schedule.at(g)
        upcoming = [(g, moment.resolution, self.max_bytes)]
        later_phases = [phase for phase in self.schedule.phases if phase.start > g]
        ends = [phase.start for phase in later_phases if phase.resolution != moment.resolution]
        if ends and ends[0] - g < NEAR:  # the next resolution is near: half of the budget is for it
            later = self.schedule.at(ends[0]).resolution
            upcoming = [(g, moment.resolution, self.max_bytes // 2), (ends[0], later, self.max_bytes // 2)]
        wanted: list[Need] = []
        for start, resolution, budget in upcoming:
            wanted += self._within(start, resolution, budget)
        return wanted

    def _within(self, g: int, resolution: int, budget: int) -> Iterator[Need]:
        seen: set[int] = set()
        shards = len(self.fetcher.shards.shard_samples)
        for shard in islice(self.order.read_ahead(g, self.rank, self.world), NEEDS):
            if shard in seen:
                continue
            seen.add(shard)
            place = self.fetcher.shards.locate(resolution, shard)
            budget -= place.info.bytes
            if budget < 0:
                return
            if not place.storage.is_local:
                yield (resolution, shard)
            if len(seen) == shards:
                return

    def _fetch(self, resolution: int, shard: int) -> None:
        try:
            self.fetcher.fetch(resolution, shard)
        except Exception as error:  # of whatever kind: the reader meets it too, and stops or goes on as it should
            _log.info("shard %d at %d pixels was not fetched ahead: %s", shard, resolution, error)
            self.fetcher.faults.count("fetch_failures")
            self._not_before[resolution, shard] = time.monotonic() + PATIENCE
        with self._lock:
            self._under_way -= 1
        self._begin()

    def close(self) -> None:
        with self._lock:
            self._closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)
