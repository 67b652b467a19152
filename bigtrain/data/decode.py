"""From the bytes of an image to pixels. Nothing but images is ever decoded, and nothing is unpickled."""

from __future__ import annotations

import io

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

Bytes = bytes | memoryview
OTHER_FORMATS = ("PNG", "WEBP")  # no other reader of Pillow is tried


def decode(content: Bytes, extension: str, channels: int, resolution: int) -> NDArray[np.uint8]:
    """Pixels uint8 [resolution, resolution, channels].

    Raises:
        ValueError: if the bytes are not an image of that extension and resolution.
    """
    try:
        pixels = (_jpeg if extension in ("jpg", "jpeg") else _other)(content, channels, resolution)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"not a readable {extension} image ({error})") from error
    return pixels.reshape(resolution, resolution, channels)


def _check_size(width: int, height: int, resolution: int) -> None:
    """Before the pixels are decoded, so that a bomb stays closed."""
    if (width, height) != (resolution, resolution):
        raise ValueError(f"an image of {width}x{height} pixels, not of {resolution}x{resolution} as its shard says")


def _jpeg(content: Bytes, channels: int, resolution: int) -> NDArray[np.uint8]:
    height, width, *_ = simplejpeg.decode_jpeg_header(content)
    _check_size(width, height, resolution)
    return simplejpeg.decode_jpeg(content, colorspace="GRAY" if channels == 1 else "RGB")


def _other(content: Bytes, channels: int, resolution: int) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(content), formats=OTHER_FORMATS) as image:
        _check_size(*image.size, resolution)
        mode = "L" if channels == 1 else "RGB"
        return np.asarray(image if image.mode == mode else image.convert(mode))
