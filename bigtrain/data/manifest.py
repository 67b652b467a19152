"""What a set of shards consists of: the manifest of the whole, and an index of every shard. Read without torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from bigtrain.storage import Storage

MANIFEST_KEY = "manifest.json"
PLAN_KEY = "build.json"
MANIFEST_VERSION = 1
INDEX_VERSION = 1
T = TypeVar("T")


@dataclass(frozen=True)
class ShardInfo:
    """One tar file: its key and its index's key below the shards' URL, its samples, size in bytes and checksum."""

    key: str
    index: str
    samples: int
    bytes: int
    sha256: str
    etag: str | None = None


@dataclass(frozen=True, eq=False)
class ShardIndex:
    """Where every image of a shard lies: one entry a sample, in the shard's order.

    Args:
        keys: of the samples; equal at every resolution.
        extensions: of the images, `png` or `jpg`.
        offsets: of the images' payloads in the tar, in bytes; int64 [samples].
        sizes: of the images' payloads, in bytes; int64 [samples].
        crc32: of the images' payloads; int64 [samples].
        labels: class ids, int64 [samples]; `None` without classes.
    """

    keys: list[str]
    extensions: list[str]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    crc32: NDArray[np.int64]
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
            "crc32": self.crc32.tolist(),
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
    keys, extensions, labels = list(data["keys"]), data["extensions"], data["labels"]
    if isinstance(extensions, str):
        extensions = [extensions] * len(keys)
    offsets, sizes, crc32 = (np.array(data[name], dtype=np.int64) for name in ("offsets", "sizes", "crc32"))
    labels = None if labels is None else np.array(labels, dtype=np.int64)
    for column in (extensions, offsets, sizes, crc32, keys if labels is None else labels):
        if len(column) != len(keys):
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
        shards: by resolution in pixels; their order and sample counts are equal at each.
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
        return sorted(self.shards)

    @property
    def shard_samples(self) -> list[int]:
        """Samples of each shard, in order."""
        return [shard.samples for shard in self.shards[self.resolutions[0]]]

    @property
    def samples(self) -> int:
        return sum(self.shard_samples)

    @property
    def num_classes(self) -> int:
        """0 without classes."""
        return len(self.classes)

    @property
    def hash(self) -> str:
        """SHA-256 of what decides the data: everything but `source`."""
        decisive = {name: value for name, value in asdict(self).items() if name != "source"}
        return hashlib.sha256(json.dumps(decisive, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def save(self, storage: Storage) -> None:
        storage.write(MANIFEST_KEY, json.dumps(asdict(self), indent=1).encode())

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
            f"run the same `bigtrain shards build SOURCE {url}` again, it continues where it stopped"
        )
    return f"data.url (={url!r}) holds no {MANIFEST_KEY}; make it with `bigtrain shards build SOURCE {url}`"


def _manifest_of(data: dict[str, Any]) -> Manifest:
    shards = {int(key): [ShardInfo(**shard) for shard in value] for key, value in data["shards"].items()}
    return Manifest(**{**data, "shards": shards})


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
