"""Reads single samples out of shards by their index, each checked against its checksum."""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from bigtrain.data.decode import decode
from bigtrain.data.decoded import DecodedImages, Read
from bigtrain.data.manifest import Manifest, ShardIndex
from bigtrain.storage import Storage


class Reader:
    """Decoded samples of one set of shards. May be used by many threads at once.

    Args:
        storage: where the shards lie.
        manifest: of them.
        open_shards: how many shards' indexes are kept in memory.
        decoded_bytes: if all samples of a resolution fit into so many bytes, each is decoded once and kept.
    """

    def __init__(self, storage: Storage, manifest: Manifest, open_shards: int = 512, decoded_bytes: int = 0) -> None:
        self.storage, self.manifest = storage, manifest
        self._index = lru_cache(maxsize=open_shards)(self._load_index)
        self._decoded = lru_cache(maxsize=2)(self._make_decoded)  # as a growing network changes its resolution
        self.decoded_bytes = decoded_bytes

    def read(self, places: Sequence[tuple[int, int]], resolution: int) -> Read:
        """Images uint8 [n, channels, resolution, resolution] and labels int64 [n] at (shard, sample) places.

        Labels are 0 where the data has no classes.

        Raises:
            ValueError: naming shard, key and offset, if a sample is damaged.
        """
        decoded = self._decoded(resolution)
        if decoded is None:
            return self._read(places, resolution)
        if (found := decoded.find(places)) is None:
            found = self._read(places, resolution)
            decoded.keep(places, *found)
        return found

    def _make_decoded(self, resolution: int) -> DecodedImages | None:
        manifest = self.manifest
        fits = DecodedImages.size(manifest.samples, manifest.channels, resolution) <= self.decoded_bytes
        return DecodedImages(manifest.shard_samples, manifest.channels, resolution) if fits else None

    def _read(self, places: Sequence[tuple[int, int]], resolution: int) -> Read:
        channels = self.manifest.channels
        images = np.empty((len(places), channels, resolution, resolution), dtype=np.uint8)
        labels = np.zeros(len(places), dtype=np.int64)
        by_shard: dict[int, list[int]] = defaultdict(list)
        for position, (shard, _) in enumerate(places):
            by_shard[shard].append(position)
        for shard, positions in by_shard.items():
            index = self._index(resolution, shard)
            samples = [places[position][1] for position in positions]
            for position, sample, content in zip(
                positions, samples, self._contents(resolution, shard, samples), strict=True
            ):
                images[position] = self._pixels(resolution, shard, sample, content).transpose(2, 0, 1)
            if index.labels is not None:
                labels[positions] = index.labels[samples]
        return images, labels

    def all(self, resolution: int, size: int) -> Iterator[Read]:
        """Every sample once, as stored: images and labels in batches of `size`."""
        places = ((shard, i) for shard, count in enumerate(self.manifest.shard_samples) for i in range(count))
        while batch := list(islice(places, size)):
            yield self.read(batch, resolution)

    def keys(self, places: Sequence[tuple[int, int]], resolution: int) -> list[str]:
        """The keys of the samples at (shard, sample) places."""
        return [self._index(resolution, shard).keys[sample] for shard, sample in places]

    def _load_index(self, resolution: int, shard: int) -> ShardIndex:
        info = self.manifest.shards[resolution][shard]
        index = ShardIndex.from_json(self.storage.read(info.index))
        if len(index) != info.samples:
            raise ValueError(
                f"{self.storage.locate(info.index)} lists {len(index)} samples, the manifest {info.samples}: "
                f"run `bigtrain shards verify {self.storage.url}`"
            )
        return index

    def _contents(self, resolution: int, shard: int, samples: list[int]) -> list[memoryview]:
        index, key = self._index(resolution, shard), self.manifest.shards[resolution][shard].key
        return self.storage.read_ranges(key, index.offsets[samples].tolist(), index.sizes[samples].tolist())

    def _pixels(self, resolution: int, shard: int, sample: int, content: memoryview) -> NDArray[np.uint8]:
        index = self._index(resolution, shard)
        try:
            if zlib.crc32(content) != index.crc32[sample]:
                raise ValueError("its bytes do not have the checksum of the index")
            return decode(content, index.extensions[sample], self.manifest.channels, resolution)
        except ValueError as error:
            key = self.manifest.shards[resolution][shard].key
            raise ValueError(
                f"{self.storage.locate(key)}: sample {index.keys[sample]!r} at byte {index.offsets[sample]} is damaged "
                f"({error}); run `bigtrain shards verify {self.storage.url}`"
            ) from error
