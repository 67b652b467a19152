"""`bigtrain shards index`: shards of others become a manifest, or every problem is named and nothing is written."""

from __future__ import annotations

import gc
import hashlib
import io
import json
import shutil
import tarfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image

from bigtrain.cli.main import main
from bigtrain.data.indexing import Indexed, RefusedShardsError, index
from bigtrain.data.manifest import NATIVE, Manifest, ShardIndex
from bigtrain.data.samples import PICKLES
from bigtrain.data.tar import BLOCK
from bigtrain.data.verify import verify
from bigtrain.storage import Storage
from tests.unit.made_shards import Member, by_img2dataset, by_webdataset, image, write_tar


def indexes(url: str) -> list[ShardIndex]:
    storage = Storage(url)
    return [ShardIndex.from_json(storage.read(info.index)) for info in Manifest.load(url).shards[NATIVE]]


def values(url: str) -> list[int]:
    """The grey value of every image, found by the index."""
    found = []
    for info, columns in zip(Manifest.load(url).shards[NATIVE], indexes(url), strict=True):
        content = Path(info.key if info.is_elsewhere else f"{url}/{info.key}").read_bytes()
        for offset, size in zip(columns.offsets, columns.sizes, strict=True):
            picture = Image.open(io.BytesIO(content[offset : offset + size]))
            found.append(round(float(np.asarray(picture).mean())))
    return found


def refused(folder: Path, *shards: list[Member], **options: object) -> list[str]:
    """The problems of shards of these members; nothing may have been written."""
    for number, members in enumerate(shards):
        write_tar(folder / f"{number}.tar", members)
    before = sorted(folder.rglob("*"))
    with pytest.raises(RefusedShardsError) as caught:
        index([str(folder)], **options)  # type: ignore[arg-type]
    assert sorted(folder.rglob("*")) == before
    return [problem.removeprefix(f"{folder}/") for problem in caught.value.problems]


@pytest.mark.parametrize("extension", ["jpg", "jpeg", "png", "webp"])
def test_shards_by_webdataset(extension: str, tmp_path: Path) -> None:
    by_webdataset(tmp_path, extension=extension)
    made = index([str(tmp_path)])
    assert made.manifest == Manifest.load(str(tmp_path))
    assert (made.manifest.shard_samples, made.manifest.resolutions) == ([4, 4, 2], [])
    assert (made.manifest.classes, made.manifest.class_counts) == (["0", "1", "2"], [4, 3, 3])
    assert [made.manifest.stored(resolution) for resolution in (4, 1024)] == [NATIVE, NATIVE]
    assert [info.key for info in made.manifest.shards[NATIVE]] == [f"train-000{n}.tar" for n in range(3)]
    assert values(str(tmp_path)) == pytest.approx([number * 20 for number in range(10)], abs=2)
    assert {name for columns in indexes(str(tmp_path)) for name in columns.extensions} == {extension.replace("e", "")
        if extension == "jpeg" else extension}  # fmt: skip
    content = (tmp_path / "train-0001.tar").read_bytes()
    info = made.manifest.shards[NATIVE][1]
    assert (info.bytes, info.sha256, info.etag) == (len(content), hashlib.sha256(content).hexdigest(), None)
    assert verify(str(tmp_path)) == []


def test_img2datasets_layout_with_labels_of_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = str(by_img2dataset(tmp_path))
    assert main(["shards", "index", url]) == 0
    out = capsys.readouterr().out
    assert f"6 images in 2 shards, without labels, with checksums: {url}" in out
    assert "ignored: 6 x .json, 6 x .txt" in out
    assert main(["shards", "index", url, "--label", "json:label", "--classes", "4"]) == 0
    assert "4 classes" in capsys.readouterr().out
    assert [columns.labels.tolist() for columns in indexes(url) if columns.labels is not None] == [[0, 1, 2]] * 2
    assert Manifest.load(url).class_counts == [2, 2, 2, 0]
    assert verify(url) == []
    assert main(["shards", "verify", url]) == 0
    assert "resolutions native" in capsys.readouterr().out
    assert indexes(url)[0].keys == ["000000000", "000000001", "000000002"]


