"""A part of a build: one shard at every resolution, its indexes, and the record that it is finished."""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bigtrain.data.images import Encoding, UnusableImageError, encode, prepare
from bigtrain.data.locations import Location
from bigtrain.data.manifest import ShardInfo
from bigtrain.data.samples import index_shard
from bigtrain.data.sources import Skip, Source
from bigtrain.storage import Storage

PLAN_VERSION = 1  # raised when the same plan would make other bytes


@dataclass(frozen=True)
class Plan:
    """All that decides the bytes of a build.

    Args:
        version: of the way in which shards are made.
        kind: of the source.
        fingerprint: of the source.
        resolutions: in pixels, ascending.
        samples_per_shard: of every shard but the last, before images are skipped.
        encoding: of the images.
        quality: of jpeg.
        channels: of the images, 1 or 3.
        seed: of the order of the images.
        upscale: whether images smaller than the largest resolution are enlarged instead of skipped.
    """

    version: int
    kind: str
    fingerprint: str
    resolutions: list[int]
    samples_per_shard: int
    encoding: Encoding
    quality: int
    channels: int
    seed: int
    upscale: bool

    def to_json(self) -> bytes:
        return json.dumps(asdict(self), indent=1).encode()


@dataclass(frozen=True)
class Part:
    """What a finished part has: its samples, its shard by resolution (none without samples), what was skipped."""

    samples: int
    shards: dict[int, ShardInfo]
    class_counts: list[int]
    skips: list[Skip]

    def to_json(self) -> bytes:
        return json.dumps({**asdict(self), "skips": self.skips}, indent=1).encode()

    @classmethod
    def from_json(cls, content: bytes) -> Part:
        data = json.loads(content)
        shards = {int(key): ShardInfo(**shard) for key, shard in data["shards"].items()}
        return cls(data["samples"], shards, data["class_counts"], [Skip(*skip) for skip in data["skips"]])


def part_key(number: int) -> str:
    return f"parts/{number:06d}.json"


def shard_key(resolution: int, number: int) -> str:
    return f"r{resolution}/shard-{number:06d}.tar"


def index_key(resolution: int, number: int) -> str:
    return f"r{resolution}/shard-{number:06d}.index.json"


def write_part(
    source: Source,
    plan: Plan,
    storage: Storage,
    number: int,
    indices: Sequence[int],
    count: Callable[[bool], None],
) -> None:
    """Writes one part; its record comes last, so that a part without one is not finished.

    Args:
        source: of the images.
        plan: of the build.
        storage: to write to.
        number: of the part.
        indices: of its images in the source, in the shard's order.
        count: called after each image with whether it was kept.

    Raises:
        OSError: if the source cannot be read or the storage not be written.
    """
    counts, skips, kept = [0] * len(source.classes), [], 0
    with tempfile.TemporaryDirectory(prefix="bigtrain-") as folder:
        tars = {resolution: Path(folder) / f"r{resolution}.tar" for resolution in plan.resolutions}
        with ShardWriters(tars) as writers:
            for position, index in enumerate(indices, start=number * plan.samples_per_shard):
                try:
                    encoded = encode_sample(source, plan, index)
                except UnusableImageError as error:
                    skips.append(Skip(source.name(index), error.reason, error.detail))
                    count(False)
                    continue
                label = source.label(index)
                writers.write(f"{position:09d}", encoded, label)
                kept += 1
                if label is not None:
                    counts[label] += 1
                count(True)
        shards = {width: store_shard(storage, width, number, tar, kept) for width, tar in tars.items() if kept}
    storage.write(part_key(number), Part(kept, shards, counts, skips).to_json())


def encode_sample(source: Source, plan: Plan, index: int) -> dict[int, tuple[str, bytes]]:
    """Extension and bytes of one image at every resolution: all of them or none.

    Raises:
        UnusableImageError: if it cannot be decoded, or is too small.
    """
    image = source.load(index)
    largest = max(plan.resolutions)
    if min(image.size) < largest and not plan.upscale:
        raise UnusableImageError("too small", f"{image.width}x{image.height} pixels, less than {largest}")
    prepared = prepare(image, plan.resolutions, plan.channels)
    return {width: encode(resized, plan.encoding, plan.quality) for width, resized in prepared.items()}


class ShardWriters:
    """A tar writer for each resolution; the same samples make the same bytes."""

    def __init__(self, tars: dict[int, Path]) -> None:
        self._tars = tars
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> ShardWriters:
        from webdataset import TarWriter  # noqa: PLC0415 - it imports torch

        with contextlib.ExitStack() as stack:
            files = {width: stack.enter_context(path.open("wb")) for width, path in self._tars.items()}
            self._writers = {
                width: stack.enter_context(TarWriter(file, mtime=0, encoder=False)) for width, file in files.items()
            }
            self._stack = stack.pop_all()
        return self

    def write(self, key: str, encoded: dict[int, tuple[str, bytes]], label: int | None) -> None:
        members = {} if label is None else {"cls": str(label).encode()}
        for width, (extension, content) in encoded.items():
            self._writers[width].write({"__key__": key, extension: content, **members})

    def __exit__(self, *error: object) -> None:
        self._stack.close()


def store_shard(storage: Storage, resolution: int, number: int, tar: Path, samples: int) -> ShardInfo:
    """Writes a shard and its index."""
    key, index = shard_key(resolution, number), index_key(resolution, number)
    with tar.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        sha256, columns = hashlib.sha256(content).hexdigest(), index_shard(key, memoryview(content)).to_json()
        size = len(content)
    storage.write_file(key, tar)
    storage.write(index, columns)
    etag = Location(storage, key).etag(storage.stat(key))
    return ShardInfo(key, index, samples, size, sha256, etag, hashlib.sha256(columns).hexdigest())
