"""Shards of images that come one after the other, already encoded, for which there is no source to go back to."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import Any

from bigtrain import __version__
from bigtrain.data.manifest import MANIFEST_VERSION, Manifest, ShardInfo
from bigtrain.data.parts import ShardWriters, index_key, shard_key, store_shard
from bigtrain.storage import Storage


class ShardStream:
    """Writes shards of one resolution, in the order in which the images come, and the manifest, last.

    Args:
        storage: to write to; nothing must be there.
        resolution: of the images.
        channels: of the images, 1 or 3.
        classes: names by class id; none without labels.
        source: where the images come from, for the manifest.
        samples_per_shard: of every shard but the last.

    Raises:
        ValueError: if there is something already.
    """

    def __init__(
        self,
        storage: Storage,
        resolution: int,
        channels: int,
        classes: list[str],
        source: dict[str, Any],
        samples_per_shard: int = 4096,
    ) -> None:
        if (found := next(iter(storage.list()), None)) is not None:
            raise ValueError(f"{storage.url!r} holds {found[0]} already: choose a place for the shards that is empty")
        self.storage, self.resolution, self.channels, self.classes = storage, resolution, channels, classes
        self.source, self.samples_per_shard = source, samples_per_shard
        self._counts = [0] * len(classes)
        self._finished: list[ShardInfo] = []
        self._folder = tempfile.TemporaryDirectory(prefix="bigtrain-")
        self._tar = Path(self._folder.name) / "shard.tar"
        self._open, self._samples = contextlib.ExitStack(), 0  # the shard that is being written

    def add(self, key: str, extension: str, content: bytes, label: int | None) -> None:
        """The next image: its key, which no other has, and its file; the label without classes is None."""
        if self._samples == 0:
            self._writers = self._open.enter_context(ShardWriters({self.resolution: self._tar}))
        self._writers.write(key, {self.resolution: (extension, content)}, label)
        self._samples += 1
        if label is not None:
            self._counts[label] += 1
        if self._samples == self.samples_per_shard:
            self._end()

    def close(self) -> Manifest:
        """Writes what is still open, and the manifest, without which nothing counts."""
        if self._samples:
            self._end()
        manifest = Manifest(
            version=MANIFEST_VERSION,
            classes=self.classes,
            channels=self.channels,
            class_counts=self._counts,
            shards={self.resolution: self._finished},
            skipped={},
            source={"bigtrain": __version__, **self.source},
        )
        manifest.save(self.storage)
        self._folder.cleanup()
        return manifest

    def discard(self) -> None:
        """Instead of `close`: removes what was written."""
        self._open.close()
        self._folder.cleanup()
        written = len(self._finished) + 1  # the last perhaps in part
        keys = {key(self.resolution, i) for i in range(written) for key in (shard_key, index_key)}
        self.storage.delete([key for key, _ in self.storage.list() if key in keys])

    def _end(self) -> None:
        """Stores the shard that is open."""
        self._open.close()
        number = len(self._finished)
        self._finished.append(store_shard(self.storage, self.resolution, number, self._tar, self._samples))
        self._samples = 0
