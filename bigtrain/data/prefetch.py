"""Fetches whole shards into the node's cache before they are needed, under a budget of bytes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

from bigtrain.data.fetch import Fetcher
from bigtrain.data.order import SampleOrder
from bigtrain.schedules import Schedule

_log = logging.getLogger(__name__)
PATIENCE = 30.0  # seconds after which a shard that could not be fetched is tried again
LOOK_AHEAD = 20_000  # needs of shards that are looked at, at most


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
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="prefetch")
        self._under_way: dict[tuple[int, int], Future[None]] = {}
        self._not_before: dict[tuple[int, int], float] = {}
        self._lock, self._closed = threading.Lock(), False

    def advance(self, g: int) -> None:
        """The training is about to read global index g."""
        with self._lock:
            self._under_way = {need: future for need, future in self._under_way.items() if not future.done()}
            if self._closed or len(self._under_way) >= self.threads:
                return
            now = time.monotonic()
            for need in self.wanted(g):
                if len(self._under_way) >= self.threads:
                    return
                if need not in self._under_way and self._not_before.get(need, 0.0) <= now:
                    self._not_before[need] = now + PATIENCE  # also spares what is there already a look each time
                    self._under_way[need] = self._pool.submit(self._fetch, *need)

    def wanted(self, g: int) -> list[tuple[int, int]]:
        """The shards that are needed from global index g on, as (resolution, shard), as many as the budget holds."""
        moment = self.schedule.at(g)
        upcoming = [(g, moment.resolution, self.max_bytes)]
        later_phases = [phase for phase in self.schedule.phases if phase.start > g]
        ends = [phase.start for phase in later_phases if phase.resolution != moment.resolution]
        if ends and ends[0] - g < LOOK_AHEAD:  # the next resolution is near: half of the budget is for it
            later = self.schedule.at(ends[0]).resolution
            upcoming = [(g, moment.resolution, self.max_bytes // 2), (ends[0], later, self.max_bytes // 2)]
        wanted: list[tuple[int, int]] = []
        for start, resolution, budget in upcoming:
            wanted += self._within(start, resolution, budget)
        return wanted

    def _within(self, g: int, resolution: int, budget: int) -> Iterator[tuple[int, int]]:
        seen: set[int] = set()
        shards = len(self.fetcher.shards.shard_samples)
        for shard in islice(self.order.read_ahead(g, self.rank, self.world), LOOK_AHEAD):
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

    def close(self) -> None:
        with self._lock:
            self._closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)
