"""Sources made for tests, and builds of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from bigtrain.data.images import UnusableImageError
from bigtrain.data.manifest import Manifest
from bigtrain.data.sources import Source
from bigtrain.data.writer import build
from bigtrain.storage import Storage


class Made(Source):
    """Images made of their index, every one of which is counted; `trouble` may raise instead."""

    kind = "made"
    classes = ["even", "odd"]  # noqa: RUF012
    channels = 1
    native_resolution: int | None = 8

    def __init__(self, count: int = 20, size: int = 8, trouble: Callable[[int], None] | None = None) -> None:
        self.count, self.size, self.trouble = count, size, trouble
        self.loaded: list[int] = []

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        return f"made:{index}"

    def label(self, index: int) -> int | None:
        return index % 2 if self.classes else None

    def load(self, index: int) -> Image.Image:
        self.loaded.append(index)
        if self.trouble:
            self.trouble(index)
        return Image.new("L", (self.size, self.size), index)

    def fingerprint(self) -> str:
        return f"{self.count} {self.size} {self.classes}"


class Photos(Made):
    """As `Made`, of unknown sizes as those of a folder."""

    native_resolution = None


def build_made(source: Source, folder: Path, **options: object) -> Manifest:
    defaults: dict[str, object] = {"resolutions": [4, 8], "samples_per_shard": 6, "workers": 1}
    return build(source, Storage(str(folder)), **(defaults | options))  # type: ignore[arg-type]


def files_of(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file by name."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def unusable(indices: set[int], reason: str = "unreadable") -> Callable[[int], None]:
    def trouble(index: int) -> None:
        if index in indices:
            raise UnusableImageError(reason, "as the test wants it")

    return trouble
