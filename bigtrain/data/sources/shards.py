"""Shards as a source: ours, or those made elsewhere, to be encoded again at other resolutions."""

from __future__ import annotations

import hashlib
import os
import tempfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from bigtrain.data.images import UnusableImageError, open_image
from bigtrain.data.indexing import index
from bigtrain.data.locations import is_tar, locate
from bigtrain.data.manifest import MANIFEST_KEY, NATIVE, Manifest, ShardIndex
from bigtrain.data.sources.base import Source
from bigtrain.data.sources.trees import is_ignored
from bigtrain.storage import Storage


class Shards(Source):
    """The images of shards: as they came, or at the largest resolution that is stored.

    Args:
        url: of a folder with a manifest, or of shards that `shards index` would take.
        channels: of the images in the shards to be made; those of the source unless given.
        unlabelled: drop the labels.

    Raises:
        ValueError: if there are no shards, or they have problems; it names them.
    """

    kind = "shards"

    def __init__(self, url: str, channels: int | None, unlabelled: bool) -> None:
        if _has_manifest(url):
            self._load(Storage(url), Manifest.load(url))
        else:
            with tempfile.TemporaryDirectory(prefix="bigtrain-") as folder:
                made = index([url], folder, checksums=False)
                self._load(Storage(folder), made.manifest)
        self.channels = channels or self._channels
        self.folder = Path(url) if Path(url).is_dir() else None
        if unlabelled:
            self.classes = []

    def _load(self, storage: Storage, manifest: Manifest) -> None:
        group = NATIVE if NATIVE in manifest.shards else manifest.resolutions[-1]
        self.classes, self._channels = list(manifest.classes), manifest.channels
        self.native_resolution = group or None
        self._places = [locate(storage, shard) for shard in manifest.shards[group]]
        self._indexes = [ShardIndex.from_json(storage.read(shard.index)) for shard in manifest.shards[group]]
        self._starts = np.cumsum([0, *(len(one) for one in self._indexes)])
        digest = hashlib.sha256(repr(self.classes).encode())
        for shard, one in zip(manifest.shards[group], self._indexes, strict=True):
            digest.update(repr((shard.bytes, shard.sha256 or shard.etag)).encode() + one.to_json())
        self._fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return int(self._starts[-1])

    def _find(self, index: int) -> tuple[int, int]:
        """Shard and sample of an image."""
        shard = int(np.searchsorted(self._starts, index, side="right")) - 1
        return shard, index - int(self._starts[shard])

    def name(self, index: int) -> str:
        shard, sample = self._find(index)
        return f"{self._places[shard].key}: {self._indexes[shard].keys[sample]}"

    def label(self, index: int) -> int | None:
        shard, sample = self._find(index)
        labels = self._indexes[shard].labels
        return None if labels is None or not self.classes else int(labels[sample])

    def load(self, index: int) -> Image.Image:
        shard, sample = self._find(index)
        columns, place = self._indexes[shard], self._places[shard]
        start, size = int(columns.offsets[sample]), int(columns.sizes[sample])
        content = place.storage.read_range(place.key, start, size)
        if columns.crc32 is not None and zlib.crc32(content) != columns.crc32[sample]:
            raise UnusableImageError("damaged", f"byte {start} of {place.name}: not the checksum of the index")
        return open_image(bytes(content))

    def fingerprint(self) -> str:
        return hashlib.sha256(f"{self._fingerprint} {bool(self.classes)}".encode()).hexdigest()


def is_shards(folder: Path) -> bool:
    """Whether a folder is one of shards: it has a manifest, or nothing but `.tar` files, hidden ones apart."""
    if (folder / MANIFEST_KEY).exists():
        return True
    tars = 0
    for name in (name for _, _, names in os.walk(folder) for name in names if not is_ignored(name)):
        if not is_tar(name):
            return False
        tars += 1
    return tars > 0


def _has_manifest(url: str) -> bool:
    return "{" not in url and not url.endswith(".tar") and Storage(url).exists(MANIFEST_KEY)
