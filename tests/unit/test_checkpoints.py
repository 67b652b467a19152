"""Checkpoints count whole or not at all, whoever wrote them."""

import errno
import json
import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bigtrain.checkpoints import FACTS, FORMAT, MARKER, Checkpoints, pieces_file, tensors_file
from bigtrain.checkpoints.share import share_of
from bigtrain.runtime.parallel import Piece
from bigtrain.storage import Storage


class Killed(BaseException):
    """Nothing is done any more: no handler of errors catches it."""


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "checkpoints"


@pytest.fixture
def checkpoints(folder):
    return Checkpoints(Storage(folder), keep=2)


def whole(tensors):
    """All of these tensors as the pieces of the only rank."""
    return {name: Piece(tensor, 0, tuple(tensor.shape), (0,)) for name, tensor in tensors.items()}


def tensors(value):
    return {"a/b": torch.full((2, 3), value), "count": torch.tensor(7), "half": torch.ones(4, dtype=torch.bfloat16)}


def save(checkpoints, images_seen, value=None, **options):
    value = float(images_seen) if value is None else value
    checkpoints.save(images_seen, whole(tensors(value)), {}, **{"wait": True, **options})


def equal(loaded, expected):
    assert loaded.keys() == expected.keys()
    for name, tensor in expected.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor), name


def test_what_is_loaded_is_what_was_saved(checkpoints):
    assert checkpoints.load() is None
    checkpoints.save(1500, whole(tensors(1.0)), {"manifest": "x"}, wait=True)
    loaded = checkpoints.load()
    assert loaded.images_seen == 1500
    assert loaded.facts == {"manifest": "x"}
    equal(loaded.tensors, tensors(1.0))


def test_views_and_shared_tensors_are_saved_as_values(checkpoints):
    base = torch.arange(12.0).reshape(3, 4)
    checkpoints.save(1, whole({"a": base.T, "b": base, "c": base}), {}, wait=True)
    equal(checkpoints.load().tensors, {"a": base.T, "b": base, "c": base})


def test_what_changes_after_the_call_does_not_reach_the_file(checkpoints, monkeypatch):
    changed, now = threading.Event(), tensors(1.0)
    monkeypatch.setattr(Storage, "write", lambda *args, write=Storage.write: changed.wait(10) and write(*args))
    checkpoints.save(1000, whole(now), {})
    assert checkpoints.names() == []
    for tensor in now.values():
        tensor.zero_()
    changed.set()
    equal(checkpoints.load().tensors, tensors(1.0))  # of the one that was under way


def test_a_save_waits_for_the_one_under_way(checkpoints, monkeypatch):
    free = threading.Event()
    monkeypatch.setattr(Storage, "write", lambda *args, write=Storage.write: free.wait(10) and write(*args))
    save(checkpoints, 1000, wait=False)
    second = threading.Thread(target=save, args=(checkpoints, 2000))
    second.start()
    second.join(0.2)
    assert second.is_alive()
    free.set()
    second.join(10)
    assert checkpoints.names() == ["000001.000", "000002.000"]
    equal(checkpoints.load("000001.000").tensors, tensors(1000.0))


def test_the_newest_are_kept_and_what_is_not_ours(checkpoints, folder):
    (folder / "notes").mkdir(parents=True)
    (folder / "notes" / "a.txt").touch()
    for images in (1000, 2000, 30_000, 4000):
        save(checkpoints, images)
    assert checkpoints.names() == ["000004.000", "000030.000"]
    assert {path.name for path in folder.iterdir()} == {"000004.000", "000030.000", "notes"}
    assert checkpoints.load().images_seen == 30_000


@given(scores=st.lists(st.none() | st.floats(allow_nan=True), min_size=1, max_size=7))
@settings(max_examples=40, deadline=None)
def test_the_best_is_kept_beside_the_newest(scores, tmp_path_factory):
    checkpoints = Checkpoints(Storage(tmp_path_factory.mktemp("run") / "checkpoints"), keep=2)
    best, lowest = set(), float("inf")
    for number, score in enumerate(scores):
        save(checkpoints, 1000 * number, score=score)
        if score is not None and abs(score) < float("inf") and score < lowest:
            best, lowest = {f"{number:06d}.000"}, score
        newest = {f"{n:06d}.000" for n in range(max(0, number - 1), number + 1)}
        assert set(checkpoints.names()) == newest | best


def test_scores_that_were_measured_otherwise_do_not_take_the_place_of_the_best(checkpoints):
    """Of fewer samples, FID is higher, or lower by chance: neither says anything about the other."""
    for number, (score, measured) in enumerate([(5.0, "fid10k"), (9.0, "fid10k"), (3.0, "fid2k"), (4.0, "fid2k")]):
        save(checkpoints, 1000 * number, score=score, measured=measured)
    for number in (4, 5):
        save(checkpoints, 1000 * number)
    assert checkpoints.names() == ["000000.000", "000002.000", "000004.000", "000005.000"]


def test_one_of_the_same_moment_is_replaced(checkpoints):
    save(checkpoints, 1000, 1.0)
    save(checkpoints, 1000, 2.0)
    equal(Checkpoints(checkpoints.storage).load().tensors, tensors(2.0))


