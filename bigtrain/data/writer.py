"""Builds the pyramid of shards: every image of a source at every resolution, mixed over the shards, resumable."""

from __future__ import annotations

import contextlib
import json
import statistics
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np

from bigtrain import __version__, randomness
from bigtrain.data.images import ENCODINGS, Encoding, UnusableImageError
from bigtrain.data.manifest import MANIFEST_KEY, MANIFEST_VERSION, PLAN_KEY, Manifest
from bigtrain.data.parts import PLAN_VERSION, Part, Plan, part_key
from bigtrain.data.progress import progress
from bigtrain.data.sources import Skip, Source
from bigtrain.data.workers import Job, cpus, terminable, write_parts
from bigtrain.storage import Storage

SOURCE_SKIPS_KEY = "parts/source.json"
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
) -> Manifest:
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

    Raises:
        ValueError: if an option is invalid, the destination holds something else, or no image could be used.
        OSError: if the source cannot be read, the storage not be written, or a worker died.
    """
    _check(samples_per_shard, encoding, quality, workers, source, storage)
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
    finished = _begin(source, storage, plan)
    total = -(-len(source) // samples_per_shard)
    if len(finished) == total and storage.exists(MANIFEST_KEY):
        _say(f"{storage.url} is finished already: nothing to do")
        return Manifest.load(storage)
    if finished:
        _say(f"{storage.url}: {len(finished)} of {total} shards are finished already; going on with the others")
    with _kept(storage):
        _write_missing(source, storage, plan, finished, workers or cpus())
    return _merge(source, storage, plan, total)


@contextlib.contextmanager
def _kept(storage: Storage) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the work inside with a word on what is left of it."""
    with terminable():
        try:
            yield
        except KeyboardInterrupt:
            _say(f"stopped; what is finished in {storage.url} is kept: the same command goes on from there")
            raise


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
    samples_per_shard: int, encoding: str, quality: int, workers: int | None, source: Source, storage: Storage
) -> None:
    if samples_per_shard < 1:
        raise ValueError(f"samples_per_shard (={samples_per_shard}) must be at least 1")
    if encoding not in ENCODINGS:
        raise ValueError(f"encoding (={encoding!r}) must be one of {', '.join(ENCODINGS)}")
    if not 1 <= quality <= 100:
        raise ValueError(f"quality (={quality}) must be from 1 to 100")
    if workers is not None and workers < 1:
        raise ValueError(f"workers (={workers}) must be at least 1")
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


def _begin(source: Source, storage: Storage, plan: Plan) -> dict[int, Part]:
    """Writes the plan, or compares it with the one that is there; the parts that are finished, by number."""
    if not storage.exists(PLAN_KEY):
        if storage.exists(MANIFEST_KEY):
            raise ValueError(f"DEST {storage.url!r} holds a {MANIFEST_KEY} of another origin; choose another DEST")
        storage.write(SOURCE_SKIPS_KEY, json.dumps(list(source.skips)).encode())
        storage.write(PLAN_KEY, plan.to_json())
        return {}
    _check_same_plan(storage, plan)
    there = dict(storage.list())
    numbers = range(-(-len(source) // plan.samples_per_shard))
    parts = {number: Part.from_json(storage.read(part_key(number))) for number in numbers if part_key(number) in there}
    return {number: part for number, part in parts.items() if _is_whole(part, there)}


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


def _is_whole(part: Part, there: dict[str, int]) -> bool:
    """Whether all files of a part are there in their sizes."""
    return all(there.get(shard.key) == shard.bytes and shard.index in there for shard in part.shards.values())


def _write_missing(source: Source, storage: Storage, plan: Plan, finished: dict[int, Part], workers: int) -> None:
    order = randomness.permutation(len(source), plan.seed, "build")
    starts = range(0, len(source), plan.samples_per_shard)
    missing = {
        number: order[start : start + plan.samples_per_shard]
        for number, start in enumerate(starts)
        if number not in finished
    }
    skipped = sum(len(part.skips) for part in finished.values())
    done = skipped + sum(part.samples for part in finished.values())
    with progress("shards build", len(source), done) as shown:
        write_parts(Job(source, plan, storage.url), missing, workers, shown, done, skipped)


def _merge(source: Source, storage: Storage, plan: Plan, total: int) -> Manifest:
    """Makes the manifest of the parts."""
    parts = [Part.from_json(storage.read(part_key(number))) for number in range(total)]
    kept = [part for part in parts if part.samples]
    reasons = Counter(skip.reason for skip in [*source.skips, *(skip for part in parts for skip in part.skips)])
    if not kept:
        storage.delete([SOURCE_SKIPS_KEY, PLAN_KEY, *(part_key(number) for number in range(total))])
        raise ValueError(_nothing_left(plan, reasons, parts))
    manifest = Manifest(
        version=MANIFEST_VERSION,
        classes=source.classes,
        channels=source.channels,
        class_counts=np.sum([part.class_counts for part in parts], axis=0, dtype=int).tolist(),
        shards={resolution: [part.shards[resolution] for part in kept] for resolution in plan.resolutions},
        skipped=dict(sorted(reasons.items())),
        source={"bigtrain": __version__, **asdict(plan)},
    )
    manifest.save(storage)
    return manifest


def _nothing_left(plan: Plan, reasons: Counter[str], parts: list[Part]) -> str:
    first = next(skip for part in parts for skip in part.skips)
    counts = ", ".join(f"{count} x {reason}" for reason, count in reasons.items())
    remedy = "pass --upscale to enlarge them, or smaller --resolutions" if reasons["too small"] else "pass other images"
    return f"no image could be used ({counts}; {first.name}: {first.detail}); {remedy}"


def _skipped_names(storage: Storage, first: int = 3) -> dict[str, list[str]]:
    """Some names by reason, of the records that a build leaves."""
    names: dict[str, list[str]] = {}
    for key, _ in storage.list("parts"):
        content = storage.read(key)
        skips = map(Skip._make, json.loads(content)) if key == SOURCE_SKIPS_KEY else Part.from_json(content).skips
        for skip in skips:
            found = names.setdefault(skip.reason, [])
            found += [skip.name] * (len(found) < first)
    return names
