"""Checkpoints of several ranks: threads that pretend to be ranks, and real ones."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from bigtrain.checkpoints import FACTS, MARKER, Checkpoints, pieces_file, tensors_file
from bigtrain.checkpoints.share import share_of
from bigtrain.runtime.parallel import Parallel, Piece
from bigtrain.runtime.world import World
from bigtrain.storage import Storage

T = TypeVar("T")


class PretendedRank(World):
    """One of several threads that tell each other what ranks do."""

    def __init__(self, rank: int, size: int, barrier: threading.Barrier, said: list[str | None]) -> None:
        super().__init__()
        self.rank, self.size, self._barrier, self._said = rank, size, barrier, said

    def tell(self, text: str | None) -> str | None:
        self._barrier.wait(20)
        if self.is_first:
            self._said[0] = text
        self._barrier.wait(20)
        return self._said[0]


class LoneRank(World):
    """Rank 0 of `size`, of which the others do nothing; `told` is called when it has told something."""

    def __init__(self, size: int, told: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self.size, self._told = size, told

    def tell(self, text: str | None) -> str | None:
        self._told()
        return text


def on_ranks(size: int, act: Callable[[World], T]) -> list[T]:
    """What each of so many pretended ranks returns; raises what one raises."""
    barrier, said = threading.Barrier(size), [None]
    ranks = [PretendedRank(rank, size, barrier, said) for rank in range(size)]
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(act, ranks))


class Far:
    """A folder that is spoken to as a bucket is: there are no paths."""

    is_local = False

    def __init__(self, folder: Path) -> None:
        self._near, self.url = Storage(folder), "far://away"

    def __getattr__(self, name: str) -> Any:
        return getattr(self._near, name)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "checkpoints"


def save_split(storage, images_seen, ranks=2, **options):
    """A tensor of ten rows of which each rank holds as many, and one that all hold."""

    def act(world):
        rows = torch.arange(10.0).chunk(ranks)[world.rank]
        pieces = {"rows": Piece(rows, int(rows[0]), (10,), (world.rank,))}
        pieces["copied"] = Piece(torch.ones(3), 0, (3,), tuple(range(ranks)))
        Checkpoints(storage, 2, world, **options).save(images_seen, pieces, {}, wait=True)

    return on_ranks(ranks, act)


def equal(loaded, expected):
    assert loaded.keys() == expected.keys()
    for name, tensor in expected.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor), name


TYPES = (torch.float64, torch.float32, torch.bfloat16, torch.int64, torch.uint8, torch.bool)


@st.composite
def splits(draw):
    """Tensors, and for each rank the pieces that it holds: copied, sharded, sharded in copies, with empty pieces."""
    ranks = draw(st.integers(1, 4))
    originals, held = {}, [{} for _ in range(ranks)]
    for number in range(draw(st.integers(0, 5))):
        shape = draw(st.sampled_from([(), (1,), (0, 3), (5, 0), (5,), (7, 2), (3, 2, 2)]))
        values = draw(st.integers(0, 200)) + torch.arange(torch.Size(shape).numel())
        tensor = values.to(draw(st.sampled_from(TYPES))).reshape(shape)
        rows = shape[0] if shape else 1
        parts = draw(st.integers(1, ranks)) if shape else 1
        part_of = draw(
            st.permutations([*range(parts), *(draw(st.integers(0, parts - 1)) for _ in range(ranks - parts))])
        )
        cuts = [0, *sorted(draw(st.integers(0, rows)) for _ in range(parts - 1)), rows]
        name = originals[f"t{number}"] = tensor
        for rank, part in enumerate(part_of):
            name = tensor[cuts[part] : cuts[part + 1]] if shape else tensor
            holders = tuple(other for other in range(ranks) if part_of[other] == part)
            held[rank][f"t{number}"] = Piece(name, cuts[part], shape, holders)
    return originals, held


@pytest.mark.parametrize("kind", [Storage, Far])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(split=splits())
def test_however_tensors_are_split_they_come_back_whole(kind, split, tmp_path_factory):
    originals, held = split
    storage = kind(tmp_path_factory.mktemp("run") / "checkpoints")

    def act(world):
        checkpoints = Checkpoints(storage, 1, world)
        checkpoints.save(64, held[world.rank], {"told by": world.rank}, wait=True)
        return checkpoints.load()

    for loaded in [*on_ranks(len(held), act), Checkpoints(storage).load()]:
        assert loaded.facts == {"told by": 0}
        assert loaded.tensors.shapes == {name: tuple(tensor.shape) for name, tensor in originals.items()}
        equal(loaded.tensors, originals)


@given(split=splits())
def test_each_piece_is_written_once_by_one_of_its_holders(split):
    originals, held = split
    shares = [share_of(rank, pieces) for rank, pieces in enumerate(held)]
    for name in originals:
        writers = [rank for rank, share in enumerate(shares) if name in share]
        for holders in {pieces[name].holders for pieces in held}:
            assert len([rank for rank in writers if rank in holders]) == 1


def test_what_a_larger_world_left_of_the_same_moment_is_removed(folder):
    save_split(Storage(folder), 2000, ranks=3)
    (folder / "000002.000" / MARKER).unlink()
    save_split(Storage(folder), 2000, ranks=2)
    files = {path.name for path in (folder / "000002.000").iterdir()}
    assert files == {tensors_file(0), tensors_file(1), pieces_file(0), pieces_file(1), FACTS, MARKER}
    equal(Checkpoints(Storage(folder)).load().tensors, {"rows": torch.arange(10.0), "copied": torch.ones(3)})


@pytest.mark.parametrize("file", [tensors_file(1), pieces_file(0), FACTS])
@pytest.mark.parametrize("kind", [Storage, Far])
def test_a_missing_file_is_named(folder, file, kind):
    save_split(Storage(folder), 2000)
    (folder / "000002.000" / file).unlink()
    with pytest.raises(ValueError, match=rf"000002\.000 is damaged \({file} is missing\); there is no earlier one"):
        Checkpoints(kind(folder)).load()


@pytest.mark.parametrize(
    ("starts", "said"),
    [((0, 3), "lacks rows 2 to 3"), ((0, 1), "row 1 more than once"), ((1, 3), "rows 0 to 1"), ((2, 0), "4 of the 5")],
)
def test_pieces_that_are_not_the_whole_are_refused(folder, starts, said):
    def act(world):
        pieces = {"t": Piece(torch.ones(2), starts[world.rank], (5,), (world.rank,))}
        Checkpoints(Storage(folder), 2, world).save(1000, pieces, {}, wait=True)

    on_ranks(2, act)
    with pytest.raises(ValueError, match=f"000001.000 is damaged .*{said}"):
        Checkpoints(Storage(folder)).load()


@pytest.mark.parametrize("file", [tensors_file(1), pieces_file(1)])
def test_a_rank_that_cannot_write_tells_the_first_which_tells_the_user(folder, file, monkeypatch, caplog):
    def act(world):
        with pytest.raises(OSError, match=r"000001\.000 could not be written: rank 1: .*No space left"):
            save_on(world, folder)
        assert not caplog.records
        save_on(world, folder, wait=False)

    monkeypatch.setattr(Storage, "write", full_for(file))
    on_ranks(2, act)
    (record,) = caplog.records
    assert "rank 1: [Errno 28] No space left" in record.getMessage()
    assert Checkpoints(Storage(folder)).names() == []


def test_a_rank_that_cannot_even_tell_says_so_itself(folder, monkeypatch, caplog):
    monkeypatch.setattr(Storage, "write", full_for("rank-00001"))
    with pytest.raises(OSError, match="from rank 1 of 2"):
        on_ranks(2, lambda world: save_on(world, folder, timeout_seconds=0.1))
    (record,) = caplog.records
    assert "rank 1 can neither write" in record.getMessage()


def full_for(part):
    def write(self, key, content, write=Storage.write):
        if part in key:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, key, content)

    return write


def save_on(world, folder, wait=True, **options):
    pieces = {"t": Piece(torch.ones(2), 2 * world.rank, (2 * world.size,), (world.rank,))}
    checkpoints = Checkpoints(Storage(folder), 2, world, **options)
    checkpoints.save(1000, pieces, {}, wait=wait)
    if not wait:
        with pytest.raises(OSError, match=r"000001\.000 could not be written"):
            checkpoints.finish()


def test_a_store_that_cannot_even_be_listed_is_a_failure_on_all_ranks(folder, monkeypatch, caplog):
    def act(world):
        with pytest.raises(OSError, match=r"000001\.000 could not be written: no answer"):
            save_on(world, folder)
        save_on(world, folder, wait=False)

    def refuse(self):
        raise OSError("no answer")

    monkeypatch.setattr("bigtrain.checkpoints.layout.Folders.all", refuse)
    on_ranks(2, act)
    assert len(caplog.records) == 1


def test_a_missing_rank_is_named_after_the_timeout(folder):
    with pytest.raises(OSError, match=r"000001\.000 could not be written: nothing came within 0\.1 s from rank 1 of 2"):
        save_on(LoneRank(2), folder, timeout_seconds=0.1)
    assert not (folder / "000001.000").exists()


def test_what_an_older_attempt_wrote_is_not_taken_for_this_one(folder):
    def late():  # a rank of the attempt before it writes only now
        save_split(Storage(folder), 1000)
        (folder / "000001.000" / MARKER).unlink()

    with pytest.raises(OSError, match="from rank 1 of 2"):
        save_on(LoneRank(2, late), folder, timeout_seconds=0.1)
    assert Checkpoints(Storage(folder)).load() is None


def network() -> nn.Module:
    """One with fewer rows than four ranks, a number, and rows that two ranks cannot share evenly."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 5))


