"""Reads single samples by place, each checked by its checksum; what is damaged is read again, replaced or told."""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bigtrain.data.buffers import Buffers
from bigtrain.data.decode import decode, decode_any_size
from bigtrain.data.decoded import DecodedImages, Read
from bigtrain.data.decoders import Decoders, jobs_of
from bigtrain.data.faults import Faults, Place
from bigtrain.data.fetch import Bytes, Fetcher, check_unchanged
from bigtrain.data.files import ShardError
from bigtrain.data.manifest import NATIVE, ShardIndex
from bigtrain.data.shard_set import ShardPlace, ShardSet
from bigtrain.data.threads import Threads

ATTEMPTS = 3  # to read bytes that have their checksum
REQUESTS = 16  # of an object store at the same time


class Stored(NamedTuple):
    """A sample as it is stored."""

    place: ShardPlace  # of its shard
    key: str
    extension: str  # of the image, `png`, `jpg` or `webp`
    content: Bytes  # of the image
    label: int | None  # class id; None where the data has no classes


#: Takes a sample by its position among those that are wanted; ValueError if it is damaged.
Take = Callable[[int, Stored], None]


class Reader:
    """Decoded samples of a set of shards. May be used by many threads at once.

    Args:
        shards: that are read.
        faults: what is known to be damaged, and the budget; without it the first damaged sample is an error.
        fetcher: where bytes come from.
        open_shards: how many shards' indexes are kept in memory.
        decoded_bytes: if all samples of a resolution fit into so many bytes, each is decoded once and kept.
        processes: that decode what lies in files of this machine; 0 for the threads that read.
    """

    def __init__(
        self,
        shards: ShardSet,
        faults: Faults | None = None,
        fetcher: Fetcher | None = None,
        open_shards: int = 512,
        decoded_bytes: int = 0,
        processes: int = 0,
    ) -> None:
        self.shards = shards
        self.faults = faults or Faults(shards.shard_samples, seed=0, max_sample_share=0, max_shards=0)
        self.fetcher = fetcher or Fetcher(shards, self.faults)
        self.decoded_bytes = decoded_bytes
        self._decoders = Decoders(processes) if processes else None
        self._buffers = self._decoders.buffers if self._decoders else Buffers()
        self._requests = Threads(REQUESTS, "request")  # started when they are needed
        self._index = lru_cache(maxsize=open_shards)(self._load_index)
        self._decoded = lru_cache(maxsize=2)(self._make_decoded)  # as a growing network changes its resolution

    def read(self, places: Sequence[Place], resolution: int, indices: Sequence[int] | None = None) -> Read:
        """Images uint8 [n, resolution, resolution, channels] and labels int64 [n] at (shard, sample) places.

        Labels are 0 where the data has no classes.

        Args:
            places: of the samples.
            resolution: of the images.
            indices: the samples' global indices, which address the substitutes of damaged ones.

        Raises:
            TooManyFaultsError: naming shard, key and offset, if more is damaged than may be.
            OSError: if the shards' store cannot be reached.
        """
        sound = self._sound(places, indices)
        decoded = self._decoded(resolution)
        if decoded is not None and (found := decoded.find(sound)) is not None:
            return found
        images, labels, take = self._room(len(sound), resolution)
        self._give(sound, self._decode_elsewhere(sound, resolution, images, labels), resolution, indices, take)
        if decoded is not None:
            decoded.keep(sound, images, labels)
        return images, labels

    def _room(self, count: int, resolution: int) -> tuple[NDArray[np.uint8], NDArray[np.int64], Take]:
        """Images and labels of so many samples, and what decodes a sample into them."""
        images = self._buffers.empty((count, resolution, resolution, self.shards.channels))
        labels = np.zeros(count, dtype=np.int64)

        def take(position: int, sample: Stored) -> None:
            if sample.place.resolution == NATIVE:
                decode_any_size(sample.content, images[position])
            else:
                decode(sample.content, sample.extension, images[position])
            labels[position] = sample.label or 0

        return images, labels, take

    def contents(self, places: Sequence[Place], resolution: int, indices: Sequence[int] | None = None) -> list[Stored]:
        """The samples at (shard, sample) places as they are stored; their checksums are right, if they have any.

        Args:
            places, resolution, indices: as `read`.

        Raises:
            TooManyFaultsError, OSError: as `read`.
        """
        found: dict[int, Stored] = {}
        self._give(self._sound(places, indices), range(len(places)), resolution, indices, found.__setitem__)
        return [found[position] for position in range(len(places))]

    def all(self, resolution: int, size: int) -> Iterator[Read]:
        """Every sample once, as stored: images and labels in batches of `size`.

        Damaged ones are left out of their batch: nothing takes their place. `faults` names and counts them.

        Raises:
            TooManyFaultsError, OSError: as `read`.
        """
        places = ((shard, i) for shard, count in enumerate(self.shards.shard_samples) for i in range(count))
        while batch := list(islice(places, size)):
            images, labels, take = self._room(len(batch), resolution)
            tried = [position for position, place in enumerate(batch) if not self.faults.has(place)]
            damaged = self._give_sound(batch, tried, resolution, take)
            kept = sorted(set(tried).difference(damaged))
            if len(kept) == len(batch):
                yield images, labels
            elif kept:
                yield images[kept], labels[kept]

    def keys(self, places: Sequence[Place], resolution: int) -> list[str]:
        """The keys of the samples at (shard, sample) places."""
        return [self._index(resolution, shard).keys[sample] for shard, sample in places]

    def labels(self, shard: int) -> NDArray[np.int64]:
        """The labels of all samples of a shard; zeros where the data has no classes."""
        found = self._index((self.shards.resolutions or [NATIVE])[0], shard).labels
        return np.zeros(self.shards.shard_samples[shard], dtype=np.int64) if found is None else found

    def _sound(self, places: Sequence[Place], indices: Sequence[int] | None) -> list[Place]:
        """The places, with substitutes for those that are known to be damaged."""
        if self.faults.is_clean():
            return list(places)
        return [
            self._substitute(position, indices) if self.faults.has(place) else place
            for position, place in enumerate(places)
        ]

    def _substitute(self, position: int, indices: Sequence[int] | None) -> Place:
        assert indices is not None, "without global indices nothing can be replaced, and the budget must be 0"
        self.faults.count("substitutions")
        return self.faults.substitute(indices[position])

    def _decode_elsewhere(
        self, places: list[Place], resolution: int, images: NDArray[np.uint8], labels: NDArray[np.int64]
    ) -> Sequence[int]:
        """Lets processes decode what lies in files; returns the positions that are left."""
        if self._decoders is None:
            return range(len(places))
        files: list[tuple[str, int]] = []
        jobs: list[NDArray[np.int64]] = []
        left: list[int] = []
        for shard, positions in _by_shard(places, range(len(places))).items():
            place = self.shards.locate(resolution, shard)
            path = self.fetcher.file(place)
            if path is None:
                left += positions
                continue
            samples, index = [places[position][1] for position in positions], self._index(resolution, shard)
            jobs.append(jobs_of(len(files), positions, samples, index, place.resolution == NATIVE))
            files.append((str(path), place.info.bytes))
            if index.labels is not None:
                labels[positions] = index.labels[samples]
            if not place.storage.is_local:
                self.faults.count("cache_hits", len(samples))
        if jobs:
            left += self._decoders.decode(files, np.concatenate(jobs), images)
        return left

    def _give(
        self,
        places: list[Place],
        missing: Sequence[int],
        resolution: int,
        indices: Sequence[int] | None,
        take: Take,
    ) -> None:
        """Hands the samples at the missing positions to `take`; damaged ones are replaced, in `places` too."""
        while missing:
            missing = self._give_sound(places, missing, resolution, take)
            for position in missing:
                places[position] = self._substitute(position, indices)

    def _give_sound(self, places: list[Place], positions: Sequence[int], resolution: int, take: Take) -> list[int]:
        """Hands the samples at those positions to `take`; returns the positions of damaged ones."""
        by_shard = _by_shard(places, positions)
        samples = {shard: [places[position][1] for position in group] for shard, group in by_shard.items()}
        far = [shard for shard in by_shard if not self.fetcher.is_near(self.shards.locate(resolution, shard))]
        answers = {shard: self._requests.submit(self._contents, resolution, shard, samples[shard]) for shard in far}
        damaged: list[int] = []
        for shard, group in by_shard.items():
            try:
                answer = answers.get(shard)
                contents = answer.result() if answer else self._contents(resolution, shard, samples[shard])
                damaged += self._give_shard(shard, samples[shard], contents, group, resolution, take)
            except ShardError as error:
                self.faults.add_shard(shard, error)
                damaged += group
        return damaged

    def _give_shard(
        self,
        shard: int,
        samples: list[int],
        contents: Sequence[Bytes | None],
        positions: list[int],
        resolution: int,
        take: Take,
    ) -> list[int]:
        """The same for samples of one shard; ShardError if it is damaged itself."""
        place, index = self.shards.locate(resolution, shard), self._index(resolution, shard)
        labels = [None] * len(samples) if index.labels is None else index.labels[samples].tolist()
        damaged: list[int] = []
        for position, sample, content, label in zip(positions, samples, contents, labels, strict=True):
            try:
                if content is None:
                    raise ValueError("its bytes do not have the checksum of the index")
                take(position, Stored(place, index.keys[sample], index.extensions[sample], content, label))
            except ValueError as error:
                self._set_aside(index, place, (shard, sample), error)
                damaged.append(position)
        return damaged

    def _contents(self, resolution: int, shard: int, samples: list[int]) -> Sequence[Bytes | None]:
        """The samples' bytes, read again while they do not have their checksums; None for those that never do."""
        index = self._index(resolution, shard)
        offsets, sizes = index.offsets[samples].tolist(), index.sizes[samples].tolist()
        for attempt in range(ATTEMPTS):
            if attempt:
                self.faults.count("read_again")
                self.fetcher.drop(resolution, shard)
            try:
                contents = self.fetcher.contents(resolution, shard, offsets, sizes)
            except ShardError:
                if attempt == ATTEMPTS - 1:
                    raise
                continue
            if index.crc32 is None:
                return contents
            sums = index.crc32[samples].tolist()
            right = [zlib.crc32(content) == wanted for content, wanted in zip(contents, sums, strict=True)]
            if all(right):
                return contents
        check_unchanged(self.shards.locate(resolution, shard))
        return [content if ok else None for content, ok in zip(contents, right, strict=True)]

    def _set_aside(self, index: ShardIndex, place: ShardPlace, at: Place, error: ValueError) -> None:
        """Notes that a sample is damaged, and why."""
        if index.crc32 is None:
            check_unchanged(place)
        sample = at[1]
        self.faults.add_sample(
            at,
            ValueError(
                f"{place.name}: sample {index.keys[sample]!r} at byte {index.offsets[sample]} is damaged "
                f"({error}); run `bigtrain shards verify {self.shards.url}`"
            ),
        )

    def _load_index(self, resolution: int, shard: int) -> ShardIndex:
        place = self.shards.locate(resolution, shard)
        for attempt in range(ATTEMPTS):
            try:
                index = ShardIndex.from_json(self.shards.read_index(resolution, shard))
                break
            except (ValueError, FileNotFoundError) as error:
                if attempt == ATTEMPTS - 1:
                    raise ShardError(f"the index of {place.name}: {error}") from error
        if len(index) != place.info.samples:
            raise ShardError(
                f"the index of {place.name} lists {len(index)} samples, the manifest {place.info.samples}: "
                f"run `bigtrain shards verify {self.shards.url}`"
            )
        return index

    def _make_decoded(self, resolution: int) -> DecodedImages | None:
        shards = self.shards
        fits = DecodedImages.size(shards.samples, shards.channels, resolution) <= self.decoded_bytes
        return DecodedImages(shards.shard_samples, shards.channels, resolution) if fits else None


def _by_shard(places: list[Place], positions: Sequence[int]) -> dict[int, list[int]]:
    """The positions of each shard's samples."""
    by_shard: dict[int, list[int]] = defaultdict(list)
    for position in positions:
        by_shard[places[position][0]].append(position)
    return by_shard
