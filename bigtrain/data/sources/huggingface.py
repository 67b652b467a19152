"""Data sets of the Hugging Face hub or on this machine, streamed once through the package `datasets`."""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from bigtrain.data.images import open_image
from bigtrain.data.sources.base import Source
from bigtrain.data.sources.unpickled import PickleError, no_pickles

_NEEDS = "needs the package `datasets`: run `pip install 'bigtrain[hf]'`"
_LABEL = "label"


class Columns(NamedTuple):
    """The columns of a data set that are used, and the names of its classes."""

    image: str
    label: str | None
    classes: list[str]


class Spooled(Source):
    """Images that came one after the other and now lie in a temporary file, encoded as they were.

    Args:
        name: as on the command line, for messages.
        rows: bytes of an image, and its class id.
        classes: names by class id; without them as many as the class ids ask for, or none.
        channels: of the images in the shards; 3 unless given.

    Raises:
        ValueError: if there is no image, or a class id is none of the classes.
    """

    kind = "hf"

    def __init__(
        self, name: str, rows: Iterator[tuple[bytes, int | None]], classes: list[str], channels: int | None
    ) -> None:
        self._name, self.channels = name, channels or 3
        folder = tempfile.mkdtemp(prefix="bigtrain-hf-")
        self._remove = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self._path = Path(folder) / "images"
        sizes: list[int] = []
        labels: list[int] = []
        digest = hashlib.sha256(repr(classes).encode())
        with self._path.open("wb") as file:
            for content, label in rows:
                file.write(content)
                sizes.append(len(content))
                labels += [] if label is None else [label]
                digest.update(f"{len(content)} {label} ".encode() + content)
        if not sizes:
            raise ValueError(f"SOURCE {name!r} has no images")
        self._starts = np.cumsum([0, *sizes])
        self._labels = np.array(labels, dtype=np.int64)
        if labels and min(labels) < 0:
            raise ValueError(f"SOURCE {name!r} has samples without a class (-1); choose another split, or --unlabelled")
        if labels and classes and max(labels) >= len(classes):
            raise ValueError(f"SOURCE {name!r}: label {max(labels)} is none of its {len(classes)} classes")
        self.classes = classes or ([str(label) for label in range(max(labels) + 1)] if labels else [])
        self._fingerprint = digest.hexdigest()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_remove": None}  # the process that made it removes it

    def __len__(self) -> int:
        return len(self._starts) - 1

    def name(self, index: int) -> str:
        return f"{self._name}:{index}"

    def label(self, index: int) -> int | None:
        return int(self._labels[index]) if self.classes else None

    def load(self, index: int) -> Image.Image:
        with self._path.open("rb") as file:
            file.seek(int(self._starts[index]))
            return open_image(file.read(int(self._starts[index + 1] - self._starts[index])))

    def fingerprint(self) -> str:
        return self._fingerprint


def huggingface(rest: str, channels: int | None, unlabelled: bool) -> Spooled:
    """The data set `NAME[:SPLIT]`, the split `train` unless given; all of it is streamed, once, to a temporary file.

    Raises:
        ValueError: if `datasets` is not installed, the data set cannot be opened, or has no column of images.
    """
    name = f"hf:{rest}"
    try:
        import datasets  # noqa: PLC0415 - an extra, and slow to import
    except ImportError:
        raise ValueError(f"SOURCE {name!r} {_NEEDS}") from None
    try:
        with no_pickles():
            found = _opened(datasets, name, *rest.partition(":")[::2])
            columns = _columns(name, datasets, found, unlabelled)
            return Spooled(name, _rows(datasets, found, columns), columns.classes, channels)
    except PickleError:
        raise ValueError(f"SOURCE {name!r} keeps its images in pickles, which are never read") from None
    except (ValueError, OSError):
        raise
    except Exception as error:  # of the hub's client and of the readers of many formats
        raise OSError(f"SOURCE {name!r} cannot be read: {_first_line(error)}") from error


def _opened(datasets: Any, name: str, path: str, split: str) -> Any:
    """The data set, of which nothing is read yet."""
    try:
        return datasets.load_dataset(path, split=split or "train", streaming=True)
    except PickleError:
        raise
    except ImportError as error:
        raise ValueError(f"SOURCE {name!r} {_NEEDS} ({error})") from error
    except Exception as error:  # whatever `datasets` and the hub's client meet
        text = f"cannot be opened: {_first_line(error)}; are name and split right, and is the network there?"
        raise ValueError(f"SOURCE {name!r} {text}") from error


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def _columns(name: str, datasets: Any, found: Any, unlabelled: bool) -> Columns:
    """The first column of images, and the first of class labels or else a `label` of integers; says which."""
    features = found.features
    if features is None:  # formats that do not declare them, such as JSON, tell by their first rows
        features = found._resolve_features().features
    images = [column for column, feature in features.items() if isinstance(feature, datasets.Image)]
    if not images:
        raise ValueError(f"SOURCE {name!r} has no column of images; it has {', '.join(features)}")
    labels = [column for column, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    integers = str(getattr(features.get(_LABEL), "dtype", "")).startswith(("int", "uint"))
    label = None if unlabelled else labels[0] if labels else _LABEL if integers else None
    classes = list(features[label].names or []) if label in labels else []
    told = f"labels from column {label!r}" if label else "no labels"
    print(f"shards build: {name}: images from column {images[0]!r}, {told}", file=sys.stderr, flush=True)
    return Columns(images[0], label, classes)


def _rows(datasets: Any, found: Any, columns: Columns) -> Iterator[tuple[bytes, int | None]]:
    """The bytes of the images as they are, and their class ids."""
    chosen = found.select_columns([name for name in (columns.image, columns.label) if name])
    for row in chosen.cast_column(columns.image, datasets.Image(decode=False)):
        image = row[columns.image] or {}
        label = None if columns.label is None else -1 if row[columns.label] is None else int(row[columns.label])
        yield image.get("bytes") or _content(datasets, image.get("path")), label


def _content(datasets: Any, path: str | None) -> bytes:
    """The bytes of a file beside the data; none if there is no image, which is then told as unreadable."""
    if path is None:
        return b""
    with datasets.utils.file_utils.xopen(path, "rb") as file:
        return file.read()
