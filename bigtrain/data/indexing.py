"""Makes the manifest and the indexes of shards that were made elsewhere, by their headers; the shards stay as they are.

Either all shards are as they must be, or every problem is named and nothing is written.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bigtrain import __version__
from bigtrain.data.labels import LabelRule, class_names
from bigtrain.data.locations import find_shards, only_folder, relative_key
from bigtrain.data.machine import cpus
from bigtrain.data.manifest import MANIFEST_KEY, MANIFEST_VERSION, NATIVE, Manifest, ShardInfo
from bigtrain.data.scanning import Scanned, Spool, scan_shards
from bigtrain.storage import Storage

KIND = "index"  # of the manifest's source
_SHOWN = 20  # problems
_MOST_CLASSES = 100_000  # without being told
_THREADS_PER_CPU = 4  # they wait for the network more than they work


class RefusedShardsError(ValueError):
    """Shards that cannot be indexed.

    Args:
        problems: the first of them, a line each.
        count: of all.
    """

    def __init__(self, problems: list[str], count: int) -> None:
        self.problems, self.count = problems[:_SHOWN], count
        super().__init__(f"{count} problems, nothing was written; the first: {problems[0]}")

    def lines(self) -> list[str]:
        more = f"... and {self.count - len(self.problems):,} more" if self.count > len(self.problems) else ""
        total = f"{self.count:,} problems: nothing was written"
        return [*self.problems, *([more] if more else []), total]


@dataclass(frozen=True)
class Indexed:
    """A manifest that was made.

    Args:
        manifest: of the shards.
        url: where it was written.
        ignored: members that are neither images nor labels, by extension.
        warnings: what is allowed, but should be known.
    """

    manifest: Manifest
    url: str
    ignored: Counter[str]
    warnings: list[str]


def index(
    urls: Sequence[str],
    to: str | None = None,
    *,
    label: str | None = None,
    classes: str | None = None,
    channels: int = 3,
    checksums: bool | None = None,
    workers: int | None = None,
) -> Indexed:
    """Indexes shards as WebDataset and img2dataset write them; their images are cropped and resized when they are read.

    Args:
        urls: folders, single `.tar`s, or patterns with braces such as `data/{0000..0123}.tar`.
        to: URL for the manifest and the indexes; without it the folder, if it is one.
        label: where the labels are: `cls`, `json:FIELD` or `none`; without it in `cls` members, if there are any.
        classes: their number, or a file with a name a line; without it as many as the labels ask for.
        channels: to which the images are converted when they are read, 1 or 3.
        checksums: read all bytes, for SHA-256 and CRC-32; without it if all shards are on this machine.
        workers: threads; without it four for each CPU.

    Raises:
        RefusedShardsError: with the problems of the shards.
        ValueError: if an option is invalid, there are no shards, or `to` holds something else.
        OSError: if a shard cannot be read or the result not be written.
    """
    names = class_names(classes)
    rule = LabelRule.parse(label, tuple(names or ()))
    if rule.member is None and names:
        raise ValueError(f"classes (={classes!r}) need labels, but label is 'none'")
    if channels not in (1, 3) or (workers is not None and workers < 1):
        raise ValueError(f"channels (={channels}) must be 1 or 3, and workers (={workers}) at least 1")
    storage = Storage(to if to is not None else only_folder(urls))
    _check_destination(storage)
    shards = find_shards(urls)
    whole = all(shard.storage.is_local for shard in shards) if checksums is None else checksums
    source = {"kind": KIND, "bigtrain": __version__, "urls": list(urls), "label": str(rule), "checksums": whole}
    with Spool() as spool, ThreadPoolExecutor(workers or _THREADS_PER_CPU * cpus()) as pool:
        scans = scan_shards(shards, rule, whole, spool, pool)
        warnings = _check_all(scans, spool, rule, names)
        infos = [_info(storage, number, scan, spool.read(number)) for number, scan in enumerate(scans)]
        manifest = _manifest(infos, scans, names, channels, source)
        storage.delete([MANIFEST_KEY] if storage.exists(MANIFEST_KEY) else [])  # it would not fit the new indexes
        keys = [shard.index for shard in manifest.shards[NATIVE]]
        list(pool.map(lambda number, key: storage.write(key, spool.read(number)), range(len(keys)), keys))
    manifest.save(storage)
    ignored = sum((scan.ignored for scan in scans), Counter())
    return Indexed(manifest, storage.url, ignored, warnings)


def summary(indexed: Indexed) -> list[str]:
    """Lines that tell what was indexed."""
    manifest = indexed.manifest
    labels = f"{manifest.num_classes} classes" if manifest.classes else "without labels"
    checked = "with checksums" if manifest.source["checksums"] else "without checksums (--checksums reads everything)"
    shards = f"{manifest.samples:,} images in {len(manifest.shard_samples):,} shards"
    lines = [f"{shards}, {labels}, {checked}: {indexed.url}"]
    if indexed.ignored:
        most = [f"{count:,} x .{name}" for name, count in indexed.ignored.most_common(10)]
        more = f" and {len(indexed.ignored) - 10} other kinds" if len(indexed.ignored) > 10 else ""
        lines.append(f"ignored: {', '.join(most)}{more}")
    lines += [f"WARNING: {warning}" for warning in indexed.warnings]
    return [line.encode("utf-8", "backslashreplace").decode() for line in lines]


def _check_destination(storage: Storage) -> None:
    if storage.exists(MANIFEST_KEY) and Manifest.load(storage).source.get("kind") != KIND:
        raise ValueError(
            f"{storage.url!r} holds a {MANIFEST_KEY} of `shards build`, which is not replaced; pass another --to"
        )


def _check_all(scans: list[Scanned], spool: Spool, rule: LabelRule, names: list[str] | None) -> list[str]:
    """What should be known though it is allowed.

    Raises:
        RefusedShardsError: with the problems of single shards, or else with those of all together.
    """
    problems = [problem for scan in scans for problem in scan.problems]
    count = sum(scan.count for scan in scans)
    if not problems:
        problems = _unlike_labels(scans, rule, names) + _same_samples(scans, spool)
        count = len(problems)
    if problems:
        raise RefusedShardsError(problems, count)
    return _same_keys(scans, spool)


def _unlike_labels(scans: list[Scanned], rule: LabelRule, names: list[str] | None) -> list[str]:
    labelled = [scan for scan in scans if scan.labels is not None]
    if not labelled:
        return [f"no sample has a label: {rule.missing()}, but classes are given"] if names else []
    bare = [scan for scan in scans if scan.labels is None]
    found = [
        f"{scan.shard.name}: byte 0: no sample has a label, but those of {labelled[0].shard.name} have" for scan in bare
    ]
    largest = max(max(scan.labels[0]) for scan in labelled if scan.labels)
    if not names and largest >= _MOST_CLASSES:
        found.append(f"a label is {largest}: pass --classes with the number of classes, if they are so many")
    return found


def _same_samples(scans: list[Scanned], spool: Spool) -> list[str]:
    if any(scan.contents is None for scan in scans):
        return []
    twice = _twice([scan.contents for scan in scans if scan.contents is not None])
    return [
        f"{count:,} samples occur twice, with key and image, such as {example}"
        for count, example in _tell(twice, scans, spool)
    ]


def _same_keys(scans: list[Scanned], spool: Spool) -> list[str]:
    twice = _twice([scan.keys for scan in scans if scan.keys is not None])
    return [
        f"{count:,} keys occur in several shards, such as {example}; the samples are taken for different ones"
        for count, example in _tell(twice, scans, spool)
    ]


Twice = tuple[int, list[tuple[int, int]]]  # how many, and for the first the (shard, sample) places


def _twice(hashes: list[NDArray[np.uint64]]) -> Twice:
    """How many values occur more than once over all shards, and where the first of them does."""
    values, counts = np.unique(np.concatenate(hashes), return_counts=True)
    repeated = values[counts > 1]
    if not len(repeated):
        return 0, []
    places = [(shard, int(i)) for shard, found in enumerate(hashes) for i in np.flatnonzero(found == repeated[0])]
    return len(repeated), places


def _tell(twice: Twice, scans: list[Scanned], spool: Spool) -> list[tuple[int, str]]:
    count, places = twice
    if not count:
        return []
    shards = " and ".join(scans[shard].shard.name for shard, _ in places[:2])
    key = spool.get(places[0][0]).keys[places[0][1]]
    return [(count, f"{key!r} in {shards}")]


def _manifest(
    infos: list[ShardInfo], scans: list[Scanned], names: list[str] | None, channels: int, source: dict[str, Any]
) -> Manifest:
    if names is None:  # as many as the labels ask for
        largest = max((max(scan.labels[0]) for scan in scans if scan.labels), default=-1)
        names = [str(label) for label in range(largest + 1)]
    counts = [0] * len(names)
    for scan in scans:
        for label, count in zip(*(scan.labels or ([], [])), strict=True):
            counts[label] += count
    return Manifest(MANIFEST_VERSION, names, channels, counts, {NATIVE: infos}, skipped={}, source=source)


def _info(storage: Storage, number: int, scan: Scanned, index: bytes) -> ShardInfo:
    key, hashed = relative_key(storage, scan.shard), hashlib.sha256(index).hexdigest()
    return ShardInfo(key, f"index/{number:06d}.index.json", scan.samples, scan.bytes, scan.sha256, scan.etag, hashed)
