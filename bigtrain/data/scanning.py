"""Reads shards that were made elsewhere, many at a time, and keeps in memory only what must be compared over all."""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bigtrain.data.archives import stored_archive
from bigtrain.data.labels import LabelRule
from bigtrain.data.locations import Location
from bigtrain.data.manifest import ShardIndex
from bigtrain.data.progress import progress
from bigtrain.data.samples import scan_shard


class Spool:
    """Indexes in a temporary folder, until it is known that all shards are right."""

    def __enter__(self) -> Spool:
        self._folder = tempfile.TemporaryDirectory(prefix="bigtrain-")
        return self

    def __exit__(self, *error: object) -> None:
        self._folder.cleanup()

    def _path(self, number: int) -> Path:
        return Path(self._folder.name) / f"{number}.json"

    def put(self, number: int, index: ShardIndex) -> None:
        self._path(number).write_bytes(index.to_json())

    def read(self, number: int) -> bytes:
        return self._path(number).read_bytes()

    def get(self, number: int) -> ShardIndex:
        return ShardIndex.from_json(self.read(number))


@dataclass(frozen=True)
class Scanned:
    """What is kept in memory of a shard; its index is in the spool."""

    shard: Location
    samples: int = 0
    bytes: int = 0
    etag: str | None = None
    sha256: str | None = None
    labels: tuple[list[int], list[int]] | None = None  # class ids and their counts
    keys: NDArray[np.uint64] | None = None  # hashes
    contents: NDArray[np.uint64] | None = None  # hashes of key, size and CRC-32
    problems: tuple[str, ...] = ()
    count: int = 0
    ignored: Counter[str] = field(default_factory=Counter)


def scan_shards(
    shards: list[Location], rule: LabelRule, whole: bool, spool: Spool, pool: ThreadPoolExecutor
) -> list[Scanned]:
    """What all shards have, in order, with their progress; how many images there will be is told by the first shard.

    Args:
        shards: where they lie.
        rule: where the labels are.
        whole: read all bytes, for checksums.
        spool: for the indexes.
        pool: of threads.
    """

    def scan(number: int) -> Scanned:
        return _scan(spool, number, shards[number], rule, whole)

    scans = [scan(0)]
    each = max(scans[0].samples, 1)
    with progress("shards index (estimated)", each * len(shards), each) as shown:
        for found in pool.map(scan, range(1, len(shards))):
            scans.append(found)
            shown.update(each * len(scans))
    return scans


def _scan(spool: Spool, number: int, shard: Location, rule: LabelRule, whole: bool) -> Scanned:
    try:
        version = shard.storage.stat(shard.key)
    except FileNotFoundError as error:
        return Scanned(shard, problems=(str(error),), count=1)
    archive = stored_archive(shard.storage, shard.key, version, whole)
    scan = scan_shard(shard.name, archive, rule, whole)
    if scan.index is None:
        return Scanned(shard, problems=tuple(scan.problems), count=scan.count)
    if not len(scan.index):
        text = f"{shard.name}: byte 0: an empty shard, without samples; leave it out"
        return Scanned(shard, problems=(text,), count=1)
    index = scan.index
    spool.put(number, index)
    return Scanned(
        shard,
        samples=len(index),
        bytes=version.size,
        etag=shard.etag(version),
        sha256=archive.sha256() if whole else None,
        labels=None if index.labels is None else _counted(index.labels),
        keys=_hashes(index.keys),
        contents=None if index.crc32 is None else _hashes(zip(index.keys, index.sizes, index.crc32, strict=True)),
        ignored=scan.ignored,
    )


def _counted(labels: NDArray[np.int64]) -> tuple[list[int], list[int]]:
    ids, counts = np.unique(labels, return_counts=True)
    return ids.tolist(), counts.tolist()


def _hashes(values: Iterable[object]) -> NDArray[np.uint64]:
    digests = (hashlib.blake2b(str(value).encode("utf-8", "surrogateescape"), digest_size=8) for value in values)
    return np.frombuffer(b"".join(digest.digest() for digest in digests), dtype=np.uint64)
