"""Where samples go: a grid, a folder or zip of pictures, or an array file."""

from __future__ import annotations

import io
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid

from bigtrain.storage import Storage

SMALLEST_TILE = 32  # pixels; smaller images are shown enlarged by a whole factor


def enlarged(images: Tensor) -> Tensor:
    """Images [n, c, h, w] as they are shown: tiny ones several times as large."""
    zoom = max(1, SMALLEST_TILE // images.shape[-1])
    return images.repeat_interleave(zoom, dim=2).repeat_interleave(zoom, dim=3)


def grid(images: Tensor, columns: int) -> Image.Image:
    """One picture of images uint8 [n, c, h, w], row by row."""
    sheet = make_grid(enlarged(images), nrow=columns, padding=2, pad_value=128)
    return Image.fromarray(sheet.permute(1, 2, 0).numpy())


def grid_columns(num: int, num_classes: int) -> int:
    """A column for each class if there are at most 32 of them, otherwise a square."""
    return num_classes if 0 < num_classes <= 32 else round(num**0.5) or 1


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="png")
    return buffer.getvalue()


def picture(image: Tensor) -> Image.Image:
    """A picture of one image uint8 [c, h, w]."""
    pixels = image.permute(1, 2, 0).numpy()
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def place_of(url: str) -> tuple[Storage, str]:
    """The folder that a URL is in, and its name there."""
    folder, _, name = url.rstrip("/").rpartition("/")
    return Storage(folder or ("/" if url.startswith("/") else ".")), name


class Output(ABC):
    """Takes samples batch by batch; nothing counts before `close`, except single files in a folder."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.storage, self.name = place_of(url)

    @abstractmethod
    def add(self, indices: Sequence[int], images: Tensor, labels: Tensor | None) -> None:
        """Samples of those indices: images uint8 [n, c, h, w], labels [n] or None without classes."""

    @abstractmethod
    def close(self) -> None: ...


class GridOutput(Output):
    """One PNG with all samples, `columns` in a row."""

    def __init__(self, url: str, columns: int) -> None:
        super().__init__(url)
        self.columns, self.images = columns, list[Tensor]()

    def add(self, indices: Sequence[int], images: Tensor, labels: Tensor | None) -> None:
        self.images.append(images)

    def close(self) -> None:
        self.storage.write(self.name, png(grid(torch.cat(self.images), self.columns)))


def _file_name(index: int, label: int | None) -> str:
    return f"{index:06d}.png" if label is None else f"{index:06d}_{label}.png"


class FolderOutput(Output):
    """One PNG a sample, `000123_label.png`."""

    def add(self, indices: Sequence[int], images: Tensor, labels: Tensor | None) -> None:
        for i, index in enumerate(indices):
            name = _file_name(index, None if labels is None else int(labels[i]))
            self.storage.write(f"{self.name}/{name}", png(picture(images[i])))

    def close(self) -> None: ...


class ZipOutput(Output):
    """A zip of such PNGs."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.buffer = io.BytesIO()
        self.zip = zipfile.ZipFile(self.buffer, "w", zipfile.ZIP_STORED)

    def add(self, indices: Sequence[int], images: Tensor, labels: Tensor | None) -> None:
        for i, index in enumerate(indices):
            name = _file_name(index, None if labels is None else int(labels[i]))
            self.zip.writestr(zipfile.ZipInfo(name), png(picture(images[i])))  # ZipInfo: no time, so equal bytes

    def close(self) -> None:
        self.zip.close()
        self.storage.write(self.name, self.buffer.getvalue())


class ArrayOutput(Output):
    """A compressed .npz with uint8 `images` [n, h, w, c] and, with classes, int64 `labels` [n]."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.images, self.labels = list[Tensor](), list[Tensor]()

    def add(self, indices: Sequence[int], images: Tensor, labels: Tensor | None) -> None:
        self.images.append(images.permute(0, 2, 3, 1))
        self.labels.extend([] if labels is None else [labels])

    def close(self) -> None:
        arrays = {"images": torch.cat(self.images).numpy()}
        if self.labels:
            arrays["labels"] = torch.cat(self.labels).numpy()
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
        self.storage.write(self.name, buffer.getvalue())


def open_output(url: str, columns: int) -> Output:
    """The output that a URL's ending asks for: .png a grid, .zip, .npz, anything else a folder."""
    if url.endswith(".png"):
        return GridOutput(url, columns)
    if url.endswith(".zip"):
        return ZipOutput(url)
    return ArrayOutput(url) if url.endswith(".npz") else FolderOutput(url)
