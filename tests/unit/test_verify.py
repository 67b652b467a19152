"""`bigtrain shards verify`: whole shards are right, and every kind of damage is told."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bigtrain.cli.main import main
from bigtrain.data.manifest import Manifest, ShardIndex
from bigtrain.data.samples import index_shard
from bigtrain.data.sources import open_source
from bigtrain.data.sources.arrays import Arrays
from bigtrain.data.tar import BLOCK
from bigtrain.data.verify import verify
from bigtrain.data.writer import build
from bigtrain.storage import Storage

SHARD = "r8/shard-000001.tar"
INDEX = "r8/shard-000001.index.json"


def build_digits(folder: Path, **options: object) -> None:
    """36 of the digits in three shards of two resolutions."""
    source = open_source("digits:", **options)  # type: ignore[arg-type]
    assert isinstance(source, Arrays)
    source._images = source._images[:36]
    build(source, Storage(str(folder)), resolutions=[4, 8], samples_per_shard=12, workers=1)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("original")
    build_digits(folder)
    return folder


@pytest.fixture
def shards(original: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(original, tmp_path / "shards"))


def change(path: Path, how: Callable[[bytes], bytes]) -> None:
    path.write_bytes(how(path.read_bytes()))


def flip(content: bytes, position: int) -> bytes:
    return content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]


def rewrite_manifest(folder: Path, how: Callable[[dict], None]) -> None:
    data = json.loads((folder / "manifest.json").read_text())
    how(data)
    (folder / "manifest.json").write_text(json.dumps(data))


def adopt(folder: Path, key: str = SHARD) -> None:
    """Makes the manifest and the index agree with a shard as it is now, so that only a closer look can tell."""
    content = (folder / key).read_bytes()
    (folder / key.replace(".tar", ".index.json")).write_bytes(index_shard(key, content).to_json())

    def update(data: dict) -> None:
        shard = next(shard for shard in data["shards"][key[1 : key.index("/")]] if shard["key"] == key)
        shard.update(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())

    rewrite_manifest(folder, update)


def index_of(folder: Path) -> ShardIndex:
    return ShardIndex.from_json((folder / INDEX).read_bytes())


def rewrite_index(folder: Path, **columns: object) -> None:
    (folder / INDEX).write_bytes(dataclasses.replace(index_of(folder), **columns).to_json())  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{}, {"unlabelled": True}, {"channels": 3}])
def test_whole_shards_have_no_problems(options: dict[str, object], tmp_path: Path) -> None:
    build_digits(tmp_path, **options)
    assert verify(str(tmp_path)) == []


def test_a_byte_in_a_header(shards: Path) -> None:
    start = int(index_of(shards).offsets[3]) - BLOCK
    change(shards / SHARD, lambda content: flip(content, start + 5))
    assert f"{SHARD}: byte {start}: damaged header: its checksum is wrong" in verify(str(shards))


def test_a_byte_in_an_image(shards: Path) -> None:
    index = index_of(shards)
    change(shards / SHARD, lambda content: flip(content, int(index.offsets[3]) + 40))
    problems = verify(str(shards))
    assert f"{SHARD}: 1 samples differ from the index in crc32, first {index.keys[3]}" in problems
    assert any(problem.startswith(f"{SHARD}: has SHA-256") for problem in problems)
    assert any("1 samples cannot be decoded" in problem for problem in problems)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_a_flipped_bit_anywhere_is_found(data: st.DataObject, shards: Path, original: Path) -> None:
    content = (original / SHARD).read_bytes()
    position = data.draw(st.integers(0, len(content) - 1))
    (shards / SHARD).write_bytes(flip(content, position))
    problems = verify(str(shards))
    assert problems
    assert all(problem.startswith(f"{SHARD}: ") for problem in problems)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_truncation_is_found_wherever_it_is(data: st.DataObject, shards: Path, original: Path) -> None:
    content = (original / SHARD).read_bytes()
    boundaries = st.sampled_from([int(offset) - BLOCK for offset in index_of(original).offsets])
    length = data.draw(boundaries | st.integers(0, len(content) - 1))
    (shards / SHARD).write_bytes(content[:length])
    problems = verify(str(shards))
    assert f"{SHARD}: has {length} bytes, {len(content)} in the manifest" in problems


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (SHARD, f"{SHARD}: cannot be read: .*{SHARD}: not found"),
        (INDEX, f"{SHARD}: its index cannot be read: .*{INDEX}: not found"),
    ],
)
def test_a_missing_file(name: str, message: str, shards: Path) -> None:
    (shards / name).unlink()
    (problem,) = verify(str(shards))
    assert re.fullmatch(message, problem)


def test_a_shard_that_the_manifest_does_not_know(shards: Path) -> None:
    shutil.copy(shards / SHARD, shards / "r8/shard-000009.tar")
    assert verify(str(shards)) == ["r8/shard-000009.tar: is not in the manifest; delete it if nothing else needs it"]


def test_a_malformed_index(shards: Path) -> None:
    change(shards / INDEX, lambda content: content[:-9])
    (problem,) = verify(str(shards))
    assert problem.startswith(f"{SHARD}: its index cannot be read: shard index is malformed")


@pytest.mark.parametrize("column", ["offsets", "sizes", "crc32", "labels"])
def test_an_index_that_differs(column: str, shards: Path) -> None:
    values = getattr(index_of(shards), column).copy()
    values[2] += 1
    rewrite_index(shards, **{column: values})
    key = index_of(shards).keys[2]
    assert verify(str(shards)) == [f"{SHARD}: 1 samples differ from the index in {column}, first {key}"]


def test_an_index_of_other_samples(shards: Path) -> None:
    rewrite_index(shards, keys=[f"x{key}" for key in index_of(shards).keys])
    assert verify(str(shards)) == [f"{SHARD}: 12 samples differ from the index in keys, first 000000012"]
    shutil.copy(shards / "r8/shard-000000.index.json", shards / INDEX)
    assert any("differ from the index in keys" in problem for problem in verify(str(shards)))


def test_an_index_without_labels(shards: Path) -> None:
    rewrite_index(shards, labels=None)
    assert verify(str(shards)) == [f"{SHARD}: has labels, its index has none"]


def test_images_of_another_size(shards: Path) -> None:
    shutil.copy(shards / SHARD.replace("r8", "r4"), shards / SHARD)
    adopt(shards)
    assert verify(str(shards)) == [f"{SHARD}: 12 samples are 4x4 L, not 8x8 L, first 000000012"]


def test_images_of_other_channels(shards: Path) -> None:
    rewrite_manifest(shards, lambda data: data.update(channels=3))
    problems = verify(str(shards))
    assert len(problems) == 6
    assert f"{SHARD}: 12 samples are 8x8 L, not 8x8 RGB, first 000000012" in problems


def test_images_that_do_not_decode_though_all_sums_agree(shards: Path) -> None:
    offset = int(index_of(shards).offsets[0])
    change(shards / SHARD, lambda content: content[:offset] + b"no image" + content[offset + 8 :])
    adopt(shards)
    (problem,) = verify(str(shards))
    assert problem == f"{SHARD}: 1 samples cannot be decoded (UnidentifiedImageError), first 000000012"


def test_other_keys_at_another_resolution(shards: Path) -> None:
    shutil.copy(shards / SHARD.replace("1.tar", "0.tar"), shards / SHARD)
    adopt(shards)
    assert f"{SHARD}: its keys are not those of r4/shard-000001.tar" in verify(str(shards))


def test_other_labels_at_another_resolution(shards: Path) -> None:
    content = (shards / SHARD).read_bytes()
    offset = content.index(b"000000012.cls") + BLOCK
    other = b"1" if content[offset : offset + 1] != b"1" else b"2"
    change(shards / SHARD, lambda content: content[:offset] + other + content[offset + 1 :])
    adopt(shards)
    assert verify(str(shards)) == [f"{SHARD}: its labels are not those of r4/shard-000001.tar"]


def test_labels_out_of_range(shards: Path) -> None:
    rewrite_manifest(shards, lambda data: data.update(classes=["0"], class_counts=[36]))
    problems = verify(str(shards))
    assert any("have a label that is none of the manifest's 1 classes" in problem for problem in problems)


def test_labels_without_classes_and_classes_without_labels(shards: Path, tmp_path: Path) -> None:
    rewrite_manifest(shards, lambda data: data.update(classes=[], class_counts=[]))
    labelled = f"{SHARD}: 12 samples have a label that is none of the manifest's 0 classes, first 000000012"
    assert labelled in verify(str(shards))
    build_digits(tmp_path / "unlabelled", unlabelled=True)
    rewrite_manifest(tmp_path / "unlabelled", lambda data: data.update(classes=["0", "1"], class_counts=[18, 18]))
    assert f"{SHARD}: has no labels, but the manifest has 2 classes" in verify(str(tmp_path / "unlabelled"))


def test_counts_of_the_manifest(shards: Path) -> None:
    def swap(data: dict) -> None:
        data["class_counts"][0] += 1

    rewrite_manifest(shards, swap)
    (problem,) = verify(str(shards))
    assert problem.startswith("manifest.json: class_counts are ")

    def recount(data: dict) -> None:
        for infos in data["shards"].values():
            infos[1]["samples"] = 11

    rewrite_manifest(shards, recount)
    assert f"{SHARD}: has 12 samples, 11 in the manifest" in verify(str(shards))


def test_the_command_line(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["shards", "verify", str(shards)]) == 0
    manifest = Manifest.load(str(shards))
    size = sum(shard.bytes for infos in manifest.shards.values() for shard in infos)
    assert capsys.readouterr().out.startswith(
        f"verified: 36 images at each of the resolutions 4, 8 in 6 shards of {size:,} bytes: sizes, SHA-256"
    )
    (shards / SHARD).unlink()
    assert main(["shards", "verify", str(shards)]) == 1
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert main(["shards", "verify", str(shards / "nothing")]) == 2
    assert "holds no manifest.json" in capsys.readouterr().err
