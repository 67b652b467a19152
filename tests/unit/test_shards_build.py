"""What `bigtrain shards build` writes: samples, order, skips, resolutions; and what its command line says."""

from __future__ import annotations

import gc
import io
import json
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image

from bigtrain.cli.main import main
from bigtrain.data.manifest import ShardIndex
from bigtrain.data.progress import Lines
from bigtrain.data.sources import Skip
from bigtrain.data.verify import verify
from bigtrain.data.writer import summary
from bigtrain.randomness import permutation
from bigtrain.storage import Storage
from tests.unit.made_source import Made, Photos, build_made, files_of, unusable


def read_shards(folder: Path, resolution: int) -> dict[str, tuple[int, int]]:
    """Grey value and label by key, as webdataset reads them."""
    tars = sorted(str(path) for path in (folder / f"r{resolution}").glob("*.tar"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # webdataset leaves its files open
        samples = list(webdataset.WebDataset(tars, shardshuffle=False))
        gc.collect()
    decoded = {}
    for sample in samples:
        image = Image.open(io.BytesIO(sample["png"]))
        assert image.size == (resolution, resolution)
        decoded[sample["__key__"]] = (int(np.asarray(image)[0, 0]), int(sample["cls"]))
    return decoded


def test_webdataset_reads_every_sample_in_the_order_of_the_permutation(tmp_path: Path) -> None:
    manifest = build_made(Made(), tmp_path)
    order = permutation(20, 0, "build")
    expected = {f"{position:09d}": (index, index % 2) for position, index in enumerate(order.tolist())}
    for resolution in (4, 8):
        found = read_shards(tmp_path, resolution)
        assert found == expected
        assert list(found) == sorted(expected)
    assert verify(str(tmp_path)) == []
    assert (manifest.samples, manifest.shard_samples) == (20, [6, 6, 6, 2])
    assert (manifest.classes, manifest.class_counts, manifest.channels) == (["even", "odd"], [10, 10], 1)
    assert (manifest.resolutions, manifest.num_classes, manifest.skipped) == ([4, 8], 2, {})
    assert manifest.shards[8][3].key == "r8/shard-000003.tar"


def test_the_index_finds_the_images_by_range(tmp_path: Path) -> None:
    manifest = build_made(Made(), tmp_path)
    storage = Storage(str(tmp_path))
    shard = manifest.shards[8][1]
    index = ShardIndex.from_json(storage.read(shard.index))
    parts = storage.read_ranges(shard.key, index.offsets.tolist(), index.sizes.tolist())
    values = [int(np.asarray(Image.open(io.BytesIO(part)))[0, 0]) for part in parts]
    assert values == permutation(20, 0, "build")[6:12].tolist()
    assert index.labels is not None
    assert index.labels.tolist() == [value % 2 for value in values]


def test_the_same_build_makes_the_same_bytes_and_another_seed_does_not(tmp_path: Path) -> None:
    first, second = build_made(Made(), tmp_path / "a"), build_made(Made(), tmp_path / "b")
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")
    assert first.hash == second.hash
    assert build_made(Made(), tmp_path / "c", seed=1).hash != first.hash


def test_a_sample_is_skipped_at_every_resolution_and_keeps_its_place(tmp_path: Path) -> None:
    source = Made(trouble=unusable({3, 4}))
    source.skips = [Skip("notes.txt", "not an image")]
    manifest = build_made(source, tmp_path)
    order = permutation(20, 0, "build").tolist()
    expected = {f"{order.index(index):09d}": (index, index % 2) for index in range(20) if index not in (3, 4)}
    assert read_shards(tmp_path, 4) == read_shards(tmp_path, 8) == expected
    assert manifest.skipped == {"not an image": 1, "unreadable": 2}
    assert manifest.class_counts == [9, 9]
    parts = [json.loads(path.read_text()) for path in sorted((tmp_path / "parts").glob("0*.json"))]
    skips = [skip for part in parts for skip in part["skips"]]
    assert sorted(skips) == [[f"made:{index}", "unreadable", "as the test wants it"] for index in (3, 4)]
    assert verify(str(tmp_path)) == []


def test_a_part_without_samples_has_no_shard(tmp_path: Path) -> None:
    second = set(permutation(20, 0, "build")[6:12].tolist())
    manifest = build_made(Made(trouble=unusable(second)), tmp_path)
    assert manifest.shard_samples == [6, 6, 2]
    assert [shard.key for shard in manifest.shards[4]] == [f"r4/shard-00000{number}.tar" for number in (0, 2, 3)]
    assert json.loads((tmp_path / "parts/000001.json").read_text())["samples"] == 0
    assert not (tmp_path / "r4/shard-000001.tar").exists()
    source = Made()
    build_made(source, tmp_path)
    assert source.loaded == [], "a part without samples is finished too"
    assert verify(str(tmp_path)) == []


def test_images_that_are_too_small(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Enlarged when asked, else skipped where sizes differ; if none is left, the remedy works in the same DEST."""
    with pytest.raises(ValueError, match=r"20 x too small; made:\d+: 8x8 pixels, less than 16\); pass --upscale"):
        build_made(Photos(), tmp_path, resolutions=[4, 16])
    manifest = build_made(Photos(), tmp_path, resolutions=[4, 16], upscale=True)
    assert (manifest.samples, manifest.skipped) == (20, {})
    assert build_made(Made(), tmp_path / "made", resolutions=[16]).samples == 20


def test_unlabelled_shards_have_no_labels(tmp_path: Path) -> None:
    source = Made()
    source.classes = []
    manifest = build_made(source, tmp_path)
    assert (manifest.classes, manifest.class_counts, manifest.num_classes) == ([], [], 0)
    assert ShardIndex.from_json((tmp_path / "r4/shard-000000.index.json").read_bytes()).labels is None
    assert verify(str(tmp_path)) == []


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (Made(size=8), [4, 8]),
        (Photos(size=100), [4, 8, 16, 32, 64]),
        (Photos(size=128), [4, 8, 16, 32, 64, 128]),
        (Photos(size=4), [4]),
    ],
)
def test_resolutions_by_default(source: Made, expected: list[int], tmp_path: Path) -> None:
    assert build_made(source, tmp_path, resolutions=None).resolutions == expected


def test_a_native_resolution_is_rounded_up_to_a_power_of_two(tmp_path: Path) -> None:
    source = Made(size=28)
    source.native_resolution = 28
    assert build_made(source, tmp_path, resolutions=None).resolutions == [4, 8, 16, 32]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (Photos(size=3), "its images are 3 pixels; pass --resolutions and --upscale"),
        (Photos(trouble=unusable(set(range(20)))), r"none of the images .* can be read, such as made:19 \(unreadable"),
    ],
)
def test_no_resolution_fits(source: Made, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        build_made(source, tmp_path, resolutions=None)


@pytest.mark.parametrize(
    "options",
    [
        {"resolutions": []},
        {"resolutions": [4, 12]},
        {"resolutions": [2]},
        {"resolutions": [4, 4]},
        {"samples_per_shard": 0},
        {"encoding": "webp"},
        {"quality": 0},
        {"quality": 101},
        {"workers": 0},
    ],
)
def test_invalid_options_name_themselves_and_write_nothing(options: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))} \\(="):
        build_made(Made(), tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()


def test_summary_tells_what_was_skipped(tmp_path: Path) -> None:
    source = Made(trouble=unusable({3, 4, 5, 6}))
    source.skips = [Skip("notes.txt", "not an image")]
    lines = summary(Storage(str(tmp_path)), build_made(source, tmp_path))
    assert lines[0] == f"16 images in 4 shards at each of the resolutions 4, 8: {tmp_path}"
    assert lines[1] == "2 classes: even (8), odd (8)"
    assert lines[2] == "skipped: 1 x not an image (notes.txt)"
    assert lines[3].startswith("skipped: 4 x unreadable (made:")
    assert lines[3].endswith(", ...)")
    assert lines[4].startswith("WARNING: 24% ")
    assert len(lines) == 5


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = str(tmp_path / "shards")
    assert main(["shards", "build", "digits:", url, "--resolutions", "8,4", "--workers", "1"]) == 0
    assert "1,797 images in 1 shards at each of the resolutions 4, 8" in capsys.readouterr().out
    assert main(["shards", "verify", url]) == 0
    assert "verified: 1,797 images" in capsys.readouterr().out
    assert main(["shards", "build", "digits:", url, "--seed", "2"]) == 2
    assert capsys.readouterr().err.startswith("bigtrain: error: DEST")
    assert main(["shards", "build", "digits:", url, "--resolution", "4"]) == 2
    assert "did you mean --resolutions?" in capsys.readouterr().err


def test_a_folder_by_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(12):
        path = tmp_path / "photos" / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40 - number // 10 * 30, 50), (number * 20, 0, 0)).save(path)
    arguments = ["shards", "build", str(tmp_path / "photos")]
    assert main([*arguments, str(tmp_path / "shards"), "--encoding=jpeg"]) == 0
    out = capsys.readouterr().out
    assert "10 images in 1 shards at each of the resolutions 4, 8, 16, 32" in out
    assert "skipped: 2 x too small (" in out
    assert verify(str(tmp_path / "shards")) == []
    assert main([*arguments, str(tmp_path / "photos/inside")]) == 2
    assert "choose one outside it" in capsys.readouterr().err


def test_names_that_are_no_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file's name is any bytes on Linux."""
    for name in (b"\xff.png", b"0.png"):
        Image.new("L", (8, 8)).save(tmp_path / os.fsdecode(name))
    (tmp_path / os.fsdecode(b"\xfe.txt")).write_text("")
    assert main(["shards", "build", str(tmp_path), str(tmp_path) + "-shards"]) == 0
    assert "skipped: 1 x not an image (\\udcfe.txt)" in capsys.readouterr().out


def test_a_plain_line_now_and_then() -> None:
    stream = io.StringIO()
    lines = Lines("shards build", total=1000, done=100, stream=stream, seconds=0)
    lines.update(600, 7)
    line = stream.getvalue()
    assert line.startswith("shards build: 600 of 1,000 images, ")
    assert line.endswith(" s left, 7 skipped\n")
    quiet = Lines("shards build", total=10, done=0, stream=stream, seconds=60)
    quiet.update(5)
    assert stream.getvalue() == line
