"""Resizing as the libraries of scores do it: the same images resized otherwise have another FID (arXiv 2104.11222)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import interpolate


@dataclass(frozen=True)
class Resize:
    """A way of resizing, and how scores call it: `words` say it of a `size` in pixels.

    Args:
        words: with `{size}` in them.
        function: from uint8 images [n, c, h, w] and a size to floats in [0, 255], [n, c, size, size].
    """

    words: str
    function: Callable[[Tensor, int], Tensor]

    def __call__(self, images: Tensor, size: int) -> Tensor:
        return self.function(images, size)

    def of(self, size: int) -> str:
        return self.words.format(size=size)


def _tensorflow_1(images: Tensor, size: int) -> Tensor:
    """Bilinear between the four pixels at out · (in / size), which is not the pixels' centre; no antialias.

    Along the rows, then along the columns, each x + (next - x)·t: to the bit what TensorFlow computes of four pixels.
    """
    along_rows = _between_neighbours(images.float(), size, 3)
    return _between_neighbours(along_rows, size, 2)


def _between_neighbours(images: Tensor, size: int, dim: int) -> Tensor:
    """One dimension resized."""
    length = images.shape[dim]
    place = torch.arange(size, dtype=torch.float32, device=images.device) * (length / size)
    low = place.long()
    first, second = (images.index_select(dim, index) for index in (low, (low + 1).clamp(max=length - 1)))
    part = (place - low).unflatten(0, (-1, *[1] * (3 - dim)))  # [size] or [size, 1]
    return first + (second - first) * part


def _bilinear(images: Tensor, size: int) -> Tensor:
    return interpolate(images.float(), size=(size, size), mode="bilinear", align_corners=False)


def _bilinear_antialias(images: Tensor, size: int) -> Tensor:
    return interpolate(images.float(), size=(size, size), mode="bilinear", align_corners=False, antialias=True)


def _bicubic_float(images: Tensor, size: int) -> Tensor:
    """Pillow's bicubic of one channel in mode F: first along the rows, stored as float32, then along the columns."""
    columns, rows = (_bicubic_weights(length, size).to(images.device) for length in images.shape[:1:-1])
    along_rows = (images.double() @ columns.T).float()
    return (rows @ along_rows.double()).float().clamp(0, 255)


def _bicubic_uint8(images: Tensor, size: int) -> Tensor:
    """Pillow's bicubic of an RGB image: weights of 22 binary places, rounded to uint8 after each direction."""
    columns, rows = (
        (_bicubic_weights(length, size) * 2**22).round().to(images.device) for length in images.shape[:1:-1]
    )
    along_rows = _rounded(images.double() @ columns.T)
    return _rounded(rows @ along_rows).float()


def _rounded(sums: Tensor) -> Tensor:
    """Whole numbers in units of 2^-22 to the nearest uint8 value; float64 holds them exactly."""
    return ((sums + 2**21) / 2**22).floor().clamp(0, 255)


@lru_cache(maxsize=16)
def _bicubic_weights(length: int, size: int) -> Tensor:
    """What each of `size` pixels takes of the `length` old ones, float64 [size, length]: Keys' cubic with a = -1/2.

    Where the image shrinks, the cubic is stretched over as many pixels as become one. Rows add up to 1.
    """
    if size == length:
        return torch.eye(size, dtype=torch.float64)
    stretch = max(length / size, 1.0)
    centre = (torch.arange(size, dtype=torch.float64) + 0.5) * (length / size)
    first, last = ((centre + side * 2 * stretch + 0.5).trunc().clamp(0, length)[:, None] for side in (-1, 1))
    pixel = torch.arange(length, dtype=torch.float64)
    x = ((pixel + 0.5 - centre[:, None]) / stretch).abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    weights = torch.where(x < 1, near, torch.where(x < 2, far, 0.0))
    weights = torch.where((pixel >= first) & (pixel < last), weights, 0.0)
    return weights / weights.sum(dim=1, keepdim=True)


RESIZES = {
    "tensorflow": Resize("bilinear {size} as in TensorFlow 1, without antialias", _tensorflow_1),
    "bilinear": Resize("bilinear {size} as in torch, without antialias", _bilinear),
    "bilinear-antialias": Resize("bilinear {size} as in torch, with antialias", _bilinear_antialias),
    "bicubic-float": Resize("bicubic {size} as in Pillow, each channel in float, clipped, not rounded", _bicubic_float),
    "bicubic-uint8": Resize("bicubic {size} as in Pillow, rounded to uint8", _bicubic_uint8),
}
