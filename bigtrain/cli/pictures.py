"""Images that are there, in a folder, a zip or shards, to be evaluated."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bigtrain.data.batches import to_tensor
from bigtrain.data.images import UnusableImageError, prepare
from bigtrain.data.manifest import MANIFEST_KEY, Manifest
from bigtrain.data.reader import Reader
from bigtrain.data.shard_set import ShardSet
from bigtrain.data.sources import Source, open_source
from bigtrain.evaluation.protocol import Provenance
from bigtrain.randomness import permutation
from bigtrain.runtime.world import World
from bigtrain.storage import Storage, is_remote

_log = logging.getLogger(__name__)


class Pictures(ABC):
    """Images of one resolution by index, uint8 [n, c, h, w], and their labels, int64 [n].

    They come in a random order, so that some of them are a fair choice, and parts of them alike, where they are sorted
    by class: number i is the same one however many are taken.

    Args:
        url: where they are.
        resolution: of the images.
        channels: 1 or 3.
        classes: names by class id; empty without labels.
        seed: of the order.
    """

    def __init__(self, url: str, resolution: int, channels: int, classes: Sequence[str], seed: int) -> None:
        self.url, self.resolution, self.channels, self.classes, self.seed = url, resolution, channels, classes, seed
        self._ids: NDArray[np.int64] | None = None  # from their class ids to those that are asked for

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, places: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Images and labels in the order in which they lie there."""

    @property
    def prepared(self) -> str | None:
        """What was done to the images, in words."""
        return None

    @property
    def labelled(self) -> bool:
        """Whether the labels are those that are asked for."""
        return self._ids is not None

    @property
    def provenance(self) -> Provenance:
        labels = "those of the images" if self.labelled else None
        return Provenance(seed=self.seed, label_distribution=labels, prepared=self.prepared)

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        return permutation(len(self), self.seed, "evaluate/images")

    def label_as(self, classes: Sequence[str]) -> None:
        """Labels become the ids of these classes by name: those of the real images. Else they are not used."""
        strange = sorted(set(self.classes) - set(classes))
        if strange and classes:
            _log.warning(
                "%r has classes that the real images do not have, such as %r (theirs: %s): its labels are not used",
                self.url,
                strange[0],
                ", ".join(classes[:5]) + (" …" if len(classes) > 5 else ""),
            )
        if self.classes and not strange:
            self._ids = np.array([list(classes).index(name) for name in self.classes])

    def __call__(self, indices: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        images, labels = self.read(self._order[indices].tolist())
        return images, labels if self._ids is None else torch.from_numpy(self._ids[labels.numpy()])

    def tell_of_others(self, world: World) -> None:  # noqa: B027 (most change nothing)
        """Rank 0 says in one line which of the images that the ranks have seen were changed."""


class Files(Pictures):
    """Images of any size of a source: what has another size is cropped and resized as `shards build` does.

    Args:
        url: of the source.
        source: of the images.
        resolution: of what is made of them; the first image's shorter side without it.
        seed: of the order.
    """

    def __init__(self, url: str, source: Source, resolution: int | None, seed: int) -> None:
        self.source = source
        super().__init__(url, resolution or min(self._load(0).size), source.channels, source.classes, seed)
        self._others: set[int] = set()  # of another size

    def __len__(self) -> int:
        return len(self.source)

    def read(self, places: Sequence[int]) -> tuple[Tensor, Tensor]:
        pixels = np.stack([self._pixels(place) for place in places])
        labels = [self.source.label(place) or 0 for place in places]
        return torch.from_numpy(pixels).permute(0, 3, 1, 2), torch.tensor(labels)

    @property
    def prepared(self) -> str:
        return f"cropped to the central square and averaged by area to {self.resolution} pixels"

    def tell_of_others(self, world: World) -> None:
        others = {int(place) for of_rank in world.gather_lists(sorted(self._others)) for place in of_rank}
        if others and world.is_first:
            first = self._load(place := min(others))
            _log.warning(
                "images of another size than %d² were cropped and resized to it: %d, the first is %s of %dx%d",
                self.resolution,
                len(others),
                self.source.name(place),
                first.width,
                first.height,
            )

    def _pixels(self, place: int) -> NDArray[np.uint8]:
        image = self._load(place)
        if image.size != (self.resolution, self.resolution):
            self._others.add(place)
        try:
            made = prepare(image, [self.resolution], self.channels)[self.resolution]
        except UnusableImageError as error:
            raise self._damaged(place, error) from error
        return np.asarray(made).reshape(self.resolution, self.resolution, self.channels)

    def _load(self, place: int):  # type: ignore[no-untyped-def]
        try:
            return self.source.load(place)
        except UnusableImageError as error:
            raise self._damaged(place, error) from error

    def _damaged(self, place: int, error: UnusableImageError) -> ValueError:
        said = ": ".join(part for part in (error.reason, error.detail) if part)
        return ValueError(f"image {self.source.name(place)!r} cannot be measured ({said}); repair it or take it away")


class Stored(Pictures):
    """The images of shards as they are stored, read as those of a reference are.

    Args:
        shards: of the images.
        resolution: at which they are read; the largest stored one without it.
        channels: that they must have; None for any.
        seed: of the order.

    Raises:
        ValueError: if they are not stored so.
    """

    def __init__(self, shards: ShardSet, resolution: int | None, channels: int | None, seed: int) -> None:
        super().__init__(shards.url, resolution or max(shards.resolutions), shards.channels, shards.classes, seed)
        shards.check([self.resolution])
        if channels not in (None, shards.channels):
            raise ValueError(
                f"the images of {self.url!r} have {shards.channels} channels, but {channels} are compared: build them "
                f"again with --channels {channels}"
            )
        self._reader = Reader(shards)
        self._starts = np.cumsum([0, *shards.shard_samples])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def read(self, places: Sequence[int]) -> tuple[Tensor, Tensor]:
        shards = np.searchsorted(self._starts, places, side="right") - 1
        within = np.asarray(places) - self._starts[shards]
        images, labels = self._reader.read(list(zip(shards.tolist(), within.tolist(), strict=True)), self.resolution)
        return to_tensor(images).contiguous(), torch.from_numpy(labels)


def open_pictures(url: str, resolution: int | None = None, channels: int | None = None, seed: int = 0) -> Pictures:
    """The images of a folder, a zip or shards, local ones or those of an object store.

    Raises:
        ValueError: if there are none, or they are not what is asked for.
    """
    storage = _shards(url)
    if storage is not None:
        shards = ShardSet.of(storage, Manifest.load(storage))
        if resolution or shards.resolutions:
            return Stored(shards, resolution, channels, seed)
    try:
        source = open_source(url, channels)
    except ValueError:  # also of folders that are no classes
        source = open_source(url, channels, unlabelled=True)
    if len(source) == 0:
        raise ValueError(f"there are no images in {url!r}")
    return Files(url, source, resolution, seed)


def _shards(url: str) -> Storage | None:
    """Where the shards with a manifest are that a URL names; None if it names none."""
    url = url.removeprefix("shards:")
    if "{" in url or url.endswith(".tar") or not (is_remote(url) or Path(url).is_dir()):
        return None
    storage = Storage(url)
    return storage if storage.exists(MANIFEST_KEY) else None
