"""What folders and zips have in common: image files in folders, whose first level is the class."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bigtrain.data.images import open_image
from bigtrain.data.sources.base import Skip, Source

EXTENSIONS = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"))
LARGEST_FILE = 256 * 2**20  # bytes
_IGNORED = frozenset(("__macosx", "thumbs.db"))


class Entry(NamedTuple):
    """A file: its name below the root, its size in bytes, its time or checksum, and where the source finds it."""

    name: str
    size: int
    stamp: int
    position: int = 0


class Tree(Source):
    """Images by name, sorted; the class is the first folder of the name, and any folders below it do not matter.

    Args:
        root: name of the source, for messages.
        entries: all files, in any order.
        skips: what was already left out.
        channels: of the images in the shards; 3 unless given.
        unlabelled: take all images, wherever they lie, without labels.

    Raises:
        ValueError: if there is no image, or the folders are no classes; it says which to pass instead.
    """

    def __init__(
        self, root: str, entries: Iterable[Entry], skips: list[Skip], channels: int | None, unlabelled: bool
    ) -> None:
        self.channels = channels or 3
        images, left_out = sort_out(entries)
        self.skips = sorted([*skips, *left_out])
        if not images:
            other = f"; it has {len(self.skips)} other files, such as {self.skips[0].name}" if self.skips else ""
            raise ValueError(f"{root}: holds no image ({', '.join(sorted(EXTENSIONS))}){other}")
        self._names = [image.name for image in images]
        self._positions = [image.position for image in images]
        self._labels: NDArray[np.int64] | None = None
        self.classes: list[str] = []
        if not unlabelled:
            if fault := wrong_classes(self._names):
                problem, deeper = fault
                raise ValueError(f"{root}: {problem}; {self._remedy(deeper)}")
            self._label()
        self._fingerprint = _digest(self.classes, images)

    def _label(self) -> None:
        folders = [_first(name) for name in self._names]
        self.classes = sorted({folder for folder in folders if folder is not None})
        if self.classes:
            ids = {name: label for label, name in enumerate(self.classes)}
            self._labels = np.array([ids[folder] for folder in folders if folder is not None], dtype=np.int64)

    def _remedy(self, deeper: str | None) -> str:
        anyway = "--unlabelled to take all images without labels"
        return anyway if deeper is None else f"{self._how_to_pass(deeper)}, or {anyway}"

    @abstractmethod
    def _how_to_pass(self, deeper: str) -> str:
        """How to name a folder below the root on the command line."""

    @abstractmethod
    def _read(self, index: int) -> bytes: ...

    def __len__(self) -> int:
        return len(self._names)

    def name(self, index: int) -> str:
        return self._names[index]

    def label(self, index: int) -> int | None:
        return None if self._labels is None else int(self._labels[index])

    def load(self, index: int) -> Image.Image:
        return open_image(self._read(index))

    def fingerprint(self) -> str:
        return self._fingerprint


def is_ignored(part: str) -> bool:
    """Whether a file or folder of that name is a system's own business: hidden, or what macOS and Windows leave."""
    return part.startswith(".") or part.casefold() in _IGNORED


def sort_out(entries: Iterable[Entry]) -> tuple[list[Entry], list[Skip]]:
    """The images by name, and what is left out."""
    images, skips = [], []
    for entry in entries:
        if any(is_ignored(part) for part in entry.name.split("/")):
            continue
        if PurePosixPath(entry.name).suffix.lower() not in EXTENSIONS:
            skips.append(Skip(entry.name, "not an image"))
        elif entry.size > LARGEST_FILE:
            skips.append(Skip(entry.name, "too large a file", f"{entry.size} bytes, more than {LARGEST_FILE}"))
        else:
            images.append(entry)
    return sorted(images), skips


def wrong_classes(names: list[str]) -> tuple[str, str | None] | None:
    """Why the first-level folders of these images cannot be the classes, and a deeper folder whose may; or `None`."""
    folders = sorted({folder for folder in map(_first, names) if folder is not None})
    if not folders:
        return None
    if loose := [name for name in names if "/" not in name]:
        return f"{len(loose)} images, such as {loose[0]}, lie beside the class folders {_few(folders)}", folders[0]
    if len(folders) == 1:
        return f"all images lie below {folders[0]}/, so that all labels would be the same", _deeper(names)
    inner = {folder: set[str | None]() for folder in folders}
    for name in names:
        folder, _, rest = name.partition("/")
        inner[folder].add(_first(rest))
    if None not in inner[folders[0]] and all(below == inner[folders[0]] for below in inner.values()):
        below = sorted(str(name) for name in inner[folders[0]])
        return f"{_few(folders)} all hold the same folders {_few(below)}, as splits do and classes do not", folders[0]
    return None


def _deeper(names: list[str]) -> str:
    """The deepest folder in which all images lie."""
    parents = [name.split("/")[:-1] for name in (min(names), max(names))]
    shared = [low for low, high in zip(*parents, strict=False) if low == high]
    return "/".join(shared)


def _first(name: str) -> str | None:
    folder, slash, _ = name.partition("/")
    return folder if slash else None


def _few(names: list[str], count: int = 3) -> str:
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")


def _digest(classes: list[str], images: list[Entry]) -> str:
    digest = hashlib.sha256(repr(classes).encode())
    for image in images:
        digest.update(f"{image.name}\0{image.size}\0{image.stamp}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
