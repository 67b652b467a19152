"""`bigtrain sample --as …`: what it is, and that shards of samples are shards like others."""

from __future__ import annotations

import io
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bigtrain.cli import processes
from bigtrain.cli.main import main
from bigtrain.cli.sample_outputs import ShardOutput
from bigtrain.data.faults import Faults
from bigtrain.data.manifest import Manifest
from bigtrain.data.reader import Reader
from bigtrain.data.shard_set import ShardSet
from bigtrain.data.sources import open_source
from bigtrain.data.verify import verify
from bigtrain.runtime.world import World
from bigtrain.snapshots import load_snapshot
from bigtrain.storage import Storage
from tests.unit.made_snapshot import PROGRESSIVE, made_snapshot


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory) -> str:
    return made_snapshot(tmp_path_factory.mktemp("snapshots"))


def sample(snapshot: str, out: Path, *options: str) -> Path:
    assert main(["sample", snapshot, "--out", str(out), *options]) == 0
    return out


def stored(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


def test_every_form_holds_the_same_samples(snapshot, tmp_path):
    """Also when given by name."""
    options = ["--num", "70", "--batch", "16", "--seed", "3", "--labels", "4,9"]
    folder = stored(sample(snapshot, tmp_path / "samples", *options))
    with zipfile.ZipFile(sample(snapshot, tmp_path / "a.zip", *options, "--as", "zip")) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == folder
        assert archive.namelist() == sorted(folder)
    with np.load(sample(snapshot, tmp_path / "a.npz", *options)) as arrays:
        images = np.stack([pixels(folder[name]) for name in sorted(folder)])
        assert np.array_equal(arrays["images"][..., 0], images)
        assert arrays["labels"].tolist() == [4, 9] * 35
    shards = sample(snapshot, tmp_path / "shards", *options, "--as", "shards")
    assert verify(str(shards)) == []
    source = open_source(str(shards))
    assert len(source) == 70
    assert all(np.array_equal(np.asarray(source.load(i)), images[i]) for i in range(70))
    assert [source.label(i) for i in range(70)] == [4, 9] * 35


def test_shards_of_samples_are_read_as_training_reads_them(snapshot, tmp_path):
    found = load_snapshot(snapshot)
    images = torch.arange(10 * 64, dtype=torch.int64).reshape(10, 1, 8, 8).to(torch.uint8)
    labels = torch.tensor([3, 0, 9, 9, 1, 1, 1, 2, 4, 5])
    with ShardOutput(str(tmp_path / "shards"), 8, found, {"seed": 0}, samples_per_shard=4) as output:
        output.add(range(6), images[:6], labels[:6])
        output.add(range(6, 10), images[6:], labels[6:])
    manifest = Manifest.load(str(tmp_path / "shards"))
    assert manifest.shard_samples == [4, 4, 2]
    assert manifest.classes == [str(i) for i in range(10)]
    assert manifest.class_counts == [1, 3, 1, 1, 1, 1, 0, 0, 0, 2]
    assert (manifest.source["kind"], manifest.source["kimg"], manifest.source["seed"]) == ("samples", 1.0, 0)
    assert verify(str(tmp_path / "shards")) == []
    shards = ShardSet.of(Storage(tmp_path / "shards"), manifest)
    (read, their_labels), *_ = Reader(shards, Faults(shards.shard_samples, 0, *shards.budget)).all(8, 10)
    assert np.array_equal(read[..., 0], images[:, 0].numpy())
    assert their_labels.tolist() == labels.tolist()


def test_without_classes_shards_have_none(tmp_path):
    snapshot = made_snapshot(tmp_path / "snapshots", arguments={**PROGRESSIVE, "num_classes": 0}, resolution=16)
    manifest = Manifest.load(str(sample(snapshot, tmp_path / "shards", "--as", "shards", "--num", "5")))
    assert (manifest.resolutions, manifest.classes, manifest.samples) == ([16], [], 5)
    assert verify(str(tmp_path / "shards")) == []


def test_equal_commands_make_equal_bytes(snapshot, tmp_path):
    for form, ending in (("shards", ""), ("zip", ".zip"), ("npz", ".npz"), ("folder", "-folder")):
        for name in "ab":
            sample(snapshot, tmp_path / f"{name}{ending}", "--as", form, "--num", "20", "--truncation", "0.5")
    made = stored(tmp_path)
    assert len(made) == 2 * (3 + 1 + 1 + 20)
    assert all(content == made["b" + name[1:]] for name, content in made.items() if name.startswith("a"))


def test_shards_are_not_mixed_with_what_is_there(snapshot, tmp_path, capsys):
    shards = sample(snapshot, tmp_path / "shards", "--as", "shards", "--num", "5")
    before = stored(shards)
    assert main(["sample", snapshot, "--out", str(shards), "--as", "shards", "--num", "3"]) == 2
    assert "holds manifest.json already" in capsys.readouterr().err
    assert stored(shards) == before
    shutil.rmtree(shards)
    sample(snapshot, shards, "--as", "shards", "--num", "3")


@pytest.mark.parametrize("wrong", [KeyboardInterrupt, OSError])
def test_shards_that_are_interrupted_are_removed(snapshot, tmp_path, monkeypatch, wrong):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))

    def interrupted() -> None:
        with ShardOutput(str(tmp_path / "shards"), 8, load_snapshot(snapshot), {}, samples_per_shard=4) as output:
            output.add(range(300), torch.zeros(300, 1, 8, 8, dtype=torch.uint8), torch.zeros(300, dtype=torch.int64))
            assert any((tmp_path / "shards").rglob("*.tar"))
            raise wrong

    with pytest.raises(wrong):
        interrupted()
    assert stored(tmp_path) == {name: content for name, content in stored(tmp_path).items() if "snapshots" in name}


def test_all_ranks_sample_the_snapshot_that_the_first_one_has_found(tmp_path, monkeypatch):
    """Also when the training that goes on has written a newer one since."""
    older, _ = (made_snapshot(tmp_path / "snapshots", images_seen=seen) for seen in (1000, 2000))
    sample(older, tmp_path / "a.npz", "--num", "3")

    class FirstHasOlder(World):
        def tell(self, text):
            assert text == older.removesuffix(".safetensors").replace("001.000", "002.000")
            return older.removesuffix(".safetensors")

    monkeypatch.setattr(processes, "World", FirstHasOlder)
    sample(str(tmp_path), tmp_path / "b.npz", "--num", "3")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
