"""Sources that are arrays in memory: scikit-learn's digits, and the idx files of MNIST and its family."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bigtrain.data.sources.base import Source

_SPLITS = ("train", "t10k")
_GZIP = b"\x1f\x8b"


class Arrays(Source):
    """Grey images of one size.

    Args:
        kind: of the source.
        images: uint8 [samples, height, width].
        labels: integers [samples]; the classes are those that occur, in ascending order. `None` without labels.
        channels: of the images in the shards; 1 unless given.
    """

    def __init__(
        self, kind: str, images: NDArray[np.uint8], labels: NDArray[np.int64] | None, channels: int | None
    ) -> None:
        self.kind, self.channels = kind, channels or 1
        self._images, self._labels = images, None
        self.classes: list[str] = []
        if labels is not None:
            values, self._labels = np.unique(labels, return_inverse=True)
            self.classes = [str(value) for value in values]
        self.native_resolution = min(images.shape[1:])

    def __len__(self) -> int:
        return len(self._images)

    def name(self, index: int) -> str:
        return f"{self.kind}:{index}"

    def label(self, index: int) -> int | None:
        return None if self._labels is None else int(self._labels[index])

    def load(self, index: int) -> Image.Image:
        return Image.fromarray(self._images[index])

    def fingerprint(self) -> str:
        digest = hashlib.sha256(repr((self._images.shape, self.classes)).encode())
        digest.update(self._images.tobytes())
        digest.update(b"" if self._labels is None else self._labels.astype("<i8").tobytes())
        return digest.hexdigest()


def digits(channels: int | None, unlabelled: bool) -> Arrays:
    """scikit-learn's 1,797 handwritten digits of 8×8 pixels, their values 0 to 16 stretched to 0 to 255."""
    from sklearn.datasets import load_digits  # noqa: PLC0415 - a second to import, for one source

    found = load_digits()
    images = np.round(found.images * 255 / 16).astype(np.uint8)
    return Arrays("digits", images, None if unlabelled else found.target, channels)


def idx(folder: Path, channels: int | None, unlabelled: bool) -> Arrays:
    """All images of a folder in the format of MNIST: the training files, then the test files; plain or gzip.

    Raises:
        ValueError: naming the file that is missing, truncated, of another format, or does not fit the others.
    """
    found = {split: _find_pair(folder, split) for split in _SPLITS}
    pairs = [(_read_idx(images, 3), _read_idx(labels, 1), images) for images, labels in filter(None, found.values())]
    if not pairs:
        raise ValueError(f"idx:{folder}: there is no {_SPLITS[0]}-images-idx3-ubyte or .gz in this folder")
    for images, labels, name in pairs:
        if len(images) != len(labels):
            raise ValueError(f"{name}: has {len(images)} images, but its label file has {len(labels)} labels")
        if images.shape[1:] != pairs[0][0].shape[1:]:
            raise ValueError(f"{name}: its images are {images.shape[1:]}, those of {pairs[0][2]} differ")
    every_image = np.concatenate([images for images, _, _ in pairs])
    every_label = np.concatenate([labels for _, labels, _ in pairs]).astype(np.int64)
    return Arrays("idx", every_image, None if unlabelled else every_label, channels)


def _find_pair(folder: Path, split: str) -> tuple[Path, Path] | None:
    """The image and the label file of a split; `None` if there is neither."""
    stems = (f"{split}-images-idx3-ubyte", f"{split}-labels-idx1-ubyte")
    images, labels = (
        next((path for path in (folder / stem, folder / f"{stem}.gz") if path.is_file()), None) for stem in stems
    )
    if images and labels:
        return images, labels
    if images or labels:
        missing = stems[0] if labels else stems[1]
        raise ValueError(f"idx:{folder}: {missing} (plain or .gz) is missing")
    return None


def _read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """An array of bytes. The file: two zeros, type 8, number of dimensions, each as big-endian int32, the values."""
    content = path.read_bytes()
    if content[:2] == _GZIP:
        try:
            content = gzip.decompress(content)
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(f"{path}: is damaged: {error}") from error
    if content[:4] != bytes((0, 0, 8, dimensions)):
        raise ValueError(f"{path}: is no idx file of {dimensions} dimensions of bytes (it starts {content[:4]!r})")
    start = 4 + 4 * dimensions
    if len(content) < start:
        raise ValueError(f"{path}: has {len(content)} bytes, truncated in its header")
    shape = [int(size) for size in np.frombuffer(content, ">u4", dimensions, 4)]
    expected = start + int(np.prod(shape, dtype=object))
    if len(content) != expected:
        raise ValueError(f"{path}: has {len(content)} bytes, its header {shape} asks for {expected}")
    if expected == start:
        raise ValueError(f"{path}: holds no images: {shape}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
