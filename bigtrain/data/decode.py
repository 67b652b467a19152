"""From the bytes of an image to pixels. Nothing but images is ever decoded, and nothing is unpickled."""

from __future__ import annotations

import io

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from bigtrain.data.images import UnusableImageError, open_image, prepare

Bytes = bytes | memoryview
_SCAN = b"\xff\xda\x00\x0c\x03"  # begins the pixels of a jpeg of three colours
OTHER_FORMATS = ("PNG", "WEBP")  # no other reader of Pillow is tried


def decode(content: Bytes, extension: str, out: NDArray[np.uint8]) -> None:
    """Decodes an image of the size of `out`, uint8 [resolution, resolution, channels], into it.

    Raises:
        ValueError: if the bytes are not an image of that extension and size.
    """
    try:
        (_jpeg if extension == "jpg" else _other)(content, out)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"not a readable {extension} image ({error})") from error


def decode_any_size(content: Bytes, out: NDArray[np.uint8]) -> None:
    """Decodes an image of any size into `out`: upright, its central square, averaged by area (see `images.prepare`).

    Raises:
        ValueError: if the bytes are no image.
    """
    resolution, _, channels = out.shape
    if _as_it_is(content, out):
        return
    try:
        image = prepare(open_image(bytes(content)), [resolution], channels)[resolution]
        out[:] = np.asarray(image).reshape(out.shape)
    except UnusableImageError as error:
        raise ValueError(f"{error.reason} ({error.detail})") from error


def _as_it_is(content: Bytes, out: NDArray[np.uint8]) -> bool:
    """Decodes a jpeg that `prepare` would not change, to the same pixels but faster; False if this is none."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(content)
        if (height, width) != out.shape[:2] or colours != ("Gray" if out.shape[2] == 1 else "YCbCr"):
            return False
        whole = bytes(content)
        head = whole[: whole.find(_SCAN)]  # (all of it, if there is none)
        if b"Exif" in head or b"rientation" in head:  # it may have to be turned
            return False
        _pixels(whole, out)
    except ValueError:
        return False  # Pillow tells what it is
    return True


def _check_size(width: int, height: int, out: NDArray[np.uint8]) -> None:
    """Before the pixels are decoded, so that a bomb stays closed."""
    if (height, width) != out.shape[:2]:
        raise ValueError(f"an image of {width}x{height} pixels, not of {out.shape[1]}x{out.shape[0]} as its shard says")


def _jpeg(content: Bytes, out: NDArray[np.uint8]) -> None:
    height, width, *_ = simplejpeg.decode_jpeg_header(content)
    _check_size(width, height, out)
    _pixels(content, out)


def _pixels(content: Bytes, out: NDArray[np.uint8]) -> None:
    """Of a jpeg of that size."""
    simplejpeg.decode_jpeg(content, colorspace="GRAY" if out.shape[2] == 1 else "RGB", buffer=out)


def _other(content: Bytes, out: NDArray[np.uint8]) -> None:
    with Image.open(io.BytesIO(content), formats=OTHER_FORMATS) as image:
        _check_size(*image.size, out)
        mode = "L" if out.shape[2] == 1 else "RGB"
        out[:] = np.asarray(image if image.mode == mode else image.convert(mode)).reshape(out.shape)
