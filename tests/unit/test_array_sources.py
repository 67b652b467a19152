"""The sources that are arrays: scikit-learn's digits, and the idx files of MNIST's family."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bigtrain.data.sources import open_source


def test_digits() -> None:
    source = open_source("digits:")
    assert (len(source), source.channels, source.native_resolution) == (1797, 1, 8)
    assert source.classes == list("0123456789")
    assert (source.label(0), source.name(3)) == (0, "digits:3")
    pixels = np.asarray(source.load(0))
    assert pixels[0].tolist() == [0, 0, 80, 207, 143, 16, 0, 0], "0 0 5 13 9 1 0 0, times 255 / 16"
    assert open_source("digits:", channels=3).channels == 3
    assert open_source("digits:", unlabelled=True).label(0) is None


@pytest.mark.parametrize(("name", "message"), [("digits:x", "must be `digits:`"), ("idx:", "there is no folder ''")])
def test_names_with_a_colon(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_source(name)


def test_subfolder_is_for_files() -> None:
    with pytest.raises(ValueError, match="--subfolder"):
        open_source("digits:", subfolder="a")


def idx_bytes(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_idx(folder: Path, compress: bool = False) -> dict[str, np.ndarray]:
    """Three images to train and two to test with."""
    generator = np.random.default_rng(0)
    arrays = {
        "train-images-idx3-ubyte": generator.integers(0, 256, (3, 6, 6), dtype=np.uint8),
        "train-labels-idx1-ubyte": np.array([2, 5, 2], dtype=np.uint8),
        "t10k-images-idx3-ubyte": generator.integers(0, 256, (2, 6, 6), dtype=np.uint8),
        "t10k-labels-idx1-ubyte": np.array([5, 7], dtype=np.uint8),
    }
    for name, array in arrays.items():
        content = idx_bytes(array)
        (folder / (f"{name}.gz" if compress else name)).write_bytes(gzip.compress(content) if compress else content)
    return arrays


@pytest.mark.parametrize("compress", [False, True])
def test_idx_is_train_and_then_test(compress: bool, tmp_path: Path) -> None:
    arrays = write_idx(tmp_path, compress)
    source = open_source(f"idx:{tmp_path}")
    expected = np.concatenate([arrays["train-images-idx3-ubyte"], arrays["t10k-images-idx3-ubyte"]])
    np.testing.assert_array_equal([np.asarray(source.load(i)) for i in range(len(source))], expected)
    assert source.classes == ["2", "5", "7"], "the labels that occur"
    assert [source.label(i) for i in range(5)] == [0, 1, 0, 1, 2]
    assert (source.channels, source.native_resolution) == (1, 6)
    assert open_source(f"idx:{tmp_path}", unlabelled=True).classes == []


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("train-images-idx3-ubyte", lambda content: content[:-1], "has 123 bytes, its header .* asks for 124"),
        ("train-images-idx3-ubyte", lambda content: content + b"x", "has 125 bytes, its header .* asks for 124"),
        ("train-images-idx3-ubyte", lambda content: content[:9], "truncated in its header"),
        ("train-images-idx3-ubyte", lambda content: b"\0\0\r\3" + content[4:], "is no idx file of 3 dimensions"),
        ("t10k-labels-idx1-ubyte", lambda _: idx_bytes(np.zeros((2, 1, 1), np.uint8)), "is no idx file of 1 dim"),
        ("t10k-images-idx3-ubyte", lambda _: idx_bytes(np.zeros((2, 5, 5), np.uint8)), "those of .*train.* differ"),
        ("t10k-images-idx3-ubyte", lambda _: idx_bytes(np.zeros((0, 6, 6), np.uint8)), "holds no images"),
        ("t10k-images-idx3-ubyte", lambda _: idx_bytes(np.zeros((3, 6, 6), np.uint8)), "3 images, .* 2 labels"),
        ("train-images-idx3-ubyte", lambda content: gzip.compress(content)[:-9], "is damaged"),
    ],
)
def test_damaged_idx_files_are_named(name: str, damage: Callable[[bytes], bytes], message: str, tmp_path: Path) -> None:
    write_idx(tmp_path)
    (tmp_path / name).write_bytes(damage((tmp_path / name).read_bytes()))
    with pytest.raises(ValueError, match=f"{name}: .*{message}"):
        open_source(f"idx:{tmp_path}")


def test_a_missing_idx_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no train-images-idx3-ubyte"):
        open_source(f"idx:{tmp_path}")
    write_idx(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(ValueError, match=r"t10k-labels-idx1-ubyte .* is missing"):
        open_source(f"idx:{tmp_path}")
