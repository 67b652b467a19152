"""Sources that other libraries and other shards bring: torchvision, Hugging Face's datasets, shards."""

from __future__ import annotations

import importlib.util
import os
import pickle
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets as torchvision_datasets

from bigtrain.cli.main import main
from bigtrain.data.images import UnusableImageError
from bigtrain.data.indexing import index
from bigtrain.data.manifest import Manifest
from bigtrain.data.sources import Source, open_source
from bigtrain.data.sources.unpickled import PickleError, no_pickles
from bigtrain.data.verify import verify
from tests.unit.made_shards import by_img2dataset, by_webdataset, image, write_tar
from tests.unit.made_source import build_made, files_of


def greys(source: Source) -> list[int]:
    return [round(float(np.asarray(source.load(i).convert("L")).mean())) for i in range(len(source))]


def labels(source: Source) -> list[int | None]:
    return [source.label(i) for i in range(len(source))]


def check_source(source: Source) -> None:
    """What every source must be: the same in another process, and by its fingerprint."""
    again = pickle.loads(pickle.dumps(source))
    assert (again.fingerprint(), greys(again), labels(again)) == (source.fingerprint(), greys(source), labels(source))
    assert len({source.name(i) for i in range(len(source))}) == len(source)


@pytest.mark.parametrize("indexed", [False, True])
@pytest.mark.parametrize("form", ["{}", "shards:{}", "{}/train-{{0000..0002}}.tar"])
def test_shards_made_elsewhere(form: str, indexed: bool, tmp_path: Path) -> None:
    folder = by_webdataset(tmp_path / "s")
    if indexed:
        index([str(folder)])
    before = files_of(folder)
    source = open_source(form.format(folder))
    assert files_of(folder) == before
    assert (source.kind, source.channels, source.native_resolution) == ("shards", 3, None)
    assert (source.classes, labels(source)) == (["0", "1", "2"], [number % 3 for number in range(10)])
    assert greys(source) == [number * 20 for number in range(10)]
    assert source.name(5) == "train-0001.tar: 00005"
    check_source(source)
    bare = open_source(str(folder), unlabelled=True, channels=1)
    assert (bare.classes, bare.label(0), bare.channels) == ([], None, 1)
    assert bare.fingerprint() != source.fingerprint()


def test_shards_become_a_pyramid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    by_webdataset(tmp_path / "s")
    assert main(["shards", "build", str(tmp_path / "s"), str(tmp_path / "to"), "--resolutions=4,8", "--workers=2"]) == 0
    manifest = Manifest.load(str(tmp_path / "to"))
    assert (manifest.samples, manifest.resolutions, manifest.class_counts) == (10, [4, 8], [4, 3, 3])
    assert verify(str(tmp_path / "to")) == []
    smaller = open_source(str(tmp_path / "to"))
    assert (smaller.native_resolution, sorted(greys(smaller))) == (8, [number * 20 for number in range(10)])
    assert main(["shards", "build", str(tmp_path / "s"), str(tmp_path / "s/to"), "--resolutions=4,8"]) == 2
    assert "choose one outside it" in capsys.readouterr().err
    (single,) = [open_source(str(tmp_path / "s/train-0002.tar"))]
    assert greys(single) == [160, 180]


def test_a_damaged_image_in_shards_is_left_out_and_named(tmp_path: Path) -> None:
    folder = by_webdataset(tmp_path / "s", 4)
    index([str(folder)])
    path = folder / "train-0000.tar"
    content = bytearray(path.read_bytes())
    content[content.index(b"IDAT") + 6] ^= 255
    path.write_bytes(content)
    source = open_source(str(folder))
    with pytest.raises(UnusableImageError, match="not the checksum of the index"):
        source.load(0)
    assert build_made(source, tmp_path / "to").skipped == {"damaged": 1}


