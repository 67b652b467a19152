"""A zip of images, read in place, also in an object store."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bigtrain.data.images import UnusableImageError
from bigtrain.data.sources.base import Skip
from bigtrain.data.sources.remote import opened
from bigtrain.data.sources.trees import Entry, Tree
from bigtrain.storage import is_remote

_ENCRYPTED = 0x1


class Zip(Tree):
    """The images in a zip, or below one of its folders. Nothing is ever extracted.

    Raises:
        ValueError: as `Tree`; or if the zip is damaged, encrypted, or has no such folder.
    """

    kind = "zip"

    def __init__(self, path: Path | str, subfolder: str | None, channels: int | None, unlabelled: bool) -> None:
        self._path = path
        self._prefix = f"{subfolder.strip('/')}/" if subfolder else ""
        self._archive: zipfile.ZipFile | None = None
        skips: list[Skip] = []
        entries = list(self._entries(skips))
        if self._prefix and not entries:
            raise ValueError(f"{path}: has no folder {self._prefix!r}")
        super().__init__(f"{path}{f' ({self._prefix})' if subfolder else ''}", entries, skips, channels, unlabelled)

    def _entries(self, skips: list[Skip]) -> Iterator[Entry]:
        for position, member in enumerate(self._open().infolist()):
            if member.flag_bits & _ENCRYPTED:
                raise ValueError(f"{self._path}: {member.filename} is encrypted; make a zip without a password")
            name = member.filename.removeprefix("./")
            if member.is_dir() or not name.startswith(self._prefix):
                continue
            if name.startswith("/") or ".." in name.split("/"):
                skips.append(Skip(name, "a path that leads outside"))
                continue
            yield Entry(name.removeprefix(self._prefix), member.file_size, member.CRC, position)

    def _open(self) -> zipfile.ZipFile:
        if self._archive is None:
            try:
                self._archive = zipfile.ZipFile(opened(str(self._path)) if is_remote(str(self._path)) else self._path)
            except zipfile.BadZipFile as error:
                raise ValueError(f"{self._path}: is no zip, or a damaged one: {error}") from error
        return self._archive

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_archive": None}  # each process opens its own

    def _how_to_pass(self, deeper: str) -> str:
        return f"pass --subfolder {self._prefix}{deeper}"

    def _read(self, index: int) -> bytes:
        archive = self._open()
        try:
            return archive.read(archive.infolist()[self._positions[index]])
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
            raise UnusableImageError("unreadable", f"{type(error).__name__}: {error}") from error
