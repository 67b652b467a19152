"""Where samples go: a grid, an array file, or pictures by themselves, which need not be in memory all at once."""

from __future__ import annotations

import io
import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Final, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid

from bigtrain.sampling.pixels import repeated
from bigtrain.storage import Storage

SMALLEST_TILE = 32  # pixels; smaller images are shown enlarged by a whole factor
#: Pictures that may wait to be encoded or kept.
WAITING: Final = 128
OutputT = TypeVar("OutputT", bound="Output")


def enlarged(images: Tensor) -> Tensor:
    """Images [n, c, h, w] as they are shown: tiny ones several times as large."""
    return repeated(images, max(1, SMALLEST_TILE // images.shape[-1]))


def tiled(images: Tensor, columns: int) -> Tensor:
    """Images uint8 [n, c, h, w] row by row in one, uint8 [3, height, width]."""
    return make_grid(enlarged(images), nrow=columns, padding=2, pad_value=128)


def grid(images: Tensor, columns: int) -> Image.Image:
    """One picture of images uint8 [n, c, h, w], row by row."""
    return Image.fromarray(tiled(images, columns).permute(1, 2, 0).numpy())


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
    """Takes samples batch by batch inside `with`.

    At its end they are there; after an error, or an interruption, nothing is, except single files in a folder.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.storage, self.name = place_of(url)

    @abstractmethod
    def add(self, indices: Sequence[int], images: Tensor, labels: Tensor | None) -> None:
        """Samples of those indices: images uint8 [n, c, h, w], labels [n] or None without classes."""

    @abstractmethod
    def close(self) -> None:
        """Everything was added: writes what is not written yet."""

    def discard(self) -> None:  # noqa: B027 (most leave nothing)
        """After an error: removes what would be left."""

    def __enter__(self: OutputT) -> OutputT:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.discard()
            return
        try:
            self.close()
        except BaseException:
            self.discard()
            raise


class GridOutput(Output):
    """One PNG with all samples, `columns` in a row."""

    def __init__(self, url: str, columns: int) -> None:
        super().__init__(url)
        self.columns, self.images = columns, list[Tensor]()

    def add(self, indices: Sequence[int], images: Tensor, labels: Tensor | None) -> None:
        self.images.append(images)

    def close(self) -> None:
        self.storage.write(self.name, png(grid(torch.cat(self.images), self.columns)))


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


@dataclass(frozen=True)
class Picture:
    """A sample as a PNG file."""

    index: int
    label: int | None
    content: bytes

    @property
    def name(self) -> str:
        return f"{self.index:06d}.png" if self.label is None else f"{self.index:06d}_{self.label}.png"


class PictureOutput(Output):
    """Encodes samples in threads, while others are made, and keeps them in their order; only a few are in memory."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._threads = ThreadPoolExecutor(max(8, os.cpu_count() or 1), thread_name_prefix="pictures")
        self._waiting: deque[Future[Picture]] = deque()

    def make(self, index: int, image: Tensor, label: int | None) -> Picture:
        """In a thread: the picture of one sample."""
        return Picture(index, label, png(picture(image)))

    def keep(self, picture: Picture) -> None:
        """One after the other, in the order in which they were added."""

    def add(self, indices: Sequence[int], images: Tensor, labels: Tensor | None) -> None:
        known = [None] * len(images) if labels is None else labels.tolist()
        for index, image, label in zip(indices, images, known, strict=True):
            while len(self._waiting) >= WAITING:
                self.keep(self._waiting.popleft().result())
            self._waiting.append(self._threads.submit(self.make, index, image, label))

    def close(self) -> None:
        while self._waiting:
            self.keep(self._waiting.popleft().result())
        self._threads.shutdown()

    def discard(self) -> None:
        self._threads.shutdown(cancel_futures=True)