@pytest.mark.parametrize("again", [2000, 3000])
@pytest.mark.parametrize("writes", range(4))
def test_one_that_was_not_finished_does_not_count_and_is_removed_by_the_next(
    folder, checkpoints, writes, again, monkeypatch
):
    save(checkpoints, 1000)
    left = iter(range(writes))

    def write(self, key, content, write=Storage.write):
        if next(left, None) is None:
            (folder / key).parent.mkdir(exist_ok=True)
            (folder / f"{key}#1").touch()  # as a kill leaves it
            raise Killed
        write(self, key, content)

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "write", write)
        with pytest.raises(Killed):
            save(checkpoints, 2000)
    resumed = Checkpoints(Storage(folder), keep=2)
    assert resumed.load().images_seen == 1000
    save(resumed, again, 5.0)
    assert sorted(path.name for path in folder.iterdir()) == ["000001.000", f"{again // 1000:06d}.000"]
    files = {path.name for path in max(folder.iterdir()).iterdir()}
    assert files == {tensors_file(0), pieces_file(0), FACTS, MARKER}
    equal(resumed.load().tensors, tensors(5.0))


@pytest.mark.parametrize("file", [tensors_file(0), pieces_file(0), FACTS, MARKER])
@settings(max_examples=15, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), damage=st.sampled_from(["flip", "cut"]))
def test_a_damaged_one_is_named_with_the_file_and_the_one_before_it(tmp_path_factory, file, place, bit, damage):
    folder = tmp_path_factory.mktemp("run") / "checkpoints"
    for images in (1000, 2000):
        save(Checkpoints(Storage(folder)), images)
    path = folder / "000002.000" / file
    content = bytearray(path.read_bytes())
    at = int(place * len(content))
    content[at] ^= 1 << bit
    path.write_bytes(content[:at] if damage == "cut" else content)
    named = "" if file == MARKER else file  # it may seem to be another file, of which the marker has the checksum
    with pytest.raises(ValueError, match=rf"000002\.000 is damaged \(.*{named}.*remove it to go on from 000001\.000"):
        Checkpoints(Storage(folder)).load()
    assert Checkpoints(Storage(folder)).load("000001.000").images_seen == 1000


@pytest.mark.parametrize("file", [tensors_file(0), pieces_file(0), FACTS, MARKER])
def test_a_full_disk_leaves_the_former_in_use(checkpoints, folder, file, monkeypatch, caplog):
    save(checkpoints, 1000)

    def write(self, key, content, write=Storage.write):
        if key.endswith(file):
            raise FULL
        write(self, key, content)

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "write", write)
        save(checkpoints, 2000, wait=False)
        with pytest.raises(OSError, match=r"000002\.000 could not be written: .*No space left"):
            checkpoints.finish()
        (record,) = caplog.records
        assert "000002.000 could not be written" in record.getMessage()
        with pytest.raises(OSError, match=r"000003\.000 could not be written"):
            save(checkpoints, 3000)
        save(checkpoints, 4000, wait=False)
        save(checkpoints, 5000, wait=False)  # the failure of the one before has been told
        with pytest.raises(OSError, match=r"000005\.000"):
            checkpoints.finish()
        checkpoints.finish()
    assert [path.name for path in folder.iterdir()] == ["000001.000"]
    assert checkpoints.load().images_seen == 1000
    save(checkpoints, 6000)
    assert checkpoints.load().images_seen == 6000


def test_other_formats_are_refused(folder, checkpoints, monkeypatch):
    monkeypatch.setattr("bigtrain.checkpoints.checkpoints.FORMAT", 99)
    save(checkpoints, 1000)
    monkeypatch.undo()
    with pytest.raises(ValueError, match=f"000001.000 has format 99, this bigtrain reads {FORMAT}"):
        checkpoints.load()


def test_what_was_left_unfinished_is_removed_while_its_room_is_needed(checkpoints, folder, monkeypatch):
    left = folder / "000001.000" / "rank-00000.safetensors#1"
    left.parent.mkdir(parents=True)
    left.touch()

    def write(self, key, content, write=Storage.write):
        if left.exists():
            raise FULL
        write(self, key, content)

    monkeypatch.setattr(Storage, "write", write)
    save(checkpoints, 2000)
    assert checkpoints.names() == ["000002.000"]


def test_a_name_that_is_not_there_is_refused_with_those_that_are(checkpoints):
    save(checkpoints, 1000)
    with pytest.raises(ValueError, match=r"no complete checkpoint .*000002\.000; there are: \['000001\.000'\]"):
        checkpoints.load("000002.000")


def test_nothing_in_it_is_pickled(checkpoints, folder):
    checkpoints.save(1000, whole(tensors(1.0)), {"x": 1}, wait=True)
    files = {path.name: path.read_bytes() for path in (folder / "000001.000").iterdir()}
    assert json.loads(files[FACTS])["facts"]["x"] == 1
    header = int.from_bytes(files[tensors_file(0)][:8], "little")
    assert json.loads(files.pop(tensors_file(0))[8 : 8 + header]).keys() == tensors(1.0).keys()
    assert all(json.loads(content) for content in files.values())


@given(st.lists(st.integers(0, 300), max_size=30), st.integers(1, 4))
def test_what_all_ranks_hold_is_spread_evenly_over_them(sizes, ranks):
    pieces = {f"t{n}": Piece(torch.empty(size), 0, (size,), tuple(range(ranks))) for n, size in enumerate(sizes)}
    loads = [sum(p.tensor.nbytes for p in share_of(rank, pieces).values()) for rank in range(ranks)]
    assert sum(loads) == 4 * sum(sizes)
    assert max(loads) - min(loads) <= 4 * max(sizes, default=0)


def test_a_type_that_cannot_be_kept_is_refused(checkpoints):
    with pytest.raises(ValueError, match=r"t is of type torch\.complex128, but a checkpoint can hold torch\.float64"):
        checkpoints.save(1000, whole({"t": torch.ones(1, dtype=torch.complex128)}), {})


def test_keep_must_be_positive(tmp_path):
    with pytest.raises(ValueError, match="keep"):
        Checkpoints(Storage(tmp_path), keep=0)