def save_spread(folder: Path, strategy: str, shard: int) -> list[str]:
    """On a real rank; returns the files that are there as soon as it is saved."""
    parallel, spread = Parallel(strategy, shard=shard), network()
    parallel.spread(spread)
    pieces = {name: parallel.piece(tensor.detach()) for name, tensor in spread.state_dict().items()}
    checkpoints = Checkpoints(Storage(folder), 2, World())
    checkpoints.save(1000, pieces, {}, wait=True)
    equal(checkpoints.load().tensors, network().state_dict())
    return sorted(path.name for path in (folder / "000001.000").iterdir())


@pytest.mark.parametrize(
    ("size", "strategy", "shard"), [("two", "ddp", 0), ("two", "fsdp", 0), ("four", "fsdp", 0), ("four", "hsdp", 2)]
)
def test_real_ranks_of_every_strategy_write_what_one_process_reads(request, folder, size, strategy, shard):
    found = request.getfixturevalue(f"{size}_ranks").run(save_spread, folder, strategy, shard)
    files = [name for rank in range(len(found)) for name in (tensors_file(rank), pieces_file(rank))]
    assert found == [sorted([*files, FACTS, MARKER])] * len(found)
    equal(Checkpoints(Storage(folder)).load().tensors, network().state_dict())


def fail_on_a_rank(folder: Path) -> str:
    world = World()
    storage = Storage(folder / "in the way") if world.rank else Storage(folder)
    try:
        Checkpoints(storage, 2, world, timeout_seconds=0.2).save(
            1000, {"t": Piece(torch.ones(1), world.rank, (2,), (world.rank,))}, {}, wait=True
        )
    except OSError as error:
        return str(error)
    return ""


def test_a_real_rank_that_writes_elsewhere_is_named_on_all(two_ranks, folder):
    folder.mkdir()
    first, second = two_ranks.run(fail_on_a_rank, folder)
    assert "from rank 1 of 2" in first
    assert second == first
    assert Checkpoints(Storage(folder)).names() == []
