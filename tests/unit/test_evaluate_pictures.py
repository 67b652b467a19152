"""`bigtrain evaluate` of shards and of folders of classes, and of what only generators have."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bigtrain.cli.main import main
from bigtrain.cli.pictures import Stored, open_pictures
from bigtrain.data.sources.arrays import digits
from bigtrain.evaluation import classifier
from tests.unit.made_snapshot import PROGRESSIVE, made_snapshot
from tests.unit.test_evaluate_command import GREY


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("shards") / "digits")
    assert main(["shards", "build", "digits:", folder, "--resolutions", "4,8", "--workers", "1"]) == 0
    return folder


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(classifier, "MAX_EPOCHS", 2)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))


def sorted_by_class(folder: Path, names: str, count: int = 80) -> str:
    """The first digits in subfolders of these names, nought first."""
    source = digits(1, False)
    for i in range(count):
        label = source.label(i)
        assert label is not None
        place = folder / names[label]
        place.mkdir(parents=True, exist_ok=True)
        source.load(i).save(place / f"{i:03d}.png")
    return str(folder)


def scores(tmp_path: Path, *arguments: str) -> dict[str, dict]:
    file = tmp_path / "scores.json"
    assert main(["evaluate", *arguments, "--json", str(file)]) == 0
    return {score["metric"]: score for score in json.loads(file.read_text())}


def test_shards_are_measured_as_the_reference_is(shards, tmp_path) -> None:  # type: ignore[no-untyped-def]
    """Against themselves they are at no distance, and are recognised as well as the classifier can."""
    found = scores(tmp_path, shards, "--reference", shards, "--metrics", "fid,recognition")
    assert found["fid1797_full"]["value"] == pytest.approx(0, abs=1e-6)
    assert found["recognition1797"]["value"] > 0.5
    protocol = found["recognition1797"]["protocol"]
    assert (protocol["prepared"], protocol["label_distribution"]) == (None, "those of the images")


def test_some_images_of_shards_are_a_choice(shards) -> None:  # type: ignore[no-untyped-def]
    """Number i is the same image however many are asked for; they are not the first; another seed is another choice."""
    pictures = open_pictures(shards, 8, 1)
    assert isinstance(pictures, Stored)
    everything, labels = pictures.read(range(len(pictures)))
    images, _ = pictures(np.arange(len(pictures)))
    assert torch.equal(pictures(np.arange(5, 9))[0], images[5:9])
    assert not torch.equal(images, everything)
    for some in (images, everything):
        assert some.shape == (1797, 1, 8, 8)
    order = [image.numpy().tobytes() for image in images]
    assert sorted(order) == sorted(image.numpy().tobytes() for image in everything)
    assert not torch.equal(open_pictures(shards, 8, 1, seed=1)(np.arange(9))[0], images[:9])
    pictures.label_as([str(i) for i in reversed(range(10))])
    assert torch.equal(pictures(np.arange(1797))[1].sort().values, (9 - labels).sort().values)


def test_folders_of_classes_are_recognised_by_name(shards, tmp_path, caplog) -> None:  # type: ignore[no-untyped-def]
    """Right names as well as the shards' own, cyclically exchanged ones hardly ever, and others are not used."""
    common = ["--reference", shards, "--metrics", "modes,recognition", "--extractor", "classifier"]
    right = scores(tmp_path, sorted_by_class(tmp_path / "right", "0123456789"), *common)
    wrong = scores(tmp_path, sorted_by_class(tmp_path / "wrong", "1234567890"), *common)
    assert right["recognition80"]["value"] > 0.5
    assert wrong["recognition80"]["value"] < 0.3
    assert not caplog.messages
    assert list(scores(tmp_path, sorted_by_class(tmp_path / "other", "abcdefghij"), *common)) == ["modes80"]
    (line,) = [text for text in caplog.messages if "classes" in text]
    assert "such as 'a' (theirs: 0, 1, 2, 3, 4 …): its labels are not used" in line


def test_path_lengths_are_of_a_generator(shards, tmp_path) -> None:  # type: ignore[no-untyped-def]
    """Beside other metrics and in their order; the same at any batch; by the extractor that measures all else."""
    snapshot = made_snapshot(tmp_path / "run" / "snapshots", arguments={**PROGRESSIVE, "resolution": 8})
    common = [snapshot, "--reference", shards, "--num", "30", "--extractor", GREY, "--metrics"]
    found = scores(tmp_path, *common, "ppl,fid,ppl_linear")
    assert list(found) == ["ppl30", "fid30_full", "ppl_linear30"]
    assert found["ppl30"]["protocol"]["extractor"].startswith(GREY)
    assert found["ppl30"]["protocol"]["reference"] is None
    assert found["ppl30"]["value"] > 0
    again = scores(tmp_path, *common, "ppl", "--batch", "7")
    assert again["ppl30"]["value"] == pytest.approx(found["ppl30"]["value"], rel=0.02)  # float32 of steps of 1e-4


def test_a_zip_of_images_has_classes_too(shards, tmp_path) -> None:  # type: ignore[no-untyped-def]
    folder = Path(sorted_by_class(tmp_path / "right", "0123456789", 30))
    with zipfile.ZipFile(tmp_path / "right.zip", "w") as archive:
        for path in sorted(folder.rglob("*.png")):
            archive.write(path, path.relative_to(folder))
    pictures = open_pictures(str(tmp_path / "right.zip"), 8, 1)
    pictures.label_as([str(i) for i in range(10)])
    images, labels = pictures.read(range(3))
    assert labels.tolist() == [0, 0, 0]
    assert np.array_equal(images[0, 0], np.asarray(Image.open(sorted(folder.rglob("*.png"))[0])))
