"""The manifest: what it says of itself, what decides its hash, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bigtrain.data.manifest import NATIVE, Manifest, ShardIndex, ShardInfo
from bigtrain.storage import Storage


def shard(resolution: int, number: int, samples: int, **fields: object) -> ShardInfo:
    stem = f"r{resolution}/shard-{number:06d}"
    info = ShardInfo(f"{stem}.tar", f"{stem}.index.json", samples, 1000, "0" * 64)
    return dataclasses.replace(info, **fields)  # type: ignore[arg-type]


def manifest(**fields: object) -> Manifest:
    shards = {width: [shard(width, 0, 6), shard(width, 1, 2)] for width in (8, 4)}
    made = Manifest(1, ["cat", "dog"], 3, [5, 3], shards, {"unreadable": 1}, {"kind": "folder"})
    return dataclasses.replace(made, **fields)  # type: ignore[arg-type]


def test_what_it_sums_up() -> None:
    made = manifest()
    assert (made.samples, made.shard_samples, made.resolutions, made.num_classes) == (8, [6, 2], [4, 8], 2)
    assert manifest(classes=[], class_counts=[]).num_classes == 0


def test_it_survives_saving(tmp_path: Path) -> None:
    manifest().save(Storage(str(tmp_path)))
    for loaded in (Manifest.load(str(tmp_path)), Manifest.load(Storage(str(tmp_path)))):
        assert loaded == manifest()
        assert loaded.hash == manifest().hash


def test_the_hash_is_of_all_that_decides_the_data_and_of_nothing_else() -> None:
    changes: list[dict[str, object]] = [
        {"classes": ["cat", "doe"]},
        {"channels": 1},
        {"class_counts": [4, 4]},
        {"skipped": {}},
        {"shards": {4: manifest().shards[4]}},
        *({"shards": {4: [shard(4, 0, 8, **change)]}} for change in ({"sha256": "1" * 64}, {"bytes": 1}, {"key": "k"})),
    ]
    hashes = {manifest(**change).hash for change in [{}, *changes]}
    assert len(hashes) == len(changes) + 1
    assert manifest(source={"kind": "zip"}).hash == manifest().hash


def native(**fields: object) -> Manifest:
    info = shard(8, 0, 8, key="s3://bucket/a.tar", index="index/0.index.json", sha256=None, etag="e")
    return manifest(shards={NATIVE: [dataclasses.replace(info, **fields)]})  # type: ignore[arg-type]


def test_images_as_they_came_serve_every_resolution(tmp_path: Path) -> None:
    made = native()
    assert (made.resolutions, made.shard_samples, made.samples) == ([], [8], 8)
    assert (made.stored(4), made.stored(256)) == (NATIVE, NATIVE)
    made.save(Storage(str(tmp_path)))
    assert list(json.loads((tmp_path / "manifest.json").read_text())["shards"]) == ["native"]
    assert Manifest.load(str(tmp_path)) == made
    both = manifest(shards={8: [shard(8, 0, 8)], NATIVE: [shard(8, 1, 8)]})
    assert (both.resolutions, both.stored(8), both.stored(4)) == ([8], 8, NATIVE)
    assert manifest().stored(8) == 8
    with pytest.raises(ValueError, match=r"resolution \(=16\) must be one of the stored ones: 4, 8"):
        manifest().stored(16)


def test_shards_that_lie_elsewhere() -> None:
    assert [shard(4, 0, 1, key=key).is_elsewhere for key in ("s3://b/a.tar", "/data/a.tar", "a/b.tar")] == [1, 1, 0]


def test_an_etag_decides_only_where_there_is_no_checksum() -> None:
    assert native(etag="f").hash != native().hash
    assert native(etag="f", sha256="0").hash == native(sha256="0").hash


def test_a_manifest_of_before_has_its_hash_still() -> None:
    """Checkpoints have it."""
    assert manifest().hash == "b96c3cb655ab1055bab003cb0c04fabf894b9440af13cb80958bbdbe12dc66d3"


def test_a_missing_manifest_says_how_to_make_it(tmp_path: Path) -> None:
    url = str(tmp_path / "nothing")
    with pytest.raises(ValueError, match=f"data.url .*{url}.* holds no manifest.json; make it with `bigtrain shards b"):
        Manifest.load(url)
    assert not Path(url).exists()


def test_an_unfinished_build_says_so(tmp_path: Path) -> None:
    (tmp_path / "build.json").write_text("{}")
    with pytest.raises(ValueError, match="its build is unfinished; run the same `bigtrain shards build SOURCE"):
        Manifest.load(str(tmp_path))


@pytest.mark.parametrize(
    "change",
    [
        {"channels": 2},
        {"class_counts": [8]},
        {"shards": {}},
        {"shards": {"4": [dataclasses.asdict(shard(4, 0, 8))], "8": [dataclasses.asdict(shard(8, 0, 7))]}},
        {"shards": {"four": []}},
        {"shards": {"0": [dataclasses.asdict(shard(4, 0, 8))]}},
        {"shards": {"4": [{"key": "a"}]}},
        {"surprise": 1},
    ],
)
def test_a_malformed_manifest(change: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(dataclasses.asdict(manifest()) | change))
    with pytest.raises(ValueError, match=f"^{path} is malformed"):
        Manifest.load(str(tmp_path))


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "{}", "\udcff"])
def test_what_is_no_manifest(content: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match=r"manifest.json is malformed"):
        Manifest.load(str(tmp_path))


def test_another_version_is_refused(tmp_path: Path) -> None:
    manifest(version=2).save(Storage(str(tmp_path)))
    with pytest.raises(ValueError, match="has version 2, but this bigtrain reads version 1; update bigtrain"):
        Manifest.load(str(tmp_path))


@pytest.mark.parametrize(
    "change", [{"offsets": [1]}, {"labels": [1, 2, 3]}, {"keys": None}, {"sizes": [1, 2**70]}, {"version": 9}]
)
def test_a_malformed_index(change: dict[str, object]) -> None:
    column = np.array([1, 2], dtype=np.int64)
    index = ShardIndex(["a", "b"], ["png", "jpg"], column, column, column, None)
    content = index.to_json()
    assert ShardIndex.from_json(content).to_json() == content
    with pytest.raises(ValueError, match=r"^shard index (is malformed|has version 9)"):
        ShardIndex.from_json(json.dumps(json.loads(content) | change).encode())


def test_an_index_without_checksums() -> None:
    column = np.array([1, 2], dtype=np.int64)
    index = ShardIndex(["a", "b"], ["webp", "jpg"], column, column, None, column)
    again = ShardIndex.from_json(index.to_json())
    assert again.crc32 is None
    assert again.to_json() == index.to_json()


def test_it_is_read_without_torch() -> None:
    code = "import sys, bigtrain.data.manifest, bigtrain.data.samples; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