@pytest.mark.parametrize("made", [by_webdataset, by_img2dataset])
def test_webdataset_reads_the_same_samples(made: Callable[[Path], Path], tmp_path: Path) -> None:
    url = str(made(tmp_path))
    label = "cls" if made is by_webdataset else "json:label"
    infos = index([url], label=label).manifest.shards[NATIVE]
    found = []
    for info, columns in zip(infos, indexes(url), strict=True):
        content = (tmp_path / info.key).read_bytes()
        assert columns.labels is not None
        rows = zip(columns.keys, columns.extensions, columns.offsets, columns.sizes, columns.labels, strict=True)
        found += [(key, content[start : start + size], label, name) for key, name, start, size, label in rows]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # webdataset leaves its files open
        samples = list(webdataset.WebDataset([str(tmp_path / info.key) for info in infos], shardshuffle=False))
        gc.collect()
    assert len(samples) == len(found)
    for sample, (key, content, number, name) in zip(samples, found, strict=True):
        assert (sample["__key__"], sample[name]) == (key, content)
        assert int(sample["cls"] if "cls" in sample else json.loads(sample["json"])["label"]) == number


def test_labels_that_are_names(tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("dog\ncat\n")
    url = str(by_img2dataset(tmp_path / "shards"))
    made = index([url], label="json:kind", classes=str(names))
    assert (made.manifest.classes, made.manifest.class_counts) == (["dog", "cat"], [0, 6])
    assert verify(url) == []
    with pytest.raises(RefusedShardsError, match=r"label of sample '000000000' \(cat\) must be a class id; names need"):
        index([url], label="json:kind")


def test_without_checksums(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = str(by_webdataset(tmp_path))
    made = index([url], checksums=False)
    assert [info.sha256 for info in made.manifest.shards[NATIVE]] == [None] * 3
    assert all(columns.crc32 is None for columns in indexes(url))
    assert verify(url) == []
    assert main(["shards", "verify", url]) == 0
    assert "there are no checksums to compare with" in capsys.readouterr().out
    with_checksums = index([url]).manifest
    assert with_checksums.hash != made.manifest.hash
    assert with_checksums.samples == made.manifest.samples


def test_verify_finds_what_has_changed_since(tmp_path: Path) -> None:
    url = str(by_webdataset(tmp_path))
    path = tmp_path / "train-0000.tar"
    whole = path.read_bytes()
    for checksums, words in ((True, ["SHA-256", "crc32"]), (False, ["sizes"])):
        path.write_bytes(whole)
        index([url], checksums=checksums)
        write_tar(path, [(f"{n:05d}.{ext}", image(n, "png") + b" " if ext == "png" else b"0") for n in range(4)
            for ext in ("png", "cls")])  # fmt: skip
        problems = verify(url)
        assert all(any(word in problem for problem in problems) for word in words)
        assert all(problem.startswith("train-0000.tar: ") for problem in problems)


def test_several_places_into_another_folder(tmp_path: Path) -> None:
    first, second = by_webdataset(tmp_path / "a", 4), by_webdataset(tmp_path / "b", 12)
    (second / "train-0000.tar").unlink()
    shutil.move(second / "train-0001.tar", tmp_path / "alone.tar")
    shutil.copy(first / "train-0000.tar", tmp_path / "copy.tar")
    to = str(tmp_path / "to")
    made = index([f"{first}/train-{{0000..0000}}.tar", str(tmp_path / "alone.tar"), str(second)], to)
    keys = [info.key for info in made.manifest.shards[NATIVE]]
    assert keys == [str(first / "train-0000.tar"), str(tmp_path / "alone.tar"), str(second / "train-0002.tar")]
    assert all(info.is_elsewhere for info in made.manifest.shards[NATIVE])
    assert sorted(path.name for path in (tmp_path / "to").rglob("*.json")) == [
        *(f"00000{number}.index.json" for number in range(3)),
        "manifest.json",
    ]
    assert verify(to) == []
    (warning,) = index([str(first), str(tmp_path / "copy.tar")], to, checksums=False).warnings
    assert warning.startswith("4 keys occur in several shards, such as '0000")
    with pytest.raises(RefusedShardsError, match="4 samples occur twice, with key and image, such as '0000"):
        index([str(first), str(tmp_path / "copy.tar")], to, checksums=True)


def test_indexing_again_replaces_an_index_but_never_a_build(
    tmp_path: Path, digits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = str(by_webdataset(tmp_path / "a"))
    first = index([url]).manifest
    assert index([url]).manifest == first
    (tmp_path / "a/train-0002.tar").unlink()
    assert index([url]).manifest.shard_samples == [4, 4]
    with pytest.raises(ValueError, match=r"holds a manifest.json of `shards build`, which is not replaced"):
        index([url], str(digits))


def test_images_without_labels(tmp_path: Path) -> None:
    url = str(by_webdataset(tmp_path))
    manifest = index([url], label="none").manifest
    assert (manifest.classes, manifest.class_counts) == ([], [])
    assert indexes(url)[0].labels is None
    assert verify(url) == []


PNG = image(0, "png")
GOOD: list[Member] = [("a.png", PNG), ("a.cls", b"1")]
TWO = BLOCK * 2 + (-(-len(PNG) // BLOCK) - 1) * BLOCK  # where the member behind a.png starts


@pytest.mark.parametrize(
    ("members", "options", "problem"),
    [
        ([("a.png", PNG), ("b.png", PNG), ("a.txt", b"")], {}, f"0.tar: byte {2 * TWO}: the members of sample 'a' ar"),
        ([("a.png", PNG), ("b.png", PNG), ("a.png", PNG)], {}, f"0.tar: byte {2 * TWO}: 'png' of sample 'a' occurs"),
        ([("a.txt", b"")], {}, "0.tar: byte 0: sample 'a' must have one image (png, jpg or webp), has ['txt']"),
        ([("a.png", PNG), ("a.jpg", PNG)], {}, "0.tar: byte 0: sample 'a' must have one image"),
        ([*GOOD, ("b.png", PNG)], {}, f"0.tar: byte {TWO + 2 * BLOCK}: 1 of 2 samples have a label; all or none must"),
        ([("a.png", PNG)], {"label": "cls"}, "0.tar: byte 0: sample 'a' has no label: no .cls"),
        ([("a.png", PNG)], {"label": "json:x"}, "0.tar: byte 0: sample 'a' has no label: no .json with the field 'x'"),
        (
            [("a.png", PNG), ("a.json", b'{"y": 1}')],
            {"label": "json:x"},
            f"0.tar: byte {TWO + BLOCK}: label of sample 'a' has no field 'x'; it has y",
        ),
        ([("a.png", PNG), ("a.json", b"{")], {"label": "json:x"}, f"0.tar: byte {TWO + BLOCK}: label of sample 'a' i"),
        ([("a.png", PNG), ("a.json", b"[" * 10**5)], {"label": "json:x"}, f"0.tar: byte {TWO + BLOCK}: label of"),
        ([("a.png", PNG), ("a.json", b'{"x": true}')], {"label": "json:x"}, f"0.tar: byte {TWO + BLOCK}: label of"),
        (GOOD, {"classes": "1"}, f"0.tar: byte {TWO + BLOCK}: label of sample 'a' (1) is none of the 1 classes"),
        ([("a.png", PNG)], {"classes": "3"}, "no sample has a label: no .cls, but classes are given"),
        ([("a.png", PNG), ("a.cls", b"123456")], {}, "a label is 123456: pass --classes"),
        ([], {}, "0.tar: byte 0: an empty shard"),
        ([("/etc/a.png", PNG)], {}, "0.tar: byte 0: member '/etc/a.png' has a path that leads outside"),
        ([("a/../../b.png", PNG)], {}, "0.tar: byte 0: member 'a/../../b.png' has a path that leads outside"),
        *(
            ([("a.png", PNG), (f"a.{name}", b"")], {}, f"0.tar: byte {TWO}: member 'a.{name}' may be a pickle")
            for name in sorted(PICKLES)
        ),
        ([("a.png", PNG), ("a.depth.PKL", b"")], {}, f"0.tar: byte {TWO}: member 'a.depth.PKL' may be a pickle"),
    ],
)  # fmt: skip
def test_what_is_named_and_refused(
    members: list[Member], options: dict[str, object], problem: str, tmp_path: Path
) -> None:
    assert refused(tmp_path, members, **options)[0].startswith(problem)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, b"S"])
def test_links_devices_and_sparse_members(kind: bytes, tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", [("a.png", b"")], type=kind, linkname="/etc/passwd")
    with pytest.raises(RefusedShardsError, match=r"byte 0: member 'a\.png' is no regular file"):
        index([str(tmp_path)])


def test_damage_is_named_with_its_shard_and_byte(tmp_path: Path) -> None:
    by_webdataset(tmp_path)
    first, second = tmp_path / "train-0000.tar", tmp_path / "train-0001.tar"
    content = bytearray(first.read_bytes())
    content[5] ^= 1
    first.write_bytes(content)
    second.write_bytes(second.read_bytes()[:1100])
    with pytest.raises(RefusedShardsError) as caught:
        index([str(tmp_path)])
    assert caught.value.problems[0] == f"{first}: byte 0: damaged header: its checksum is wrong"
    assert caught.value.problems[1].startswith(f"{second}: byte ")
    assert "truncated" in caught.value.problems[1]


def test_half_of_the_shards_have_labels_or_are_missing(tmp_path: Path) -> None:
    (problem,) = refused(tmp_path, GOOD, [("b.png", PNG)])
    assert problem.startswith("1.tar: byte 0: no sample has a label, but those of")
    with pytest.raises(RefusedShardsError, match=r"2\.tar: not found"):
        index([f"{tmp_path}/{{0..2}}.tar"], str(tmp_path / "to"))


def test_at_most_twenty_problems_are_listed_and_all_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(3):
        write_tar(tmp_path / f"{number}.tar", [(f"{number}-{i}.txt", b"") for i in range(50)])
    assert main(["shards", "index", str(tmp_path)]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("shards index (est")]
    assert len(lines) == 22
    assert lines[20:] == ["... and 130 more", "150 problems: nothing was written"]
    assert not (tmp_path / "manifest.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{a}/x-{{0..1}}.tar"], "--to: pass a URL for the manifest"),
        (["https://example.org/shards"], "--to: pass a URL"),
        (["https://example.org/shards", "--to", "{a}/to"], "HTTP cannot list a folder; pass a pattern such as"),
        (["{a}/x-{{0..1.tar", "--to", "{a}/to"], "is no pattern with braces"),
        (["{a}/${{NOTHING}}.tar", "--to", "{a}/to"], "is no pattern with braces"),
        (["{a}/empty"], "holds no .tar files"),
        (["{a}/s", "{a}/s", "--to", "{a}/to"], "is named twice"),
        (["{a}/s", "--label", "text"], "must be cls, json:FIELD or none"),
        (["{a}/s", "--label", "none", "--classes", "3"], "need labels"),
        (["{a}/s", "--classes", "nowhere.txt"], "must be a number, or a file"),
        (["{a}/s", "--workers", "0"], "workers (=0) at least 1"),
        (["{a}/s", "--checksum"], "did you mean --checksums?"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    by_webdataset(tmp_path / "s", 2)
    (tmp_path / "empty").mkdir()
    assert main(["shards", "index", *(argument.format(a=tmp_path) for argument in arguments)]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.rglob("manifest.json"))


def test_any_number_of_threads_makes_the_same(tmp_path: Path) -> None:
    url = str(by_webdataset(tmp_path, 30, 2))
    made: list[Indexed] = [index([url], workers=workers) for workers in (1, 8)]
    assert made[0].manifest.hash == made[1].manifest.hash
    assert json.loads((tmp_path / "manifest.json").read_text())["source"]["label"] == "auto"
