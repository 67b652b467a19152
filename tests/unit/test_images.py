"""What becomes of an image: geometry, modes, orientation, and what is refused."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from bigtrain.data.images import UnusableImageError, encode, open_image, prepare


def photo(width: int, height: int, seed: int = 0, channels: int = 3) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(pixels.squeeze(-1) if channels == 1 else pixels)


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def one(image: Image.Image, resolution: int, channels: int = 3) -> np.ndarray:
    return np.asarray(prepare(image, [resolution], channels)[resolution])


@settings(deadline=None)
@given(width=st.integers(1, 70), height=st.integers(1, 70), channels=st.sampled_from([1, 3]))
def test_every_shape_becomes_every_resolution(width: int, height: int, channels: int) -> None:
    prepared = prepare(photo(width, height, channels=channels), [4, 16, 64], channels)
    assert {key: image.size for key, image in prepared.items()} == {4: (4, 4), 16: (16, 16), 64: (64, 64)}
    assert {image.mode for image in prepared.values()} == {"L" if channels == 1 else "RGB"}


@settings(deadline=None)
@given(margin=st.integers(0, 9), along=st.booleans(), seed=st.integers(0, 99))
def test_the_crop_is_the_centre(margin: int, along: bool, seed: int) -> None:
    square = photo(16, 16, seed)
    size = (16 + 2 * margin, 16) if along else (16, 16 + 2 * margin)
    image = Image.new("RGB", size, "red")
    image.paste(square, (margin, 0) if along else (0, margin))
    np.testing.assert_array_equal(one(image, 16), np.asarray(square))


@settings(deadline=None)
@given(st.integers(0, 99))
def test_resizing_is_the_mean_of_the_area(seed: int) -> None:
    image = photo(32, 32, seed)
    blocks = np.asarray(image, dtype=float).reshape(8, 4, 8, 4, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(one(image, 8), blocks, atol=1)


def test_every_resolution_comes_from_the_crop_itself() -> None:
    image = photo(50, 50)
    together = prepare(image, [4, 8, 16, 32], 3)
    for resolution, made in together.items():
        np.testing.assert_array_equal(np.asarray(made), one(image, resolution))


def test_enlarging_by_two_repeats_pixels() -> None:
    image = photo(8, 8)
    np.testing.assert_array_equal(one(image, 16), np.asarray(image).repeat(2, axis=0).repeat(2, axis=1))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation: int) -> None:
    """A camera stores the picture turned by the inverse of what the tag asks a viewer to do."""
    upright = photo(8, 8)
    inverse = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(inverse[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    image = open_image(saved(stored, exif=exif))
    np.testing.assert_array_equal(one(image, 8), np.asarray(upright))


GREY = np.tile(np.linspace(0, 255, 8).round().astype(np.uint8), (8, 1))
SEEN = Image.fromarray(GREY)
MODES = {
    "1": (SEEN.convert("1"), np.asarray(SEEN.convert("1")) * 255),
    "L": (SEEN, GREY),
    "P": (SEEN.convert("P"), GREY),
    "RGB": (SEEN.convert("RGB"), GREY),
    "CMYK": (SEEN.convert("CMYK"), GREY),
    "YCbCr": (SEEN.convert("YCbCr"), GREY),
    "opaque RGBA": (SEEN.convert("RGBA"), GREY),
    "clear RGBA": (Image.new("RGBA", (8, 8), (0, 0, 0, 0)), np.full((8, 8), 255)),
    "half RGBA": (Image.new("RGBA", (8, 8), (0, 0, 0, 128)), np.full((8, 8), 127)),
    "clear LA": (Image.new("LA", (8, 8), (0, 0)), np.full((8, 8), 255)),
    "half LA": (Image.new("LA", (8, 8), (0, 128)), np.full((8, 8), 127)),
    "I;16": (Image.fromarray(GREY.astype(np.uint16) * 257), GREY),
    "I": (Image.fromarray(GREY.astype(np.int32) * 257), GREY),
    "I beyond 16 bits": (Image.fromarray(np.full((8, 8), 2**31 - 1, dtype=np.int32)), np.full((8, 8), 255)),
    "F in [0, 1]": (Image.fromarray((GREY / 255).astype(np.float32)), GREY),
    "F in [0, 255]": (Image.fromarray(GREY.astype(np.float32)), GREY),
}


@pytest.mark.parametrize("name", MODES)
@pytest.mark.parametrize("channels", [1, 3])
def test_modes(name: str, channels: int) -> None:
    image, expected = MODES[name]
    expected = expected if channels == 1 else np.repeat(np.asarray(expected)[..., None], 3, axis=2)
    np.testing.assert_allclose(one(image, 8, channels), expected, atol=1)


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_transparent_palette_is_seen_on_white(kind: str) -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([10, 20, 30, 200, 0, 0])
    image.paste(0, (0, 0, 4, 8))
    seen = one(open_image(saved(image, kind, transparency=1)), 8)
    assert seen[0, 0].tolist() == [10, 20, 30]
    assert seen[0, 7].tolist() == [255, 255, 255]


def test_a_16_bit_png_keeps_its_range() -> None:
    ramp = np.linspace(0, 65535, 64).round().astype(np.uint16).reshape(8, 8)
    seen = one(open_image(saved(Image.fromarray(ramp))), 8, channels=1)
    np.testing.assert_allclose(seen, ramp / 257, atol=0.51)


@pytest.mark.parametrize("kind", ["GIF", "MPO"])
def test_the_first_frame_of_several(kind: str) -> None:
    """MPO is what some phones write under the name of .jpg."""
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    image = open_image(saved(frames[0], kind, save_all=True, append_images=frames[1:]))
    np.testing.assert_allclose(one(image, 8)[0, 0], [255, 0, 0], atol=2)


def test_floats_must_be_finite() -> None:
    with pytest.raises(UnusableImageError, match="not finite"):
        prepare(Image.fromarray(np.full((8, 8), np.nan, dtype=np.float32)), [8], 1)


@pytest.mark.parametrize("content", [b"", b"no image", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"])
def test_what_is_no_image(content: bytes) -> None:
    with pytest.raises(UnusableImageError) as caught:
        open_image(content)
    assert caught.value.reason == "unreadable"
    assert " at 0x" not in caught.value.detail, "an address would differ in every build"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP"])
def test_a_truncated_image(kind: str) -> None:
    content = saved(photo(32, 32), kind)
    with pytest.raises(UnusableImageError) as caught:
        prepare(open_image(content[: len(content) // 2]), [8], 3)
    assert caught.value.reason == "unreadable"


@pytest.mark.parametrize("limit", [10, 60])
def test_decompression_bombs(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow warns above its limit, and raises above twice that."""
    content = saved(photo(10, 10))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(UnusableImageError) as caught:
        open_image(content)
    assert caught.value.reason == "too many pixels"


