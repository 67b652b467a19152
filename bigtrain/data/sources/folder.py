"""A folder of images."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from bigtrain.data.sources.base import Skip
from bigtrain.data.sources.trees import Entry, Tree, is_ignored


class Folder(Tree):
    """The images in a folder and below; links to folders are followed, unless they lead back to where they lie.

    Raises:
        ValueError: as `Tree`; or if the folder to begin with does not exist.
    """

    kind = "folder"

    def __init__(self, path: Path, subfolder: str | None, channels: int | None, unlabelled: bool) -> None:
        self.folder = path / subfolder if subfolder else path
        if not self.folder.is_dir():
            raise ValueError(f"{path}: has no folder {subfolder!r}")
        skips: list[Skip] = []
        super().__init__(str(self.folder), _walk(self.folder, skips), skips, channels, unlabelled)

    def _how_to_pass(self, deeper: str) -> str:
        assert self.folder is not None
        return f"pass {self.folder / deeper} as SOURCE"

    def _read(self, index: int) -> bytes:
        assert self.folder is not None
        return (self.folder / self.name(index)).read_bytes()


def _walk(root: Path, skips: list[Skip]) -> Iterator[Entry]:
    """All files, but for those that are ignored anyway; what cannot be followed goes to `skips`."""
    pending: list[tuple[Path, str, frozenset[tuple[int, int]]]] = [(root, "", frozenset())]
    while pending:
        folder, prefix, above = pending.pop()
        status = folder.stat()
        here = (status.st_dev, status.st_ino)
        if here in above:
            skips.append(Skip(prefix.rstrip("/"), "a link to a folder above it"))
            continue
        with os.scandir(folder) as found:
            for item in found:
                if is_ignored(item.name):
                    continue
                name = prefix + item.name
                path = folder / item.name
                if path.is_dir():
                    pending.append((path, f"{name}/", above | {here}))
                elif path.is_file():
                    yield Entry(name, item.stat().st_size, item.stat().st_mtime_ns)
                else:
                    skips.append(Skip(name, "not a file", "a broken link or a special file"))