def test_shards_with_problems_are_refused(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", [("a.txt", b"")])
    with pytest.raises(ValueError, match="sample 'a' must have one image"):
        open_source(str(tmp_path))
    with pytest.raises(ValueError, match=r"holds no \.tar"):
        open_source(f"shards:{tmp_path}/nothing")
    by_img2dataset(tmp_path / "b")
    (tmp_path / "b/0.png").write_bytes(image(1, "png"))
    assert open_source(str(tmp_path / "b")).kind == "folder", "not only shards"


def test_options_of_other_sources() -> None:
    with pytest.raises(ValueError, match=r"--split \(='test'\) is for torchvision:NAME, not for digits:"):
        open_source("digits:", split="test")
    with pytest.raises(ValueError, match="--download is for torchvision:NAME"):
        open_source("digits:", download=True)
    with pytest.raises(ValueError, match="--subfolder"):
        open_source("torchvision:FakeData", subfolder="a")


def test_fake_data_of_torchvision(tmp_path: Path) -> None:
    source = open_source("torchvision:FakeData")
    expected = torchvision_datasets.FakeData()
    assert (len(source), source.kind, source.channels) == (1000, "torchvision", 3)
    assert source.classes == [str(label) for label in range(10)]
    assert labels(source)[:20] == [int(expected[i][1]) for i in range(20)]
    np.testing.assert_array_equal(np.asarray(source.load(7)), np.asarray(expected[7][0]))
    assert pickle.loads(pickle.dumps(source)).fingerprint() == source.fingerprint()
    assert open_source("torchvision:FakeData", unlabelled=True).classes == []


def write_idx(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    path.write_bytes(bytes((0, 0, 8, values.ndim)) + sizes + values.astype(np.uint8).tobytes())


def test_a_data_set_of_torchvision_in_a_folder(tmp_path: Path) -> None:
    raw = tmp_path / "FashionMNIST/raw"
    for split, count in (("train", 6), ("t10k", 2)):
        write_idx(raw / f"{split}-images-idx3-ubyte", np.full((count, 28, 28), count))
        write_idx(raw / f"{split}-labels-idx1-ubyte", np.arange(count))
    source = open_source(f"torchvision:FashionMNIST:{tmp_path}", channels=1)
    assert source.classes[:2] == ["T-shirt/top", "Trouser"]
    assert (labels(source), greys(source)) == ([*range(6)], [6] * 6)
    check_source(source)
    assert len(open_source(f"torchvision:FashionMNIST:{tmp_path}", split="test")) == 2
    with pytest.raises(ValueError, match=r"split \(='val'\) of FashionMNIST must be train or test"):
        open_source(f"torchvision:FashionMNIST:{tmp_path}", split="val")
    assert build_made(source, tmp_path / "to", upscale=True).class_counts == [1] * 6 + [0] * 4


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("FashionMNIST:{}", "cannot be opened: Dataset not found.*pass --download"),
        ("mnist", "torchvision.datasets has no 'mnist'; did you mean .*MNIST"),
        ("Nonsense", "has no 'Nonsense'; choose one"),
        ("utils", "has no 'utils'"),
        ("", "has no ''"),
        ("DatasetFolder:{}", "needs loader, which cannot be given"),
    ],
)
def test_data_sets_of_torchvision_that_are_not_there(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        open_source("torchvision:" + name.format(tmp_path))


def test_pickles_of_torchvision_are_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CIFAR-10 keeps its images in pickles: one of ours would have made a file."""

    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (os.mkdir, (str(tmp_path / "evil"),))

    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in ("data_batch_1", "batches.meta"):
        (folder / name).write_bytes(pickle.dumps(Evil()))
    monkeypatch.setattr(torchvision_datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *arguments: True)
    with pytest.raises(ValueError, match="keeps its images in pickles, which are never read"):
        open_source(f"torchvision:CIFAR10:{tmp_path}")
    assert not (tmp_path / "evil").exists()
    with no_pickles(), pytest.raises(PickleError):
        pickle.loads(pickle.dumps(1))
    assert pickle.loads(pickle.dumps(1)) == 1


def test_hugging_face_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r"SOURCE 'hf:mnist' needs the package `datasets`: run `pip install 'bigtrain"):
        open_source("hf:mnist")


needs_datasets = pytest.mark.skipif(
    importlib.util.find_spec("datasets") is None, reason="datasets is not installed: pip install 'bigtrain[hf]'"
)


@pytest.fixture
def hugging_face(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its package, offline, with a cache of its own."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf-home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    warnings.simplefilter("ignore")  # of its dependencies, about each other
    import datasets  # noqa: F401, PLC0415


@needs_datasets
@pytest.mark.usefixtures("hugging_face")
def test_parquet_of_hugging_face(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import datasets  # noqa: PLC0415
    import pyarrow  # noqa: PLC0415
    from pyarrow import parquet  # noqa: PLC0415

    files = [image(number * 20, "png") for number in range(10)]
    columns = {"caption": ["x"] * 10, "img": [{"bytes": f, "path": None} for f in files], "kind": [0, 1] * 5}
    features = datasets.Features(
        caption=datasets.Value("string"), img=datasets.Image(), kind=datasets.ClassLabel(names=["cat", "dog"])
    )
    folder = tmp_path / "parquet"
    folder.mkdir()
    parquet.write_table(pyarrow.table(columns, schema=features.arrow_schema), folder / "train-00000.parquet")
    source = open_source(f"hf:{folder}")
    assert "images from column 'img', labels from column 'kind'" in capsys.readouterr().err
    assert (source.classes, labels(source)) == (["cat", "dog"], [0, 1] * 5)
    assert greys(source) == [number * 20 for number in range(10)]
    check_source(source)
    assert open_source(f"hf:{folder}", unlabelled=True).label(0) is None
    assert build_made(source, tmp_path / "to", workers=2).class_counts == [5, 5]
    with pytest.raises(ValueError, match=r"hf:.*nosuch"):
        open_source(f"hf:{folder}:nosuch")


@needs_datasets
@pytest.mark.usefixtures("hugging_face")
def test_a_folder_of_images_by_hugging_face(tmp_path: Path) -> None:
    for number in range(4):
        path = tmp_path / "images/train" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), number * 20).save(path)
    source = open_source(f"hf:{tmp_path / 'images'}:train")
    assert source.classes == ["a", "b"]
    assert sorted(zip(greys(source), labels(source), strict=True)) == [(0, 0), (20, 1), (40, 0), (60, 1)]


@needs_datasets
@pytest.mark.usefixtures("hugging_face")
def test_what_hugging_face_does_not_have(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text/train.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="has no column of images; it has a, b"):
        open_source(f"hf:{tmp_path / 'text'}")
    with pytest.raises(ValueError, match="SOURCE 'hf:nobody/nothing' cannot be opened"):
        open_source("hf:nobody/nothing")