def test_pillows_warnings_do_not_get_out() -> None:
    image = Image.new("P", (8, 8))
    image.info["transparency"] = b"\0" * 256  # Pillow warns that such images should be RGBA
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prepare(image, [8], 3)


@settings(deadline=None)
@given(st.integers(0, 99), st.sampled_from([1, 3]))
def test_png_keeps_every_pixel(seed: int, channels: int) -> None:
    image = photo(16, 16, seed, channels)
    extension, content = encode(image, "png", 95)
    assert extension == "png"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(content))), np.asarray(image))


def test_jpeg_keeps_its_colours_at_full_size() -> None:
    extension, content = encode(photo(16, 16), "jpeg", 95)
    image = Image.open(io.BytesIO(content))
    assert extension == "jpg"
    assert [layer[1:3] for layer in image.layer] == [(1, 1)] * 3, "sampling factors of Y, Cb, Cr"
    assert len(content) > len(encode(photo(16, 16), "jpeg", 50)[1])


@pytest.mark.parametrize(("size", "extension"), [(64, "png"), (128, "jpg")])
def test_auto_is_lossless_up_to_64_pixels(size: int, extension: str) -> None:
    assert encode(photo(size, size), "auto", 95)[0] == extension


@pytest.mark.parametrize("encoding", ["png", "jpeg"])
def test_metadata_is_left_out_and_bytes_are_the_same_again(encoding: str) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "a secret"
    plain = saved(photo(8, 8))
    told = saved(photo(8, 8), exif=exif, icc_profile=b"a secret", dpi=(300, 300))
    first, second = (encode(prepare(open_image(content), [8], 3)[8], encoding, 95) for content in (plain, told))
    assert first == second


@pytest.mark.parametrize(("side", "width"), [(28, 32), (28, 16), (8, 16), (8, 4), (30, 7), (100, 64), (6, 6)])
def test_a_resized_pixel_is_the_mean_over_the_area_that_it_covers(side, width):
    pixels = np.random.default_rng(0).integers(0, 256, (side, side), dtype=np.uint8)
    edges = np.arange(width + 1) * side / width
    columns = np.arange(side)
    overlap = np.minimum(edges[1:, None], columns + 1) - np.maximum(edges[:-1, None], columns)
    weights = overlap.clip(min=0) * width / side  # [width, side]
    expected = weights @ pixels @ weights.T
    made = np.asarray(prepare(Image.fromarray(pixels), [width], 1)[width], dtype=float)
    assert np.abs(made - expected).max() <= 1  # Pillow rounds once for each direction
