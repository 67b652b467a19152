"""Reads back every file of a set of shards, and tells what is wrong with it."""

from __future__ import annotations

import hashlib
import io
import threading
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from bigtrain.data.labels import LabelRule
from bigtrain.data.locations import locate
from bigtrain.data.machine import cpus
from bigtrain.data.manifest import NATIVE, Manifest, ShardIndex, ShardInfo
from bigtrain.data.progress import progress
from bigtrain.data.samples import scan_shard
from bigtrain.storage import Storage

_FORMATS = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP"}
_CANNOT_LIST = ("http://", "https://")


def verify(url: str) -> list[str]:
    """Problems of the shards at a URL, one line each; none if all is good.

    Every shard is compared with the manifest (bytes, SHA-256, samples), with its index (where each image lies, its
    CRC-32, its label), with its likes at other resolutions (keys, labels), and every image is decoded. Shards that were
    indexed without checksums have no SHA-256 and no CRC-32 to compare with.

    Raises:
        ValueError: if there is no manifest, or it is malformed.
    """
    storage = Storage(url)
    manifest = Manifest.load(storage)
    problems = _strays(storage, manifest)
    counts = np.zeros(manifest.num_classes, dtype=np.int64)
    with progress("shards verify", manifest.samples * len(manifest.shards)) as shown:
        done, lock = 0, threading.Lock()

        def count(images: int) -> None:
            nonlocal done
            with lock:
                done += images
                shown.update(done)

        with ThreadPoolExecutor(cpus()) as pool, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow, about images which are then named as problems
            numbers = range(len(manifest.shard_samples))
            for found, counted in pool.map(lambda number: _verify_part(storage, manifest, number, count), numbers):
                problems += found
                counts += counted
    if not problems and counts.tolist() != manifest.class_counts:
        problems.append(f"manifest.json: class_counts are {manifest.class_counts}, the shards have {counts.tolist()}")
    return problems


def summary(url: str) -> str:
    """What `verify` has read, in a line."""
    manifest = Manifest.load(url)
    shards = [shard for group in manifest.shards.values() for shard in group]
    sizes = [str(resolution) for resolution in manifest.resolutions] + ["native"] * (NATIVE in manifest.shards)
    checksums = "" if any(shard.sha256 is None for shard in shards) else " SHA-256, CRC-32,"
    return (
        f"verified: {manifest.samples:,} images at each of the resolutions {', '.join(sizes)} "
        f"in {len(shards)} shards of {sum(shard.bytes for shard in shards):,} bytes: "
        f"sizes,{checksums} tar headers, indexes, decoding, labels and keys are right"
        + ("" if checksums else "; there are no checksums to compare with")
    )


def _strays(storage: Storage, manifest: Manifest) -> list[str]:
    """Tar files that the manifest does not know; plain HTTP cannot list."""
    if storage.url.startswith(_CANNOT_LIST) or any(shard.is_elsewhere for shard in manifest.shards.get(NATIVE, [])):
        return []
    known = {shard.key for shards in manifest.shards.values() for shard in shards}
    found = [key for key, _ in storage.list() if key.endswith(".tar") and key not in known]
    return [f"{key}: is not in the manifest; delete it if nothing else needs it" for key in found]


def _verify_part(
    storage: Storage, manifest: Manifest, number: int, count: Callable[[int], None]
) -> tuple[list[str], np.ndarray]:
    """Problems of the shard of that number at all resolutions, and its samples by class."""
    problems: list[str] = []
    whole: list[tuple[ShardInfo, ShardIndex]] = []
    for resolution in sorted(manifest.shards):
        shard = manifest.shards[resolution][number]
        found, index = _verify_shard(storage, manifest, resolution, shard)
        problems += [f"{shard.key}: {problem}" for problem in found]
        count(shard.samples)
        if index is not None:
            whole.append((shard, index))
    for shard, index in whole[1:]:
        problems += [f"{shard.key}: {problem}" for problem in _unlike(index, *whole[0])]
    labels = whole[0][1].labels if whole else None
    counts = np.zeros(manifest.num_classes, dtype=np.int64)
    if labels is not None and labels.max(initial=-1) < manifest.num_classes:
        counts = np.bincount(labels, minlength=manifest.num_classes)
    return problems, counts


