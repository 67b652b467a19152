"""A folder or zip of images to be evaluated."""

from __future__ import annotations

import logging

import numpy as np
import torch
from torch import Tensor

from bigtrain.data.images import UnusableImageError, prepare
from bigtrain.data.sources import Source, open_source
from bigtrain.evaluation.protocol import Provenance

_log = logging.getLogger(__name__)


class Pictures:
    """Images of one resolution by index, uint8 [n, c, h, w], with labels that mean nothing.

    What has another size is cropped and resized as `shards build` does with real images.

    Args:
        source: of the images.
        resolution: of what is made of them; the first image's shorter side without it.
        channels: 1 or 3.
    """

    def __init__(self, source: Source, resolution: int | None, channels: int) -> None:
        self.source, self.channels = source, channels
        self.resolution = resolution or min(self._load(0).size)
        self._others: dict[int, str] = {}

    @property
    def provenance(self) -> Provenance:
        return Provenance(prepared=f"cropped to the central square and averaged by area to {self.resolution} pixels")

    def __len__(self) -> int:
        return len(self.source)

    def __call__(self, indices: np.ndarray) -> tuple[Tensor, Tensor]:
        pixels = np.stack([self._pixels(int(index)) for index in indices])
        return torch.from_numpy(pixels).permute(0, 3, 1, 2), torch.zeros(len(indices), dtype=torch.int64)

    def tell_of_others(self) -> None:
        """Says in one line which of the images seen had another size."""
        if self._others:
            first = self._others[min(self._others)]
            _log.warning(
                "images of another size than %d² were cropped and resized to it: %d, the first is %s",
                self.resolution,
                len(self._others),
                first,
            )

    def _pixels(self, index: int) -> np.ndarray:
        image = self._load(index)
        if image.size != (self.resolution, self.resolution):
            self._others[index] = f"{self.source.name(index)} of {image.width}x{image.height}"
        try:
            made = prepare(image, [self.resolution], self.channels)[self.resolution]
        except UnusableImageError as error:
            raise self._damaged(index, error) from error
        return np.asarray(made).reshape(self.resolution, self.resolution, self.channels)

    def _load(self, index: int):  # type: ignore[no-untyped-def]
        try:
            return self.source.load(index)
        except UnusableImageError as error:
            raise self._damaged(index, error) from error

    def _damaged(self, index: int, error: UnusableImageError) -> ValueError:
        said = ": ".join(part for part in (error.reason, error.detail) if part)
        return ValueError(f"image {self.source.name(index)!r} cannot be measured ({said}); repair it or take it away")


def open_pictures(url: str, resolution: int | None = None, channels: int | None = None) -> Pictures:
    """The images of a folder or zip.

    Raises:
        ValueError: if there are none.
    """
    source = open_source(url, channels, unlabelled=True)
    if len(source) == 0:
        raise ValueError(f"there are no images in {url!r}")
    return Pictures(source, resolution, source.channels)
