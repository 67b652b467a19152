"""The bytes of samples: from the shard's file, from this node's cache, or by ranges from the object store."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from threading import Lock

from bigtrain.data.cache import CacheFullError, DiskFullError, ShardCache
from bigtrain.data.faults import Faults
from bigtrain.data.files import InFile, InMemory, Readable, ShardError
from bigtrain.data.shard_set import ShardPlace, ShardSet
from bigtrain.data.threads import Threads
from bigtrain.storage import ChangedError, Storage, TruncatedError

RANGE = 8 << 20  # bytes of one request when a whole shard is fetched
PARALLEL = 10  # range reads of a shard without checksums at the same time, as obstore has them for others
#: What tells of a shard that is another, rather than of a store that fails.
NOT_THE_SHARD = (FileNotFoundError, ChangedError, TruncatedError)
Bytes = bytes | memoryview


class Fetcher:
    """Reads shards, wherever they are. May be used by many threads at once.

    Args:
        shards: that are read.
        faults: counts `cache_hits`, `cache_misses` (samples) and `fetched` (shards).
        cache: for shards in an object store; None to read samples by ranges always.
        open_files: how many shards are kept open.
        memory_bytes: for whole shards if the cache's disk is full.
    """

    def __init__(
        self,
        shards: ShardSet,
        faults: Faults,
        cache: ShardCache | None = None,
        open_files: int = 512,
        memory_bytes: int = 256 << 20,
    ) -> None:
        self.shards, self.faults, self.cache = shards, faults, cache
        self._open: OrderedDict[str, Readable] = OrderedDict()
        self._in_memory: OrderedDict[str, InMemory] = OrderedDict()
        self._hasty = lru_cache(maxsize=None)(_hasty)
        self._limits, self._lock = (open_files, memory_bytes), Lock()
        self._pinned: frozenset[str] = frozenset()
        self._unchanged: set[str] = set()  # so far as was asked

    def contents(self, resolution: int, shard: int, offsets: Sequence[int], sizes: Sequence[int]) -> Sequence[Bytes]:
        """The bytes [offset, offset + size) of a shard for each pair.

        Raises:
            ShardError: if the shard is missing, or not the one of the manifest.
            OSError: if its store cannot be reached.
        """
        place = self.shards.locate(resolution, shard)
        try:
            file = self._find(place)
            if file is None:
                self.faults.count("cache_misses", len(offsets))
                return self._ranges(place, offsets, sizes)
            if not place.storage.is_local:
                self.faults.count("cache_hits", len(offsets))
            return [file.read(offset, size) for offset, size in zip(offsets, sizes, strict=True)]
        except NOT_THE_SHARD as error:
            raise ShardError(str(error)) from error

    def is_near(self, place: ShardPlace) -> bool:
        """Whether no object store has to be asked for a shard."""
        return place.storage.is_local or self._find(place) is not None

    def file(self, place: ShardPlace) -> Path | None:
        """The file on this machine that holds a shard, if one does."""
        try:
            found = self._find(place)
        except (*NOT_THE_SHARD, ShardError):
            return None  # who reads it is told why
        return found.path if isinstance(found, InFile) else None

    def has(self, place: ShardPlace) -> bool:
        """Whether a whole shard is in the cache, or in memory. Costs less than `is_near`, and is no use of it."""
        return place.identity in self._in_memory or (self.cache is not None and self.cache.has(place.identity))

    def pin(self, places: Iterable[ShardPlace]) -> None:
        """Names all shards that are going to be needed: no other takes their room."""
        self._pinned = frozenset(place.identity for place in places)
        if self.cache is not None:
            self.cache.pin(self._pinned)

    def fetch(self, resolution: int, shard: int) -> None:
        """Brings a whole shard into the cache.

        Raises:
            CacheFullError: if there is no room for it beside what is pinned.
            ShardError, OSError: as `contents`.
        """
        place = self.shards.locate(resolution, shard)
        if self.cache is None or self.is_near(place):
            return
        name, info = place.identity, place.info
        hasty = place._replace(storage=self._hasty(place.storage))

        def download(descriptor: int) -> None:
            self._count_fetched(place)
            _download(hasty, descriptor)

        try:
            self._keep(name, self.cache.fetch(name, info.bytes, info.sha256, download))
        except DiskFullError:
            self._keep_in_memory(place)
        except NOT_THE_SHARD as error:
            raise ShardError(str(error)) from error

    def _count_fetched(self, place: ShardPlace) -> None:
        self.faults.count("fetched")
        self.faults.count("fetched_bytes", place.info.bytes)

    def drop(self, resolution: int, shard: int) -> None:
        """Forgets what is held of a shard, so that it is read anew."""
        name = self.shards.locate(resolution, shard).identity
        with self._lock:
            self._open.pop(name, None)
            self._in_memory.pop(name, None)
            self._unchanged.discard(name)
        if self.cache is not None:
            self.cache.drop(name)

    def _find(self, place: ShardPlace) -> Readable | None:
        name = place.identity
        with self._lock:
            if (file := self._open.get(name) or self._in_memory.get(name)) is not None:
                if name in self._open:
                    self._open.move_to_end(name)
                return file
        if place.storage.is_local:
            return self._keep(name, InFile(Path(place.name), place.info.bytes))
        found = self.cache.find(name, place.info.bytes) if self.cache is not None else None
        return found and self._keep(name, found)

    def _keep(self, name: str, file: Readable) -> Readable:
        if isinstance(file, InFile):
            with self._lock:
                for old in [key for key, kept in self._open.items() if isinstance(kept, InFile) and kept.removed]:
                    del self._open[old]  # the cache needed its room
                self._open[name] = file
                while len(self._open) > self._limits[0]:
                    self._open.popitem(last=False)
        return file

    def _keep_in_memory(self, place: ShardPlace) -> None:
        """What the disk has no room for; the oldest of it goes, unless it is pinned."""
        size, sha256 = place.info.bytes, place.info.sha256
        with self._lock:
            pinned = sum(len(file.content) for name, file in self._in_memory.items() if name in self._pinned)
        if pinned + size > self._limits[1]:
            raise CacheFullError(f"{place.name} of {size} bytes has no room on the cache's disk, nor in memory")
        self._count_fetched(place)
        content = place.storage.read(place.key, if_match=None if sha256 else place.info.etag)
        if len(content) != size or (sha256 and hashlib.sha256(content).hexdigest() != sha256):
            raise ShardError(f"{place.name} does not have the length and checksum of the manifest")
        file = InMemory(content)
        with self._lock:
            self._in_memory[place.identity] = file
            for name in sorted(self._in_memory, key=self._pinned.__contains__):  # (sorted is stable: the oldest first)
                if sum(len(kept.content) for kept in self._in_memory.values()) <= self._limits[1]:
                    break
                del self._in_memory[name]

    def _ranges(self, place: ShardPlace, offsets: Sequence[int], sizes: Sequence[int]) -> Sequence[Bytes]:
        if (
            place.identity not in self._unchanged
        ):  # before the first use: a shard is set aside from the beginning or not
            check_unchanged(place)
            with self._lock:
                self._unchanged.add(place.identity)
        try:
            return _read_ranges(place, offsets, sizes)
        except TruncatedError:
            check_unchanged(place)  # if it is what it was, the answer was cut and not the shard
            self.faults.count("read_again", len(offsets))
            return _read_ranges(place, offsets, sizes)


def _read_ranges(place: ShardPlace, offsets: Sequence[int], sizes: Sequence[int]) -> Sequence[Bytes]:
    """The bytes [offset, offset + size) of a shard for each pair, by range reads."""
    if place.info.sha256 or place.info.etag is None:
        return place.storage.read_ranges(place.key, offsets, sizes)
    # Without checksums only the ETag tells of a change, and with it a storage reads one range after the other.
    by_offset = sorted(range(len(offsets)), key=offsets.__getitem__)
    share = -(-len(by_offset) // PARALLEL)
    parts = [by_offset[start : start + share] for start in range(0, len(by_offset), share)]

    def read(part: list[int]) -> Sequence[Bytes]:
        wanted = [offsets[i] for i in part], [sizes[i] for i in part]
        return place.storage.read_ranges(place.key, *wanted, if_match=place.info.etag)

    contents = itertools.chain.from_iterable(Threads(PARALLEL, "range").map(read, parts))
    found = dict(zip(by_offset, contents, strict=True))
    return [found[i] for i in range(len(offsets))]


def _hasty(storage: Storage) -> Storage:
    """The same store with little patience: nobody waits for what is fetched ahead, and others could be meanwhile."""
    return storage.hasty(retries=2, seconds=10)


def check_unchanged(place: ShardPlace) -> None:
    """Asks the store whether a shard is still the one of the manifest.

    Raises:
        ShardError: if it is missing, or has another size or ETag.
    """
    try:
        size, etag = place.storage.stat(place.key)
    except FileNotFoundError as error:
        raise ShardError(str(error)) from error
    info = place.info
    if size != info.bytes or (info.sha256 is None and info.etag and etag and etag != info.etag):
        raise ShardError(f"{place.name} was replaced after it was indexed ({size} bytes, {info.bytes} by the manifest)")


def _download(place: ShardPlace, descriptor: int) -> None:
    """Writes a whole shard into a file, by parallel ranges."""
    size, etag = place.info.bytes, None if place.info.sha256 else place.info.etag  # (a copy has another ETag)

    def part(start: int) -> None:
        content = place.storage.read_range(place.key, start, min(RANGE, size - start), if_match=etag)
        os.pwrite(descriptor, content, start)

    Threads(4, "range").map(part, range(0, size, RANGE))
