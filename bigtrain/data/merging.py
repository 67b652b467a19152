"""Puts the parts of a build together: one manifest of all shards, whichever machines made them."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass

import numpy as np

from bigtrain import __version__
from bigtrain.data.manifest import MANIFEST_VERSION, PLAN_KEY, Manifest
from bigtrain.data.parts import Part, Plan, part_key
from bigtrain.data.sources import Skip, Source
from bigtrain.storage import Storage

SOURCE_KEY = "parts/source.json"
_MACHINES = "machines"


@dataclass(frozen=True)
class SourceRecord:
    """What a build's manifest tells of its source, kept so that the parts can be merged without it.

    Args:
        samples: of the source.
        classes: names by class id.
        skips: what was left out before any image was read.
    """

    samples: int
    classes: list[str]
    skips: list[Skip]

    @classmethod
    def of(cls, source: Source) -> SourceRecord:
        return cls(len(source), source.classes, [Skip(*skip) for skip in source.skips])

    def save(self, storage: Storage) -> None:
        storage.write(SOURCE_KEY, json.dumps({**asdict(self), "skips": self.skips}).encode())


def machine_key(part: tuple[int, int]) -> str:
    """Of the note that part I of N is finished."""
    return f"{_MACHINES}/{part[0]:06d}-of-{part[1]:06d}.json"


def numbers_of(part: tuple[int, int] | None, total: int) -> range:
    """The shards of part I of N: every N-th, so that parts are equal wherever the source is slow."""
    return range(total) if part is None else range(part[0] - 1, total, part[1])


def merge(storage: Storage, plan: Plan, source: SourceRecord) -> Manifest:
    """Makes the manifest of the parts, all of which are there.

    Raises:
        ValueError: if no image could be used.
    """
    total = -(-source.samples // plan.samples_per_shard)
    parts = [Part.from_json(storage.read(part_key(number))) for number in range(total)]
    kept = [part for part in parts if part.samples]
    reasons = Counter(skip.reason for skip in [*source.skips, *(skip for part in parts for skip in part.skips)])
    if not kept:
        machines = [key for key, _ in storage.list(_MACHINES)]
        storage.delete([SOURCE_KEY, PLAN_KEY, *(part_key(number) for number in range(total)), *machines])
        raise ValueError(_nothing_left(plan, reasons, parts))
    manifest = Manifest(
        version=MANIFEST_VERSION,
        classes=source.classes,
        channels=plan.channels,
        class_counts=np.sum([part.class_counts for part in parts], axis=0, dtype=int).tolist(),
        shards={resolution: [part.shards[resolution] for part in kept] for resolution in plan.resolutions},
        skipped=dict(sorted(reasons.items())),
        source={"bigtrain": __version__, **asdict(plan)},
    )
    manifest.save(storage)
    return manifest


def merge_machines(storage: Storage) -> Manifest:
    """Makes the manifest of a build whose parts were made with `--part I/N`.

    Raises:
        ValueError: if a part is missing, naming it; or if no image could be used.
    """
    try:
        plan = Plan(**json.loads(storage.read(PLAN_KEY)))
        data = json.loads(storage.read(SOURCE_KEY))
        source = SourceRecord(data["samples"], data["classes"], [Skip(*skip) for skip in data["skips"]])
    except (FileNotFoundError, TypeError, KeyError, ValueError) as error:
        raise ValueError(
            f"{storage.url!r} holds a build of another version of bigtrain, or a damaged one "
            f"({type(error).__name__}: {error}); run `bigtrain shards build SOURCE {storage.url}` again"
        ) from error
    there = dict(storage.list())
    missing = [
        number
        for number in range(-(-source.samples // plan.samples_per_shard))
        if finished_part(storage, number, there) is None
    ]
    if missing:
        raise ValueError(_missing(storage, missing, there))
    return merge(storage, plan, source)


def finished_part(storage: Storage, number: int, there: dict[str, int]) -> Part | None:
    """A part whose record and files are all there, in their sizes; else `None`.

    Args:
        storage: of the build.
        number: of the part.
        there: keys and sizes of all that the storage holds.
    """
    if part_key(number) not in there:
        return None
    part = Part.from_json(storage.read(part_key(number)))
    whole = all(there.get(shard.key) == shard.bytes and shard.index in there for shard in part.shards.values())
    return part if whole else None


def _missing(storage: Storage, missing: list[int], there: dict[str, int]) -> str:
    """Which parts have to run (again); if none has finished, nobody knows how many there are."""
    shown = ", ".join(map(str, missing[:10])) + (", ..." if len(missing) > 10 else "")
    text = f"{storage.url!r}: {len(missing)} shards of the build are missing ({shown})"
    notes = [key.rpartition("/")[2].removesuffix(".json") for key in there if key.startswith(f"{_MACHINES}/")]
    counts = {int(note.partition("-of-")[2]) for note in notes}
    if len(counts) != 1:
        return f"{text}; run `bigtrain shards build` with every --part I/N first"
    (count,) = counts
    parts = sorted({number % count + 1 for number in missing})
    commands = ", ".join(f"--part {part}/{count}" for part in parts[:10]) + (", ..." if len(parts) > 10 else "")
    return f"{text}; run the same `bigtrain shards build` again with {commands}"


def _nothing_left(plan: Plan, reasons: Counter[str], parts: list[Part]) -> str:
    first = next(skip for part in parts for skip in part.skips)
    counts = ", ".join(f"{count} x {reason}" for reason, count in reasons.items())
    remedy = "pass --upscale to enlarge them, or smaller --resolutions" if reasons["too small"] else "pass other images"
    return f"no image could be used ({counts}; {first.name}: {first.detail}); {remedy}"
