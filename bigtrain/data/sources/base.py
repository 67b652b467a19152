"""What every source of images is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image


class Skip(NamedTuple):
    """Something in a source that is not in the shards: its name, a reason to count by, and what exactly is wrong."""

    name: str
    reason: str
    detail: str = ""


class Source(ABC):
    """Images in a fixed order, with or without labels. It can be pickled, as each worker of a build gets its own.

    Attributes:
        kind: of the source, for the manifest.
        classes: names by class id; empty without labels.
        channels: of the images in the shards, 1 or 3.
        native_resolution: the shorter side of all images in pixels, if they are equal and it is known.
        skips: what was found and left out before any image was read.
        folder: where the source lies, if it is a folder.
    """

    kind: str
    classes: list[str]
    channels: int
    native_resolution: int | None = None
    skips: Sequence[Skip] = ()
    folder: Path | None = None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def name(self, index: int) -> str:
        """What to call an image in messages."""

    @abstractmethod
    def label(self, index: int) -> int | None:
        """The class id; `None` without labels."""

    @abstractmethod
    def load(self, index: int) -> Image.Image:
        """An image as it is; its pixels may be decoded later.

        Raises:
            UnusableImageError: if this image is damaged.
            OSError: if the source itself cannot be read.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """Another one for another source: SHA-256 of the images, or of their names, sizes and times or checksums."""
