"""Builds the pyramid of shards: every image of a source at every resolution, mixed over the shards, resumable."""

from __future__ import annotations

import contextlib
import json
import statistics
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np

from bigtrain import randomness
from bigtrain.data.images import ENCODINGS, Encoding, UnusableImageError
from bigtrain.data.machine import cpus
from bigtrain.data.manifest import MANIFEST_KEY, PLAN_KEY, Manifest
from bigtrain.data.merging import SourceRecord, finished_part, machine_key, merge, numbers_of
from bigtrain.data.parts import PLAN_VERSION, Part, Plan
from bigtrain.data.progress import progress
from bigtrain.data.sources import Skip, Source
from bigtrain.data.workers import Job, terminable, write_parts
from bigtrain.storage import Storage

_SMALLEST, _LARGEST_BY_ITSELF, _LOOKED_AT = 4, 1024, 256


def build(
    source: Source,
    storage: Storage,
    *,
    resolutions: list[int] | None = None,
    samples_per_shard: int = 4096,
    encoding: Encoding = "auto",
    quality: int = 95,
    seed: int = 0,
    workers: int | None = None,
    upscale: bool | None = None,
    part: tuple[int, int] | None = None,
) -> Manifest | None:
    """Writes shards, indexes and, last, the manifest. A build that was interrupted goes on where it stopped.

    The images are shuffled once. Part j of that order becomes shard j at every resolution; an image that is skipped is
    skipped at every one. So keys, order and shard boundaries are equal at all resolutions.

    Args:
        source: of the images.
        storage: to write to.
        resolutions: in pixels, powers of two; without it from 4 up to what the images have.
        samples_per_shard: of every shard but the last, before images are skipped.
        encoding: of the images.
        quality: of jpeg, 1 to 100.
        seed: of the order.
        workers: processes; without it one for each CPU.
        upscale: enlarge images that are smaller than the largest resolution instead of skipping them; without it only
            those of a source whose images all have one size.
        part: I of N, from 1: every N-th shard only and no manifest, which `merge_machines` makes; then returns `None`.

    Raises:
        ValueError: if an option is invalid, the destination holds something else, or no image could be used.
        OSError: if the source cannot be read, the storage not be written, or a worker died.
    """
    _check(samples_per_shard, encoding, quality, workers, source, storage, part)
    plan = Plan(
        version=PLAN_VERSION,
        kind=source.kind,
        fingerprint=source.fingerprint(),
        resolutions=_resolutions(source, resolutions),
        samples_per_shard=samples_per_shard,
        encoding=encoding,
        quality=quality,
        channels=source.channels,
        seed=seed,
        upscale=source.native_resolution is not None if upscale is None else upscale,
    )
    numbers = numbers_of(part, -(-len(source) // samples_per_shard))
    finished = _begin(source, storage, plan, numbers)
    if len(finished) == len(numbers) and storage.exists(machine_key(part) if part else MANIFEST_KEY):
        _say(f"{storage.url} is finished already: nothing to do")
        return Manifest.load(storage) if part is None else None
    with _kept(storage):
        _write_missing(source, storage, plan, numbers, finished, workers or cpus())
    if part is None:
        return merge(storage, plan, SourceRecord.of(source))
    storage.write(machine_key(part), json.dumps({"part": part[0], "of": part[1], "shards": list(numbers)}).encode())
    return None


@contextlib.contextmanager
def _kept(storage: Storage) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the work inside with a word on what is left of it."""
    with terminable():
        try:
            yield
        except KeyboardInterrupt:
            _say(f"stopped; what is finished in {storage.url} is kept: the same command goes on from there")
            raise


def is_build(url: str) -> bool:
    """Whether a build has begun, and perhaps ended, in the folder of that URL."""
    cannot = url.endswith(".tar") or "{" in url or url.startswith(("http://", "https://"))  # nobody builds to these
    return not cannot and Storage(url).exists(PLAN_KEY)


def summary(storage: Storage, manifest: Manifest) -> list[str]:
    """Lines that tell what a finished build has: images, classes, and what was skipped with some names."""
    shards = sum(samples > 0 for samples in manifest.shard_samples)
    sizes = ", ".join(map(str, manifest.resolutions))
    lines = [f"{manifest.samples:,} images in {shards:,} shards at each of the resolutions {sizes}: {storage.url}"]
    if manifest.classes:
        counts = [f"{name} ({n:,})" for name, n in zip(manifest.classes, manifest.class_counts, strict=True)]
        more = f" and {len(counts) - 10} more" if len(counts) > 10 else ""
        lines.append(f"{len(counts)} classes: {', '.join(counts[:10])}{more}")
    names = _skipped_names(storage) if manifest.skipped else {}
    for reason, count in manifest.skipped.items():
        more = ", ..." if count > len(names[reason]) else ""
        lines.append(f"skipped: {count:,} x {reason} ({', '.join(names[reason])}{more})")
    skipped = sum(manifest.skipped.values())
    if skipped > 0.1 * (skipped + manifest.samples):
        share = skipped / (skipped + manifest.samples)
        lines.append(f"WARNING: {share:.0%} of what the source has was SKIPPED; is that meant?")
    return [line.encode("utf-8", "backslashreplace").decode() for line in lines]


def _say(text: str) -> None:
    print(f"shards build: {text}", file=sys.stderr, flush=True)


def _check(
    samples_per_shard: int,
    encoding: str,
    quality: int,
    workers: int | None,
    source: Source,
    storage: Storage,
    part: tuple[int, int] | None,
) -> None:
    if samples_per_shard < 1:
        raise ValueError(f"samples_per_shard (={samples_per_shard}) must be at least 1")
    if encoding not in ENCODINGS:
        raise ValueError(f"encoding (={encoding!r}) must be one of {', '.join(ENCODINGS)}")
    if not 1 <= quality <= 100:
        raise ValueError(f"quality (={quality}) must be from 1 to 100")
    if workers is not None and workers < 1:
        raise ValueError(f"workers (={workers}) must be at least 1")
    if part is not None and not 1 <= part[0] <= part[1]:
        raise ValueError(f"part (={part[0]}/{part[1]}) must be I/N with I from 1 to N")
    if source.channels not in (1, 3):
        raise ValueError(f"channels (={source.channels}) must be 1 or 3")
    if storage.is_local and source.folder is not None:
        destination, folder = Path(storage.url).resolve(), source.folder.resolve()
        if destination == folder or folder in destination.parents:
            raise ValueError(f"DEST {storage.url!r} lies in SOURCE {str(source.folder)!r}; choose one outside it")


def _resolutions(source: Source, given: list[int] | None) -> list[int]:
    """The given ones, ascending; else the powers of two that the images can fill."""
    if given is not None:
        if not given or len(set(given)) < len(given) or any(n < _SMALLEST or n & (n - 1) for n in given):
            raise ValueError(f"resolutions (={given}) must be different powers of two, from {_SMALLEST} up")
        return sorted(given)
    if source.native_resolution is not None:
        largest = max(_SMALLEST, 1 << (source.native_resolution - 1).bit_length())
    else:
        largest = 1 << (min(_LARGEST_BY_ITSELF, _median_side(source)).bit_length() - 1)
    return [1 << power for power in range(2, largest.bit_length())]


def _median_side(source: Source) -> int:
    """Of the shorter sides of some images all over the source, in pixels."""
    sides = []
    for index in np.unique(np.linspace(0, len(source) - 1, min(len(source), _LOOKED_AT)).astype(int)):
        try:
            sides.append(min(source.load(int(index)).size))
        except UnusableImageError as error:
            reason = f"{source.name(int(index))} ({error.reason}: {error.detail})"
    if not sides:
        raise ValueError(f"SOURCE: none of the images that were tried can be read, such as {reason}")
    if (median := int(statistics.median(sides))) < _SMALLEST:
        raise ValueError(f"SOURCE: its images are {median} pixels; pass --resolutions and --upscale to enlarge them")
    return median


def _begin(source: Source, storage: Storage, plan: Plan, numbers: range) -> dict[int, Part]:
    """Writes the plan, or compares it with the one that is there; those of these parts that are finished, by number."""
    if not storage.exists(PLAN_KEY):
        if storage.exists(MANIFEST_KEY):
            raise ValueError(f"DEST {storage.url!r} holds a {MANIFEST_KEY} of another origin; choose another DEST")
        SourceRecord.of(source).save(storage)
        storage.write(PLAN_KEY, plan.to_json())
    _check_same_plan(storage, plan)  # also a plan of our own: another machine may have written another one just now
    there = dict(storage.list())
    parts = {number: finished_part(storage, number, there) for number in numbers}
    return {number: part for number, part in parts.items() if part is not None}


def _check_same_plan(storage: Storage, plan: Plan) -> None:
    before, now = json.loads(storage.read(PLAN_KEY)), asdict(plan)
    if before.get("fingerprint") != now["fingerprint"]:
        changes = "the source has other images or labels now"
    else:
        differing = [name for name in now if before.get(name) != now[name]]
        changes = ", ".join(f"{name} was {before.get(name)!r} and is {now[name]!r} now" for name in differing)
    if changes:
        raise ValueError(
            f"DEST {storage.url!r} holds another build: {changes}; "
            f"repeat its options to go on with it, choose another DEST, or delete this one"
        )


def _write_missing(
    source: Source, storage: Storage, plan: Plan, numbers: range, finished: dict[int, Part], workers: int
) -> None:
    if finished:
        _say(f"{storage.url}: {len(finished)} of {len(numbers)} shards are finished already; going on with the others")
    order = randomness.permutation(len(source), plan.seed, "build")
    images = {number: order[number * plan.samples_per_shard :][: plan.samples_per_shard] for number in numbers}
    missing = {number: indices for number, indices in images.items() if number not in finished}
    skipped = sum(len(part.skips) for part in finished.values())
    done = skipped + sum(part.samples for part in finished.values())
    with progress("shards build", sum(map(len, images.values())), done) as shown:
        write_parts(Job(source, plan, storage), missing, workers, shown, done, skipped)


def _skipped_names(storage: Storage, first: int = 3) -> dict[str, list[str]]:
    """Some names by reason, of the records that a build leaves."""
    names: dict[str, list[str]] = {}
    for key, _ in storage.list("parts"):
        data = json.loads(storage.read(key))
        for skip in map(Skip._make, data if isinstance(data, list) else data["skips"]):  # a list: of builds before
            found = names.setdefault(skip.reason, [])
            found += [skip.name] * (len(found) < first)
    return names
