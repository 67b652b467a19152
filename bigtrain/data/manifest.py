"""What a set of shards consists of: the manifest of the whole, and an index of every shard. Read without torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from bigtrain.storage import Storage

MANIFEST_KEY = "manifest.json"
PLAN_KEY = "build.json"
MANIFEST_VERSION = 1
INDEX_VERSION = 1
#: In place of a resolution: images of any size, as they came, which are cropped and resized when they are read.
NATIVE = 0
_NATIVE_NAME = "native"
T = TypeVar("T")


@dataclass(frozen=True)
class ShardInfo:
    """One tar file.

    Args:
        key: below the shards' URL; or a full URL or path, for a shard that lies elsewhere.
        index: key of its index, always below the shards' URL.
        samples: how many it has.
        bytes: its size.
        sha256: of all of it; `None` if it was indexed without reading the images.
        etag: of the object in its store, where that names one.
        index_sha256: of the index, which holds the labels; `None` in manifests of older versions.
    """

    key: str
    index: str
    samples: int
    bytes: int
    sha256: str | None = None
    etag: str | None = None
    index_sha256: str | None = None

    @property
    def is_elsewhere(self) -> bool:
        """Whether the key is a full URL or path."""
        return "://" in self.key or self.key.startswith("/")


@dataclass(frozen=True, eq=False)
class ShardIndex:
    """Where every image of a shard lies: one entry a sample, in the shard's order.

    Args:
        keys: of the samples; equal at every resolution.
        extensions: of the images, `png`, `jpg` or `webp`.
        offsets: of the images' payloads in the tar, in bytes; int64 [samples].
        sizes: of the images' payloads, in bytes; int64 [samples].
        crc32: of the images' payloads; int64 [samples]; `None` if they were not read.
        labels: class ids, int64 [samples]; `None` without classes.
    """

    keys: list[str]
    extensions: list[str]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    crc32: NDArray[np.int64] | None
    labels: NDArray[np.int64] | None

    def __len__(self) -> int:
        return len(self.keys)

    def to_json(self) -> bytes:
        """Compact columns; an extension that all images share is written once."""
        uniform = len(set(self.extensions)) == 1
        columns = {
            "version": INDEX_VERSION,
            "keys": self.keys,
            "extensions": self.extensions[0] if uniform else self.extensions,
            "offsets": self.offsets.tolist(),
            "sizes": self.sizes.tolist(),
            "crc32": None if self.crc32 is None else self.crc32.tolist(),
            "labels": None if self.labels is None else self.labels.tolist(),
        }
        return json.dumps(columns, separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, content: bytes) -> ShardIndex:
        """Reads what `to_json` wrote.

        Raises:
            ValueError: if it is no index, of another version, or its columns differ in length.
        """
        return _parse(content, "shard index", INDEX_VERSION, _index_of)


def _index_of(data: dict[str, Any]) -> ShardIndex:
    keys, extensions = list(data["keys"]), data["extensions"]
    if isinstance(extensions, str):
        extensions = [extensions] * len(keys)
    offsets, sizes = (np.array(data[name], dtype=np.int64) for name in ("offsets", "sizes"))
    crc32, labels = (
        None if data[name] is None else np.array(data[name], dtype=np.int64) for name in ("crc32", "labels")
    )
    if any(len(column) != len(keys) for column in (extensions, offsets, sizes, crc32, labels) if column is not None):
        raise ValueError("its columns differ in length")
    return ShardIndex(keys, extensions, offsets, sizes, crc32, labels)


@dataclass(frozen=True)
class Manifest:
    """All shards of a data set, at every resolution.

    Args:
        version: of this format.
        classes: names by class id; empty without classes.
        channels: of every image, 1 or 3.
        class_counts: samples by class id.
        shards: by resolution in pixels, or `NATIVE`; their order and sample counts are equal at each.
        skipped: images of the source that are not in the shards, counted by reason.
        source: where the images came from: kind, fingerprint, options, version of bigtrain.
    """

    version: int
    classes: list[str]
    channels: int
    class_counts: list[int]
    shards: dict[int, list[ShardInfo]]
    skipped: dict[str, int]
    source: dict[str, Any]

    def __post_init__(self) -> None:
        counts = [[shard.samples for shard in shards] for shards in self.shards.values()]
        if not counts or any(other != counts[0] for other in counts):
            raise ValueError("the shards must have the same sample counts at every resolution, of which one is needed")
        if self.channels not in (1, 3):
            raise ValueError(f"channels (={self.channels}) must be 1 or 3")
        if len(self.class_counts) != len(self.classes):
            raise ValueError(f"{len(self.classes)} classes have {len(self.class_counts)} class_counts")

    @property
    def resolutions(self) -> list[int]:
        """Those at which the images are stored, in pixels, ascending; none if they are stored as they came only."""
        return sorted(self.shards.keys() - {NATIVE})

    def has(self, resolution: int) -> bool:
        """Whether images of that resolution can be read: stored as such, or made of images of any size."""
        return resolution > 0 and (resolution in self.shards or NATIVE in self.shards)

    def stored(self, resolution: int) -> int:
        """The group of `shards` to read for that resolution: itself, else `NATIVE`.

        Raises:
            ValueError: if there is neither.
        """
        for group in (resolution, NATIVE):
            if group in self.shards:
                return group
        stored = ", ".join(map(str, self.resolutions))
        raise ValueError(f"resolution (={resolution}) must be one of the stored ones: {stored}")

    @property
    def shard_samples(self) -> list[int]:
        """Samples of each shard, in order."""
        return [shard.samples for shard in next(iter(self.shards.values()))]

    @property
    def samples(self) -> int:
        return sum(self.shard_samples)

    @property
    def num_classes(self) -> int:
        """0 without classes."""
        return len(self.classes)

    @cached_property
    def hash(self) -> str:
        """SHA-256 of what decides the data: everything but `source`, and but the ETags where there are checksums."""
        decisive = {name: value for name, value in asdict(self).items() if name != "source"}
        for shard in (shard for shards in decisive["shards"].values() for shard in shards):
            if shard["sha256"] is not None:
                shard["etag"] = None  # another store's name for the same bytes
            if shard["index_sha256"] is None:
                del shard["index_sha256"]  # older manifests keep their hash
        return hashlib.sha256(json.dumps(decisive, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def save(self, storage: Storage) -> None:
        data = asdict(self)
        data["shards"] = {_NATIVE_NAME if group == NATIVE else group: some for group, some in data["shards"].items()}
        storage.write(MANIFEST_KEY, json.dumps(data, indent=1).encode())

    @classmethod
    def load(cls, storage: Storage | str) -> Manifest:
        """The manifest of the shards at a URL.

        Raises:
            ValueError: if there is none (with how to make it), or it is malformed or of an unknown version.
        """
        storage = storage if isinstance(storage, Storage) else Storage(storage)
        try:
            content = storage.read(MANIFEST_KEY)
        except FileNotFoundError:
            raise ValueError(_missing(storage)) from None
        return _parse(content, storage.locate(MANIFEST_KEY), MANIFEST_VERSION, _manifest_of)


def _missing(storage: Storage) -> str:
    url = storage.url
    if storage.exists(PLAN_KEY):
        return (
            f"data.url (={url!r}) holds no {MANIFEST_KEY}: its build is unfinished; "
            f"run the same `bigtrain shards build SOURCE {url}` again, it continues where it stopped "
            f"(after builds with --part: `bigtrain shards index {url}`)"
        )
    return (
        f"data.url (={url!r}) holds no {MANIFEST_KEY}; make it with `bigtrain shards build SOURCE {url}`, "
        f"or for shards made elsewhere with `bigtrain shards index {url}`"
    )


def _manifest_of(data: dict[str, Any]) -> Manifest:
    shards = {
        NATIVE if key == _NATIVE_NAME else _resolution(key): [ShardInfo(**shard) for shard in value]
        for key, value in data["shards"].items()
    }
    return Manifest(**{**data, "shards": shards})


def _resolution(key: str) -> int:
    if (resolution := int(key)) < 1:
        raise ValueError(f"{key!r} is no resolution")
    return resolution


def _parse(content: bytes, name: str, version: int, make: Callable[[dict[str, Any]], T]) -> T:
    """Makes an object of a JSON object of that version; all that can be wrong with it is a `ValueError`."""
    try:
        data = json.loads(content)
        found = data["version"]
        if found == version:
            return make(data)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise ValueError(f"{name} is malformed ({type(error).__name__}: {error}); build the shards again") from error
    raise ValueError(f"{name} has version {found!r}, but this bigtrain reads version {version}; update bigtrain")
