"""Samples as files: a folder or a zip of pictures."""

from __future__ import annotations

import contextlib
import tempfile
import zipfile
from pathlib import Path

from torch import Tensor

from bigtrain.sampling.outputs import Picture, PictureOutput


class FolderOutput(PictureOutput):
    """One PNG a sample, `000123_label.png`; many are written at a time."""

    def make(self, index: int, image: Tensor, label: int | None) -> Picture:
        made = super().make(index, image, label)
        self.storage.write(f"{self.name}/{made.name}", made.content)
        return made


class ZipOutput(PictureOutput):
    """A zip of such PNGs, put together in a temporary file (in TMPDIR)."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._folder = tempfile.TemporaryDirectory(prefix="bigtrain-")
        self._path = Path(self._folder.name) / "samples.zip"
        self._zip = zipfile.ZipFile(self._path, "w", zipfile.ZIP_STORED)

    def keep(self, picture: Picture) -> None:
        self._zip.writestr(zipfile.ZipInfo(picture.name), picture.content)  # ZipInfo: no time, so equal bytes

    def close(self) -> None:
        super().close()
        self._zip.close()
        self.storage.write_file(self.name, self._path)
        self._folder.cleanup()

    def discard(self) -> None:
        super().discard()
        with contextlib.suppress(ValueError):  # interrupted within a member, it cannot be closed
            self._zip.close()
        self._folder.cleanup()
