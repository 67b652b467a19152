"""Several sets of shards as one: their shards numbered through, each with the place where its bytes lie."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from bigtrain.data.faults import Budget
from bigtrain.data.locations import locate
from bigtrain.data.manifest import Manifest, ShardInfo
from bigtrain.storage import Storage, StorageOptions


class ShardPlace(NamedTuple):
    """Where the bytes of one shard lie."""

    storage: Storage
    key: str
    info: ShardInfo
    resolution: int  # as it is stored; NATIVE for images that are cropped and resized when they are read
    identity: str  # for file names; another one as soon as the shard is another

    @property
    def name(self) -> str:
        return self.storage.locate(self.key)


class ShardSet:
    """One set of shards, or several.

    Args:
        parts: the storage and the manifest of each.
        options: of storages that a manifest names by full URLs.
        weights: by which the sets are mixed, if they are.
        budget: how much of it may be damaged, for whoever reads it.

    Raises:
        ValueError: if the sets differ in their channels or classes.
    """

    def __init__(
        self,
        parts: Sequence[tuple[Storage, Manifest]],
        options: StorageOptions | None = None,
        weights: Sequence[float] = (),
        budget: Budget = Budget(),  # noqa: B008 (it is immutable)
    ) -> None:
        if not parts:
            raise ValueError("url (={}) must name at least one set of shards")
        self.storages = [storage for storage, _ in parts]
        self.manifests = [manifest for _, manifest in parts]
        self._options, self._weights, self.budget = options, list(weights), budget
        first = self.manifests[0]
        for storage, manifest in parts[1:]:
            for name in ("channels", "classes"):
                found, expected = getattr(manifest, name), getattr(first, name)
                if found != expected:
                    raise ValueError(
                        f"sets of shards that are mixed must have the same {name}: {self.url!r} has {expected}, "
                        f"{storage.url!r} {found}; build one of them again"
                    )
        self.channels, self.classes = first.channels, first.classes
        self.shard_samples = [count for manifest in self.manifests for count in manifest.shard_samples]
        self._owners = [
            (part, i) for part, manifest in enumerate(self.manifests) for i in range(len(manifest.shard_samples))
        ]
        self._elsewhere: dict[str, Storage] = {}  # by folder
        self.locate = lru_cache(maxsize=1 << 16)(self._locate)

    @classmethod
    def of(cls, storage: Storage, manifest: Manifest, budget: Budget = Budget()) -> ShardSet:  # noqa: B008
        """One set of shards."""
        return cls([(storage, manifest)], budget=budget)

    @property
    def is_local(self) -> bool:
        """Whether all shards are on this machine."""
        return all(storage.is_local for storage in self.storages) and not any(
            "://" in info.key for manifest in self.manifests for group in manifest.shards.values() for info in group
        )

    @property
    def url(self) -> str:
        """For messages."""
        return self.storages[0].url

    @property
    def samples(self) -> int:
        return sum(self.shard_samples)

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def class_counts(self) -> list[int]:
        """Samples by class id, over all sets."""
        return [sum(counts) for counts in zip(*(m.class_counts for m in self.manifests), strict=True)]

    @property
    def resolutions(self) -> list[int]:
        """Those at which every set is stored."""
        common = set(self.manifests[0].resolutions)
        return sorted(common.intersection(*(manifest.resolutions for manifest in self.manifests)))

    def check(self, resolutions: Sequence[int]) -> None:
        """Raises ValueError if a set cannot be read at one of the resolutions."""
        for storage, manifest in zip(self.storages, self.manifests, strict=True):
            missing = sorted(resolution for resolution in set(resolutions) if not manifest.has(resolution))
            if missing:
                raise ValueError(
                    f"the shards at {storage.url!r} have resolutions {manifest.resolutions}, not {missing}; "
                    f"build them with --resolutions {','.join(map(str, sorted(set(resolutions))))}"
                )

    def total_bytes(self, resolution: int) -> int:
        """Those of all shards that are read for a resolution."""
        return sum(info.bytes for manifest in self.manifests for info in manifest.shards[manifest.stored(resolution)])

    @property
    def hash(self) -> str:
        """SHA-256 of what decides the data: the manifests and the weights of a mixture."""
        hashes = [manifest.hash for manifest in self.manifests]
        if len(hashes) == 1:
            return hashes[0]
        return hashlib.sha256(json.dumps([hashes, self._weights]).encode()).hexdigest()

    def _locate(self, resolution: int, shard: int) -> ShardPlace:
        """Where a shard's images of that resolution lie."""
        part, local = self._owners[shard]
        storage, manifest = self.storages[part], self.manifests[part]
        stored = manifest.stored(resolution)
        info = manifest.shards[stored][local]
        where = locate(storage, info, self._open)
        version = info.sha256 or f"{info.etag}-{info.bytes}"
        return ShardPlace(*where, info, stored, hashlib.sha256(f"{where.name}\0{version}".encode()).hexdigest())

    @property
    def requests(self) -> dict[str, int]:
        """Reads of the object stores so far: how many, of how many bytes, and how many were made afresh."""
        counts = [one.counts for one in (*self.storages, *self._elsewhere.values()) if not one.is_local]
        names = ("reads", "bytes_read", "retries") if counts else ()
        return {name: sum(getattr(one, name) for one in counts) for name in names}

    def read_index(self, resolution: int, shard: int) -> bytes:
        """The member index of a shard, as it was written. Raises ValueError if it is another."""
        part, local = self._owners[shard]
        manifest = self.manifests[part]
        info = manifest.shards[manifest.stored(resolution)][local]
        content = self.storages[part].read(info.index)
        if info.index_sha256 is not None and hashlib.sha256(content).hexdigest() != info.index_sha256:
            raise ValueError("it does not have the checksum of the manifest")
        return content

    def _open(self, folder: str) -> Storage:
        if folder not in self._elsewhere:
            self._elsewhere[folder] = Storage(folder, self._options)
        return self._elsewhere[folder]
