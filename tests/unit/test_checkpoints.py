"""Checkpoints count whole or not at all."""

import json

import pytest
import torch

from bigtrain.checkpoints import FACTS, MARKER, TENSORS, Checkpoints
from bigtrain.storage import Storage


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(Storage(tmp_path / "checkpoints"), keep=2)


def tensors(value):
    return {"a/b": torch.full((2, 3), value), "count": torch.tensor(7), "half": torch.ones(4, dtype=torch.bfloat16)}


def test_what_is_loaded_is_what_was_saved(checkpoints):
    assert checkpoints.load() is None
    checkpoints.save(1500, tensors(1.0), {"manifest": "x"})
    loaded = checkpoints.load()
    assert loaded.images_seen == 1500
    assert loaded.facts["manifest"] == "x"
    assert loaded.tensors.keys() == tensors(1.0).keys()
    assert all(
        torch.equal(loaded.tensors[k], v) and loaded.tensors[k].dtype == v.dtype for k, v in tensors(1.0).items()
    )


def test_views_and_shared_tensors_are_saved_as_values(checkpoints):
    base = torch.arange(12.0).reshape(3, 4)
    checkpoints.save(1, {"a": base.T, "b": base, "c": base}, {})
    assert torch.equal(checkpoints.load().tensors["a"], base.T)


def test_the_newest_are_kept(checkpoints, tmp_path):
    for images in (1000, 2000, 30_000, 4000):
        checkpoints.save(images, tensors(float(images)), {})
    assert checkpoints.names() == ["000004.000", "000030.000"]
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"000004.000", "000030.000"}
    assert checkpoints.load().images_seen == 30_000


@pytest.mark.parametrize("writes", [0, 1, 2])
def test_a_checkpoint_that_was_not_finished_does_not_count_and_is_removed_by_the_next(checkpoints, writes, monkeypatch):
    checkpoints.save(1000, tensors(1.0), {})
    done = 0

    def write(key, content):
        nonlocal done
        if done == writes:
            raise KeyboardInterrupt
        done += 1
        Storage.write(checkpoints.storage, key, content)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.storage, "write", write)
        with pytest.raises(KeyboardInterrupt):
            checkpoints.save(2000, tensors(2.0), {})
    assert checkpoints.load().images_seen == 1000
    checkpoints.save(3000, tensors(3.0), {})
    assert checkpoints.names() == ["000001.000", "000003.000"]
    assert not any(key.startswith("000002") for key, _ in checkpoints.storage.list())


@pytest.mark.parametrize("file", [TENSORS, FACTS, MARKER])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_one_is_named_with_the_one_before_it(checkpoints, tmp_path, file, damage):
    checkpoints.save(1000, tensors(1.0), {})
    checkpoints.save(2000, tensors(2.0), {})
    path = tmp_path / "checkpoints" / "000002.000" / file
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
    path.unlink() if damage == "remove" else path.write_bytes(
        content[: len(content) // 2] if damage == "cut" else content
    )
    if (file, damage) == (MARKER, "remove"):
        assert checkpoints.load().images_seen == 1000
        return
    with pytest.raises(ValueError, match=r"000002\.000 is damaged .*remove it to go on from 000001\.000"):
        checkpoints.load()


def test_another_format_is_refused(checkpoints, monkeypatch):
    monkeypatch.setattr("bigtrain.checkpoints.FORMAT", 99)
    checkpoints.save(1000, tensors(1.0), {})
    monkeypatch.undo()
    with pytest.raises(ValueError, match="format 99"):
        checkpoints.load()


def test_nothing_in_it_is_pickled(checkpoints, tmp_path):
    checkpoints.save(1000, tensors(1.0), {"x": 1})
    folder = tmp_path / "checkpoints" / "000001.000"
    assert json.loads((folder / FACTS).read_text())["x"] == 1
    header = int.from_bytes((folder / TENSORS).read_bytes()[:8], "little")
    assert json.loads((folder / TENSORS).read_bytes()[8 : 8 + header])


def test_keep_must_be_positive(tmp_path):
    with pytest.raises(ValueError, match="keep"):
        Checkpoints(Storage(tmp_path), keep=0)
