"""The bytes of samples: from the shard's file, from this node's cache, or by ranges from the object store."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from threading import Lock

from bigtrain.data.cache import CacheFullError, ShardCache
from bigtrain.data.faults import Faults
from bigtrain.data.files import InFile, InMemory, Readable, ShardError
from bigtrain.data.shard_set import ShardPlace, ShardSet
from bigtrain.storage import ChangedError, Storage, TruncatedError

RANGE = 8 << 20  # bytes of one request when a whole shard is fetched
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

    def fetch(self, resolution: int, shard: int) -> None:
        """Brings a whole shard into the cache.

        Raises:
            ShardError, OSError: as `contents`.
        """
        place = self.shards.locate(resolution, shard)
        if self.cache is None or place.storage.is_local:
            return
        if self._find(place) is not None:
            self.cache.touch(_name(place))
            return
        name, size = _name(place), place.info.bytes
        try:
            hasty = place._replace(storage=self._hasty(place.storage))
            file: Readable = self.cache.fetch(name, size, place.info.sha256, lambda fd: _download(hasty, fd))
        except CacheFullError:
            file = self._keep_in_memory(name, place)
        except NOT_THE_SHARD as error:
            raise ShardError(str(error)) from error
        self.faults.count("fetched")
        self.faults.count("fetched_bytes", size)
        self._keep(name, file)

    def drop(self, resolution: int, shard: int) -> None:
        """Forgets what is held of a shard, so that it is read anew."""
        place = self.shards.locate(resolution, shard)
        name = _name(place)
        with self._lock:
            self._open.pop(name, None)
            self._in_memory.pop(name, None)
            self._unchanged.discard(name)
        if self.cache is not None:
            self.cache.drop(name)

    def _find(self, place: ShardPlace) -> Readable | None:
        name = _name(place)
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

    def _keep_in_memory(self, name: str, place: ShardPlace) -> Readable:
        """What the disk has no room for; the oldest of it goes."""
        size, sha256 = place.info.bytes, place.info.sha256
        if size > self._limits[1]:
            raise CacheFullError(f"{place.name} of {size} bytes has no room on the cache's disk, nor in memory")
        content = place.storage.read(place.key, if_match=None if sha256 else place.info.etag)
        if len(content) != size or (sha256 and hashlib.sha256(content).hexdigest() != sha256):
            raise ShardError(f"{place.name} does not have the length and checksum of the manifest")
        file = InMemory(content)
        with self._lock:
            self._in_memory[name] = file
            while sum(len(kept.content) for kept in self._in_memory.values()) > self._limits[1]:
                self._in_memory.popitem(last=False)
        return file

    def _ranges(self, place: ShardPlace, offsets: Sequence[int], sizes: Sequence[int]) -> Sequence[Bytes]:
        name = _name(place)
        if name not in self._unchanged:  # before the first use, so that a shard is set aside from the beginning or not
            check_unchanged(place)
            with self._lock:
                self._unchanged.add(name)
        etag = None if place.info.sha256 else place.info.etag  # without checksums nothing else tells of a change
        try:
            return place.storage.read_ranges(place.key, list(offsets), list(sizes), if_match=etag)
        except TruncatedError:
            check_unchanged(place)  # if it is what it was, the answer was cut and not the shard
            self.faults.count("read_again", len(offsets))
            return place.storage.read_ranges(place.key, list(offsets), list(sizes), if_match=etag)


def _hasty(storage: Storage) -> Storage:
    """The same store with little patience: nobody waits for what is fetched ahead, and it must not hold up an exit."""
    options = storage.options
    quick = dataclasses.replace(options, retries=min(2, options.retries), retry_seconds=min(10, options.retry_seconds))
    return Storage(storage.url, quick)


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


def _name(place: ShardPlace) -> str:
    """Another one as soon as the shard is another."""
    return hashlib.sha256(f"{place.name}\0{place.version}".encode()).hexdigest()


def _download(place: ShardPlace, descriptor: int) -> None:
    """Writes a whole shard into a file, by parallel ranges."""
    size, etag = place.info.bytes, None if place.info.sha256 else place.info.etag  # (a copy has another ETag)

    def part(start: int) -> None:
        content = place.storage.read_range(place.key, start, min(RANGE, size - start), if_match=etag)
        os.pwrite(descriptor, content, start)

    with ThreadPoolExecutor(4, thread_name_prefix="range") as pool:
        list(pool.map(part, range(0, size, RANGE)))
