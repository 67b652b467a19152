"""Between stored pixels (uint8) and the networks' range [-1, 1]."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def to_float(images: Tensor) -> Tensor:
    """uint8 pixels 0 … 255 to float32 in [-1, 1]."""
    return images.to(torch.float32, memory_format=torch.contiguous_format) / 127.5 - 1


def to_uint8(images: Tensor) -> Tensor:
    """Floats to the nearest uint8 pixel; what lies outside [-1, 1] is clamped. The inverse of `to_float`."""
    return ((images.to(torch.float32) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def enlarge(images: Tensor, resolution: int) -> Tensor:
    """Images [n, c, h, w] at a resolution that is a multiple of theirs, each pixel repeated. (Larger ones stay.)"""
    return repeated(images, max(1, resolution // images.shape[-1]))


def repeated(images: Tensor, factor: int) -> Tensor:
    """Images [n, c, h, w] so many times as large, by the nearest pixel."""
    return images.repeat_interleave(factor, dim=2).repeat_interleave(factor, dim=3) if factor > 1 else images


def fade(images: Tensor, alpha: float) -> Tensor:
    """Real images while a resolution fades in: at alpha 0 those of half the resolution, upsampled; at 1 themselves.

    (arXiv 1710.10196, section 2.)
    """
    if alpha >= 1:
        return images
    low = F.interpolate(F.avg_pool2d(images, 2), scale_factor=2, mode="nearest")
    return torch.lerp(low, images, alpha)