def _verify_shard(
    storage: Storage, manifest: Manifest, resolution: int, shard: ShardInfo
) -> tuple[list[str], ShardIndex | None]:
    """Problems of one shard, and the index that its own content makes; `None` if it cannot be made."""
    problems = []
    try:
        stored = ShardIndex.from_json(storage.read(shard.index))
    except (OSError, ValueError) as error:
        problems.append(f"its index cannot be read: {error}")
        stored = None
    try:
        content = _read(storage, shard)
    except OSError as error:
        return [*problems, f"cannot be read: {error}"], None
    if len(content) != shard.bytes:
        problems.append(f"has {len(content)} bytes, {shard.bytes} in the manifest")
    if shard.sha256 is not None and (sha256 := hashlib.sha256(content).hexdigest()) != shard.sha256:
        problems.append(f"has SHA-256 {sha256}, {shard.sha256} in the manifest: it is not what was written")
    label = manifest.source.get("label")  # where the index found them; what we build has class ids
    rule = LabelRule() if label is None else LabelRule.parse(label, tuple(manifest.classes))
    scan = scan_shard(shard.key, content, rule)
    if (index := scan.index) is None:
        return [*problems, *(problem.removeprefix(f"{shard.key}: ") for problem in scan.problems)], None
    if len(index) != shard.samples:
        problems.append(f"has {len(index)} samples, {shard.samples} in the manifest")
    problems += [] if stored is None else _differences(index, stored)
    problems += _wrong_labels(index, manifest.num_classes)
    problems += _wrong_images(index, content, resolution, manifest.channels)
    return problems, index


def _read(storage: Storage, shard: ShardInfo) -> bytes:
    place = locate(storage, shard)
    return place.storage.read(place.key)


def _differences(index: ShardIndex, stored: ShardIndex) -> list[str]:
    """Columns in which a shard and its index differ, with the first sample of each."""
    if len(index) != len(stored):
        return [f"has {len(index)} samples, {len(stored)} in its index"]
    problems = []
    for column in ("keys", "extensions", "offsets", "sizes", "crc32", "labels"):
        here, there = getattr(index, column), getattr(stored, column)
        if column == "crc32" and there is None:
            continue  # it was indexed without checksums
        if (here is None) != (there is None):
            problems.append("has no labels, its index has" if here is None else "has labels, its index has none")
        elif here is not None:
            wrong = [key for key, a, b in zip(index.keys, here, there, strict=True) if a != b]
            problems += _listed(f"differ from the index in {column}", wrong)
    return problems


def _unlike(index: ShardIndex, other: ShardInfo, other_index: ShardIndex) -> list[str]:
    """How a shard differs from the same one at another resolution."""
    if index.keys != other_index.keys:
        return [f"its keys are not those of {other.key}"]
    if not np.array_equal(_or_none(index.labels), _or_none(other_index.labels)):
        return [f"its labels are not those of {other.key}"]
    return []


def _or_none(labels: np.ndarray | None) -> np.ndarray:
    return np.zeros(0, dtype=np.int64) if labels is None else labels


def _wrong_labels(index: ShardIndex, num_classes: int) -> list[str]:
    if index.labels is None:
        return [f"has no labels, but the manifest has {num_classes} classes"] if num_classes else []
    wrong = [key for key, label in zip(index.keys, index.labels, strict=True) if label >= num_classes]
    return _listed(f"have a label that is none of the manifest's {num_classes} classes", wrong)


def _wrong_images(index: ShardIndex, content: bytes, resolution: int, channels: int) -> list[str]:
    """Images that cannot be decoded, or to something else than the manifest says."""
    faults: dict[str, list[str]] = {}
    for key, extension, offset, size in zip(index.keys, index.extensions, index.offsets, index.sizes, strict=True):
        if fault := _image_fault(content[offset : offset + size], extension, resolution, channels):
            faults.setdefault(fault, []).append(key)
    return [line for fault, keys in faults.items() for line in _listed(fault, keys)]


def _image_fault(content: bytes, extension: str, resolution: int, channels: int) -> str | None:
    mode = "L" if channels == 1 else "RGB"
    try:
        with Image.open(io.BytesIO(content), formats=[_FORMATS[extension]]) as image:
            if resolution != NATIVE and (image.size, image.mode) != ((resolution, resolution), mode):
                return f"are {image.width}x{image.height} {image.mode}, not {resolution}x{resolution} {mode}"
            image.load()
    except Exception as error:  # whatever Pillow meets in a damaged file
        return f"cannot be decoded ({type(error).__name__})"
    return None


def _listed(what: str, keys: Iterable[str]) -> list[str]:
    """A line that names the first of these samples; none without any."""
    found = list(keys)
    return [f"{len(found)} samples {what}, first {found[0]}"] if found else []
