"""One image on its way into the shards: opened, made flat and square, resized to every resolution, encoded."""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

Encoding = Literal["auto", "png", "jpeg"]
ENCODINGS: tuple[Encoding, ...] = ("auto", "png", "jpeg")
#: Named, so that a file called `.png` cannot reach Pillow's other readers (EPS starts Ghostscript).
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
_LARGEST_PNG = 64  # pixels, with `auto`
#: Pixels to a side up to which an image is repeated for an exact mean over areas.
EXACT_AREA = 2048


# What Pillow warns of is checked here or does not matter; filters that change for a while would not be safe in threads.
warnings.filterwarnings("ignore", module=r"PIL\.")


class UnusableImageError(Exception):
    """An image that cannot become a sample: a reason of few words to count by, and what exactly is wrong."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


def open_image(content: bytes) -> Image.Image:
    """Opens an image file (the first frame of an animation); its pixels are decoded later, by `prepare`.

    Raises:
        UnusableImageError: if it is no image, or has so many pixels that it may be a decompression bomb.
    """
    with _unusable():
        image = Image.open(io.BytesIO(content), formats=_FORMATS)
        if image.width * image.height > (Image.MAX_IMAGE_PIXELS or math.inf):
            raise UnusableImageError("too many pixels", f"{image.width}x{image.height}, maybe a decompression bomb")
        return image


def prepare(image: Image.Image, resolutions: Sequence[int], channels: int) -> dict[int, Image.Image]:
    """The image at every resolution: upright by its EXIF orientation, cropped to the central square, averaged by area.

    Each resolution is made from the crop itself, not from the next larger one. What is transparent becomes white.
    16-bit and float images are scaled to 8 bits. Metadata is left out.

    Args:
        image: in any mode of Pillow.
        resolutions: widths in pixels.
        channels: 1 for mode `L`, 3 for mode `RGB`.

    Raises:
        UnusableImageError: if it cannot be decoded or converted.
    """
    with _unusable():
        upright = ImageOps.exif_transpose(image)
        flat = _opaque(_eight_bit(upright)).convert("L" if channels == 1 else "RGB")
        flat.info.clear()
        side = min(flat.size)
        left, top = (flat.width - side) // 2, (flat.height - side) // 2
        square = flat.crop((left, top, left + side, top + side))
        return {width: _area_resize(square, width) for width in resolutions}


def _area_resize(square: Image.Image, width: int) -> Image.Image:
    """Each new pixel is the mean over the area that it covers.

    Pillow's box filter is that mean only where the ratio is a whole number: elsewhere it counts an old pixel wholly or
    not at all. So a small image is first repeated up to a common multiple; of a large one, the difference is slight.
    """
    side = square.width
    multiple = math.lcm(side, width)
    if side % width and multiple <= EXACT_AREA:
        square = square.resize((multiple, multiple), Image.Resampling.NEAREST)
    return square.resize((width, width), Image.Resampling.BOX)


def encode(image: Image.Image, encoding: Encoding, quality: int) -> tuple[str, bytes]:
    """The extension and the bytes of an image file; the same image makes the same bytes.

    Args:
        image: in mode `L` or `RGB`.
        encoding: `png` (lossless), `jpeg` (without chroma subsampling), or `auto`: png up to 64 pixels, jpeg above.
        quality: of jpeg, 1 to 100.
    """
    buffer = io.BytesIO()
    if encoding == "png" or (encoding == "auto" and image.width <= _LARGEST_PNG):
        image.save(buffer, "PNG", optimize=False)
        return "png", buffer.getvalue()
    image.save(buffer, "JPEG", quality=quality, subsampling=0)
    return "jpg", buffer.getvalue()


@contextlib.contextmanager
def _unusable() -> Iterator[None]:
    """All that Pillow raises about an image becomes `UnusableImageError`."""
    try:
        yield
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise UnusableImageError("too many pixels", str(error)) from error
    except UnidentifiedImageError as error:
        raise UnusableImageError("unreadable", f"it is no image of {', '.join(_FORMATS)}") from error
    except UnusableImageError:
        raise
    except Exception as error:  # whatever its many readers meet in a damaged file, from IndexError to struct.error
        raise UnusableImageError("unreadable", f"{type(error).__name__}: {error}") from error


def _eight_bit(image: Image.Image) -> Image.Image:
    """Modes of more than 8 bits as `L`: integers are taken as 16 bits, floats as [0, 1], or [0, 255] if some exceed 1.

    Pillow's own conversion clips them at 255, which makes nearly all of a 16-bit image white.
    """
    if image.mode.startswith("I"):
        integers = np.asarray(image).astype(np.int64).clip(0, 65535)
        return Image.fromarray(((integers * 255 + 32767) // 65535).astype(np.uint8))
    if image.mode == "F":
        floats = np.asarray(image)
        if not np.isfinite(floats).all():
            raise UnusableImageError("unreadable", "it has pixels that are not finite")
        scale = 255 if floats.max() <= 1 else 1
        return Image.fromarray((floats * scale).round().clip(0, 255).astype(np.uint8))
    return image


def _opaque(image: Image.Image) -> Image.Image:
    """On white, if it is transparent anywhere."""
    if not image.has_transparency_data:
        return image
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA"))
