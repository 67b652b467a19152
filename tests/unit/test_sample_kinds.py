"""`bigtrain sample --kind …` with a snapshot of random weights: what is written, and what is refused."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from bigtrain.cli import sample_kinds
from bigtrain.cli.main import main
from bigtrain.cli.sample import KINDS, OPTIONS
from bigtrain.evaluation.extractors import Measures
from tests.unit.made_snapshot import made_snapshot


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory, digits) -> str:
    return made_snapshot(tmp_path_factory.mktemp("snapshots"), shards=digits)


def tiles(path) -> tuple[int, int]:
    """Rows and columns of a sheet of enlarged tiles."""
    with Image.open(path) as opened:
        return (opened.height - 2) // 34, (opened.width - 2) // 34


@pytest.mark.parametrize(
    ("options", "shape", "said"),
    [
        (["--kind", "classes"], (10, 8), "10 classes x 8 latents"),
        (["--kind", "classes", "--labels", "3,5", "--indices", "7,1,7"], (2, 3), "2 classes x 3 latents"),
        (["--kind", "interpolation", "--steps", "5", "--num", "4"], (3, 5), "3 ways of 5 steps"),
        (["--kind", "interpolation", "--between", "classes", "--labels", "1,2"], (8, 8), "8 ways of 8 steps"),
        (["--kind", "truncation"], (4, 8), "4 thresholds x 8 samples"),
        (["--kind", "truncation", "--thresholds", "0.5, none", "--num", "2"], (2, 2), "2 thresholds x 2 samples"),
        (["--kind", "neighbours", "--nearest", "3", "--num", "2"], (2, 4), "(pixels) to the nearest of 1797"),
        (["--kind", "arithmetic", "--formula", "3 - 5 + 8", "--labels", "0,4"], (2, 4), "3 operands and their sum"),
        (["--kind", "samples", "--indices", "3,17,4"], (1, 3), "3 samples"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_sheets_are_written(snapshot, tmp_path, capsys, options, shape, said):
    assert main(["sample", snapshot, "--out", str(tmp_path / "a.png"), *options]) == 0
    assert said in capsys.readouterr().out
    assert tiles(tmp_path / "a.png") == shape


@pytest.mark.parametrize("ending", ["gif", "webp"])
def test_walks_are_written(snapshot, tmp_path, ending):
    out = tmp_path / f"walk.{ending}"
    arguments = ["--kind", "walk", "--num", "3", "--steps", "4", "--fps", "10", "--between", "both"]
    assert main(["sample", snapshot, "--out", str(out), *arguments]) == 0
    with Image.open(out) as opened:
        assert (opened.n_frames, opened.size) == (12, (32, 32))


def test_named_samples_are_those_that_are_counted(snapshot, tmp_path):
    for name, options in (("a", ["--num", "20"]), ("b", ["--indices", "17,3"])):
        assert main(["sample", snapshot, "--out", str(tmp_path / name), *options]) == 0
    for file in (tmp_path / "b").iterdir():
        assert file.read_bytes() == (tmp_path / "a" / file.name).read_bytes()
    assert sorted(file.name for file in (tmp_path / "b").iterdir()) == ["000003_3.png", "000017_7.png"]


def test_distances_may_be_those_of_an_extractor(snapshot, tmp_path, capsys, monkeypatch):
    class Scorer:
        def __init__(self, shards, resolution, by):
            self.extractor = self
            assert (shards.samples, resolution, by.extractor) == (1797, 8, "classifier")

        def measure(self, images, size):
            assert len(images) <= size
            return Measures(images.flatten(1).float(), torch.zeros(len(images), 1))

    monkeypatch.setattr("bigtrain.callbacks.scoring.Scorer", Scorer)
    arguments = ["sample", snapshot, "--kind", "neighbours", "--num", "2"]
    said = []
    for name in ("pixels", "classifier"):
        out = tmp_path / f"{name}.png"
        assert main([*arguments, "--extractor", name, "--out", str(out)]) == 0
        said.append([line.replace(f"({name})", "") for line in capsys.readouterr().out.splitlines()[:2]])
    assert said[0] == said[1]
    assert (tmp_path / "pixels.png").read_bytes() == (tmp_path / "classifier.png").read_bytes()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--kind", "class"], "--kind: invalid choice: 'class'"),
        (["--kind", "classes", "--out", "a.gif"], "--out (=a.gif) must end in .png for --kind classes"),
        (["--kind", "walk"], "must end in .gif or .webp or .mp4 for --kind walk"),
        (["--out", "a.gif"], "an animation is made by --kind walk"),
        (["--thresholds", "1"], "--thresholds (=1) has no meaning for --kind samples; it is for truncation"),
        (["--kind", "truncation", "--truncation", "1"], "--truncation (=1.0) has no meaning for --kind truncation"),
        (["--kind", "truncation", "--thresholds", "1,x"], "--thresholds (=1,x) must be numbers of at least 0.02"),
        (["--kind", "truncation", "--thresholds", "0.01"], "--thresholds (=0.01) must be numbers of at least 0.02"),
        (["--kind", "history", "--out", "a.zip"], "must end in .gif or .webp or .mp4 or .png for --kind history"),
        (["--kind", "history"], "is one snapshot; give a run"),
        (["--kind", "history", "--fps", "3"], "--fps (=3) has no meaning for a .png"),
        (["--kind", "history", "--out", "a.gif", "--fps", "51"], "fps (=51) must be from 1 to 50"),
        (["--devices", "0"], "--devices (=0) must be at least 1"),
        (
            ["--kind", "classes", "--devices", "2"],
            "--devices (=2) has no meaning for --kind classes; it is for",
        ),
        (["--as", "shards"], "--out (=a.png) must be a folder for --as shards, and ends in .png"),
        (["--as", "zip"], "--out (=a.png) must end in .zip for --as zip"),
        (["--as", "folder", "--out", "a.npz"], "--out (=a.npz) must be a folder for --as folder"),
        (["--kind", "classes", "--as", "grid"], "--as (=grid) has no meaning for --kind classes; it is for"),
        (["--indices", "3,1,3", "--out", "a.zip"], "--indices name sample 3 twice"),
        (["--standing-stats", "5"], "standing_stats (=5): ProgressiveGenerator has no batch norm"),
        (["--num", "3", "--indices", "3"], "exclude each other"),
        (["--indices", "3,-1"], "--indices (=3,-1) must be sample numbers from 0"),
        (["--kind", "interpolation", "--steps", "1"], "steps (=1) must be at least 2"),
        (["--kind", "interpolation", "--num", "1"], "must be two at least"),
        (["--kind", "interpolation", "--between", "classes"], "must be two, to go from one to the other"),
        (["--kind", "arithmetic"], "--formula is needed"),
        (["--kind", "arithmetic", "--formula", "3 * 5"], "formula (='3 * 5') must be sample indices"),
        (["--kind", "arithmetic", "--formula", "1 + 2", "--num", "3"], "--num (=3) has no meaning for"),
        (["--kind", "neighbours", "--nearest", "0"], "nearest (=0) must be at least 1"),
        (["--kind", "neighbours", "--reference", "/none"], "holds no shards"),
        (["--kind", "walk", "--out", "a.gif", "--fps", "0"], "fps (=0) must be from 1 to 50"),
        (["--kind", "walk", "--out", "a.gif", "--steps", "0"], "at least 1 for steps (=0)"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_one_line(snapshot, tmp_path, capsys, monkeypatch, options, said):
    monkeypatch.chdir(tmp_path)
    assert main(["sample", snapshot, "--out", "a.png", *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert not list(tmp_path.iterdir())


def test_every_kind_has_a_maker():
    assert sample_kinds.MAKERS.keys() == KINDS.keys()
    assert all(kinds <= KINDS.keys() for kinds, _ in OPTIONS.values())
