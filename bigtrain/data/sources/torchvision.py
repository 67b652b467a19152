"""The image data sets of torchvision, by the names of their classes."""

from __future__ import annotations

import hashlib
import inspect
from typing import Any

import numpy as np
from PIL import Image

from bigtrain.data.images import UnusableImageError
from bigtrain.data.sources.base import Source
from bigtrain.data.sources.unpickled import PickleError, no_pickles

ROOT = "data"


class Torchvision(Source):
    """A data set of torchvision: images and class ids.

    Args:
        name: as on the command line, for messages.
        dataset: of torchvision; its items are an image and a class id.
        channels: of the images in the shards; 3 unless given.
        unlabelled: drop the labels.

    Raises:
        ValueError: if its targets are no class ids.
    """

    kind = "torchvision"

    def __init__(self, name: str, dataset: Any, channels: int | None, unlabelled: bool) -> None:
        self._name, self._dataset, self.channels = name, dataset, channels or 3
        self.classes: list[str] = []
        if not len(dataset):
            raise ValueError(f"SOURCE {name!r} has no images")
        self._labels = None if unlabelled else _labels(name, dataset)
        if self._labels is not None:
            self.classes = _class_names(dataset, int(self._labels.max()) + 1)

    def __len__(self) -> int:
        return len(self._dataset)

    def name(self, index: int) -> str:
        return f"{self._name}:{index}"

    def label(self, index: int) -> int | None:
        return None if self._labels is None else int(self._labels[index])

    def load(self, index: int) -> Image.Image:
        try:
            image = self._dataset[index][0]
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise UnusableImageError("unreadable", f"{type(error).__name__}: {error}") from error
        if not isinstance(image, Image.Image):
            raise UnusableImageError("no image", f"the item is a {type(image).__name__}")
        return image

    def fingerprint(self) -> str:
        """Of the labels and of some images, as there is no other way to know what a data set has."""
        digest = hashlib.sha256(repr((self._name, len(self), self.classes, self._dataset)).encode())
        digest.update(b"" if self._labels is None else self._labels.tobytes())
        for index in np.unique(np.linspace(0, len(self) - 1, 16).astype(int)):
            digest.update(np.asarray(self.load(int(index))).tobytes())
        return digest.hexdigest()


def torchvision(
    rest: str, channels: int | None, unlabelled: bool, split: str | None = None, download: bool = False
) -> Torchvision:
    """The data set `NAME[:ROOT]`.

    Args:
        rest: what follows `torchvision:`.
        channels: as of `Torchvision`.
        unlabelled: as of `Torchvision`.
        split: of the data set; `train` unless given.
        download: what is not there.

    Raises:
        ValueError: if there is no such data set or split, it is not there, or it is kept in pickles.
    """
    from torchvision import datasets  # noqa: PLC0415 - it imports torch

    name, _, root = rest.partition(":")
    found = getattr(datasets, name, None) if name in datasets.__all__ else None
    if not (inspect.isclass(found) and issubclass(found, datasets.VisionDataset)):
        close = ", ".join(other for other in datasets.__all__ if name.lower() in other.lower()) if name else ""
        raise ValueError(f"SOURCE 'torchvision:{rest}': torchvision.datasets has no {name!r}; {_similar(close)}")
    options = _options(found, root or ROOT, split, download)
    try:
        with no_pickles():
            dataset = found(**options)
    except PickleError:
        raise ValueError(
            f"SOURCE 'torchvision:{rest}' keeps its images in pickles, which are never read; "
            f"take them from elsewhere, such as hf:NAME"
        ) from None
    except Exception as error:  # each data set has its own way to say what is missing
        remedy = "is the network there?" if download else "if it is not there, pass --download"
        raise ValueError(f"SOURCE 'torchvision:{rest}' cannot be opened: {_first_line(error)}; {remedy}") from error
    return Torchvision(f"torchvision:{name}", dataset, channels, unlabelled)


def _similar(close: str) -> str:
    return f"did you mean {close}?" if close else "choose one of its documentation, such as FashionMNIST or SVHN"


def _options(found: type, root: str, split: str | None, download: bool) -> dict[str, Any]:
    """Arguments for the constructor, which are not the same for all data sets."""
    known = inspect.signature(found).parameters
    options: dict[str, Any] = {}
    if "root" in known:
        options["root"] = root
    if "download" in known:
        options["download"] = download
    if "split" in known:
        options["split"] = split or "train"
    elif "train" in known:
        if split not in (None, "train", "test"):
            raise ValueError(f"split (={split!r}) of {found.__name__} must be train or test")
        options["train"] = split != "test"
    elif split is not None:
        raise ValueError(f"split (={split!r}): {found.__name__} has none")
    needed = [
        name
        for name, parameter in known.items()
        if name not in options and parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
    ]
    if needed:
        raise ValueError(f"torchvision:{found.__name__} needs {', '.join(needed)}, which cannot be given here")
    return options


def _labels(name: str, dataset: Any) -> np.ndarray:
    """The class ids: of a column that most data sets have, else of every item."""
    columns = (getattr(dataset, column, None) for column in ("targets", "labels", "_labels", "y"))
    found = next((column for column in columns if column is not None and len(column) == len(dataset)), None)
    pairs = getattr(dataset, "samples", None) or getattr(dataset, "_samples", None) or dataset
    try:
        ids = found if found is not None else (pairs[index][1] for index in range(len(dataset)))
        labels = np.array([int(value) for value in ids], dtype=np.int64)
    except (TypeError, ValueError, RuntimeError):  # of None, a dictionary, a tensor of many
        labels = np.array([-1])
    if labels.min() < 0:
        raise ValueError(f"SOURCE {name!r}: its targets are no class ids; pass --unlabelled to take its images alone")
    return labels


def _class_names(dataset: Any, count: int) -> list[str]:
    names = getattr(dataset, "classes", None)
    if isinstance(names, list | tuple) and len(names) >= count and len(set(map(str, names))) == len(names):
        return [str(name) for name in names]
    return [str(label) for label in range(count)]


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
