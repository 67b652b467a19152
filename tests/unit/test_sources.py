"""The sources of `shards build`: what they find, what they leave out and say so, and what they refuse."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bigtrain.data.images import UnusableImageError
from bigtrain.data.sources import Source, open_source
from bigtrain.data.sources import trees as tree_module

CATS_AND_DOGS = {"cat/0.png": 10, "cat/1.PNG": 20, "dog/a/2.jpg": 30, "dog/b/3.jpeg": 40}
KINDS = ["folder", "zip"]


def write_images(root: Path, files: dict[str, int | bytes]) -> None:
    """Images of one grey value each, or files of these bytes."""
    for name, value in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(value, bytes):
            path.write_bytes(value)
        else:
            Image.new("L", (8, 8), value).save(path)


def make(kind: str, root: Path, files: dict[str, int | bytes]) -> str:
    """A folder or a zip of these files; its name."""
    write_images(root / "files", files)
    if kind == "folder":
        return str(root / "files")
    with zipfile.ZipFile(root / "files.zip", "w") as archive:
        for name in files:
            archive.write(root / "files" / name, name)
    return str(root / "files.zip")


def contents(source: Source) -> dict[str, tuple[int | None, int]]:
    """Label and grey value by name."""
    values = [round(float(np.asarray(source.load(i)).mean())) for i in range(len(source))]
    return {source.name(i): (source.label(i), value) for i, value in enumerate(values)}


@pytest.mark.parametrize("kind", KINDS)
def test_classes_are_the_first_folders(kind: str, tmp_path: Path) -> None:
    source = open_source(make(kind, tmp_path, CATS_AND_DOGS))
    assert source.classes == ["cat", "dog"]
    assert contents(source) == {
        "cat/0.png": (0, 10),
        "cat/1.PNG": (0, 20),
        "dog/a/2.jpg": (1, 30),
        "dog/b/3.jpeg": (1, 40),
    }
    assert (source.kind, source.channels, source.native_resolution, list(source.skips)) == (kind, 3, None, [])


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_is_sorted_and_survives_pickling(kind: str, tmp_path: Path) -> None:
    files: dict[str, int | bytes] = {f"{'ba'[i % 2]}/{(i * 7) % 10}.png": i for i in range(10)}
    source = open_source(make(kind, tmp_path, files))
    names = [source.name(i) for i in range(len(source))]
    assert names == sorted(files)
    source.load(0)
    again = pickle.loads(pickle.dumps(source))
    assert contents(again) == contents(source)
    assert again.fingerprint() == source.fingerprint()


@pytest.mark.parametrize("kind", KINDS)
def test_images_in_the_root_have_no_labels(kind: str, tmp_path: Path) -> None:
    source = open_source(make(kind, tmp_path, {"0.png": 1, "1.png": 2}))
    assert source.classes == []
    assert contents(source) == {"0.png": (None, 1), "1.png": (None, 2)}


@pytest.mark.parametrize("kind", KINDS)
def test_unlabelled_takes_images_wherever_they_lie(kind: str, tmp_path: Path) -> None:
    source = open_source(make(kind, tmp_path, {"0.png": 1, "a/b/1.png": 2}), unlabelled=True, channels=1)
    assert source.classes == []
    assert contents(source) == {"0.png": (None, 1), "a/b/1.png": (None, 2)}
    assert source.channels == 1


@pytest.mark.parametrize("kind", KINDS)
def test_every_other_file_is_a_named_skip_but_for_those_of_the_system(kind: str, tmp_path: Path) -> None:
    quiet = [".hidden", ".DS_Store", "cat/Thumbs.db", "__MACOSX/cat/._0.png", ".git/x.png", "cat/.0.png"]
    named = ["README.md", "cat/labels.json", "cat/noextension"]
    files = CATS_AND_DOGS | dict.fromkeys([*quiet, *named], b"x")
    source = open_source(make(kind, tmp_path, files))
    assert [(skip.name, skip.reason) for skip in source.skips] == [(name, "not an image") for name in named]
    assert len(source) == len(CATS_AND_DOGS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_too_large_is_skipped_by_its_declared_size(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree_module, "LARGEST_FILE", 5000)
    source = open_source(make(kind, tmp_path, CATS_AND_DOGS | {"cat/bomb.png": b"x" * 5001}))
    assert [(skip.name, skip.reason) for skip in source.skips] == [("cat/bomb.png", "too large a file")]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("files", "problem", "deeper"),
    [
        (["all/a.png", "all/b.png"], "all labels would be the same", "all"),
        (["x/train/cat/0.png", "x/train/dog/1.png"], "all labels would be the same", "x/train"),
        (["x/train/0.png", "x/val/1.png"], "all labels would be the same", "x"),
        (["train/cat/0.png", "train/dog/1.png", "val/cat/2.png", "val/dog/3.png"], "hold the same folders", "train"),
        (["train/images/0.png", "val/images/1.png"], "hold the same folders", "train"),
        (["0.png", "cat/1.png", "dog/2.png"], "such as 0.png, lie beside the class folders cat, dog", "cat"),
    ],
)
def test_folders_that_are_no_classes(kind: str, files: list[str], problem: str, deeper: str, tmp_path: Path) -> None:
    name = make(kind, tmp_path, dict.fromkeys(files, 7))
    remedy = f"pass {name}/{deeper} as SOURCE" if kind == "folder" else f"pass --subfolder {deeper}"
    with pytest.raises(ValueError, match=problem) as caught:
        open_source(name)
    assert name in str(caught.value)
    assert f"{remedy}, or --unlabelled" in str(caught.value)
    assert len(open_source(name, unlabelled=True)) == len(files)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "files",
    [
        ["cat/a/0.png", "dog/b/1.png"],  # the folders below differ
        ["cat/a/0.png", "dog/a/1.png", "dog/2.png"],  # an image beside them
        ["cat/0.png", "dog/1.png"],
    ],
)
def test_folders_that_are_classes(kind: str, files: list[str], tmp_path: Path) -> None:
    assert open_source(make(kind, tmp_path, dict.fromkeys(files, 7))).classes == ["cat", "dog"]


@pytest.mark.parametrize("kind", KINDS)
def test_subfolder(kind: str, tmp_path: Path) -> None:
    files = {f"data/train/{name}": value for name, value in CATS_AND_DOGS.items()} | {"data/val/cat/9.png": 9}
    source = open_source(make(kind, tmp_path, files), subfolder="data/train")
    assert source.classes == ["cat", "dog"]
    assert source.name(0) == "cat/0.png"
    with pytest.raises(ValueError, match="has no folder 'data/tra"):
        open_source(make(kind, tmp_path, files), subfolder="data/tra")


@pytest.mark.parametrize("kind", KINDS)
def test_a_source_without_images(kind: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no image \(.*it has 1 other files, such as a.txt"):
        open_source(make(kind, tmp_path, {"a.txt": b"x"}))


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_image_is_unusable_alone(kind: str, tmp_path: Path) -> None:
    source = open_source(make(kind, tmp_path, CATS_AND_DOGS | {"cat/bad.png": b"no image"}))
    with pytest.raises(UnusableImageError):
        source.load([source.name(i) for i in range(len(source))].index("cat/bad.png"))


@pytest.mark.parametrize("kind", KINDS)
def test_the_fingerprint_tells_sources_apart(kind: str, tmp_path: Path) -> None:
    def fingerprint(number: int, files: dict[str, int | bytes], **options: bool) -> str:
        return open_source(make(kind, tmp_path / str(number), files), **options).fingerprint()

    name = make(kind, tmp_path, CATS_AND_DOGS)
    assert open_source(name).fingerprint() == open_source(name).fingerprint()
    assert open_source(name).fingerprint() != open_source(name, unlabelled=True).fingerprint()
    renamed = {name.replace("dog", "doe"): value for name, value in CATS_AND_DOGS.items()}
    changed = CATS_AND_DOGS | {"cat/0.png": 99}
    found = [fingerprint(number, files) for number, files in enumerate((CATS_AND_DOGS, renamed, changed))]
    assert len(set(found)) == 3


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    write_images(tmp_path / "elsewhere", {"1.png": 1})
    write_images(tmp_path / "files", {"cat/0.png": 0, "dog/2.png": 2})
    (tmp_path / "files/cat/more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "files/cat/loop").symlink_to(tmp_path / "files")
    (tmp_path / "files/cat/itself").symlink_to("itself")
    (tmp_path / "files/dog/gone.png").symlink_to("nowhere.png")
    source = open_source(str(tmp_path / "files"))
    assert [source.name(i) for i in range(len(source))] == ["cat/0.png", "cat/more/1.png", "dog/2.png"]
    assert {skip.name: skip.reason for skip in source.skips} == {
        "cat/itself": "not a file",
        "cat/loop": "a link to a folder above it",
        "dog/gone.png": "not a file",
    }


def test_a_file_that_vanished_is_no_skip(tmp_path: Path) -> None:
    source = open_source(make("folder", tmp_path, CATS_AND_DOGS))
    (tmp_path / "files/cat/0.png").unlink()
    with pytest.raises(FileNotFoundError):
        source.load(0)


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    path = Path(make("zip", tmp_path, CATS_AND_DOGS))
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1  # the flags of the first member
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"cat/0.png is encrypted"):
        open_source(str(path))


def test_a_damaged_zip_is_refused_and_a_damaged_member_is_unusable(tmp_path: Path) -> None:
    path = Path(make("zip", tmp_path, CATS_AND_DOGS))
    content = bytearray(path.read_bytes())
    content[content.index(b"IDAT")] ^= 255
    path.write_bytes(content)
    source = open_source(str(path))
    with pytest.raises(UnusableImageError, match="Bad CRC-32"):
        source.load(0)
    assert source.load(1).size == (8, 8)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="is no zip, or a damaged one"):
        open_source(str(path))


def test_members_of_a_zip_that_lead_outside_are_skipped_and_nothing_is_extracted(tmp_path: Path) -> None:
    path = Path(make("zip", tmp_path, CATS_AND_DOGS))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../../evil.png", b"x")
        archive.writestr("/evil.png", b"x")
    before = sorted(tmp_path.rglob("*"))
    source = open_source(str(path))
    contents(source)
    assert [(skip.name, skip.reason) for skip in source.skips] == [
        ("../../evil.png", "a path that leads outside"),
        ("/evil.png", "a path that leads outside"),
    ]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["nothing/here", "what.zip", "nosuch:mnist"])
def test_a_source_that_does_not_exist(name: str) -> None:
    with pytest.raises(ValueError, match=f"SOURCE '{name}' does not exist; a source is a folder.*zip.*digits:.*idx:"):
        open_source(name)


def test_a_file_that_is_no_source(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("")
    with pytest.raises(ValueError, match=r"a.csv' is not a kind of source; a source is"):
        open_source(str(tmp_path / "a.csv"))
