"""What ranks tell each other, and who notices when one of them stands still or fails."""

import contextlib
import io
import time

import pytest
import torch
import torch.distributed as dist

from bigtrain.runtime.parallel import Parallel, check_strategy
from bigtrain.runtime.reductions import gather_across, sum_across
from bigtrain.runtime.watch import Watch
from bigtrain.runtime.world import World


def talk() -> dict:
    world = World()
    first = []
    world.first_does(lambda: first.append(world.rank))
    texts = [text if world.is_first else None for text in ("000001.024", "", "é" * 300, None)]
    return {
        "gather": world.gather([world.rank, 0.5]),
        "lists": world.gather_lists([float(world.rank)] * world.rank),
        "none": world.gather_lists([]),
        "collect": world.collect(torch.full((2, 3), 7 + world.rank, dtype=torch.uint8)[:, ::2]),
        "means": world.means([torch.tensor(float(world.rank)), torch.tensor(2.0)]),
        "texts": [world.tell(text) for text in texts],
        "first": first,
    }


def test_ranks_hear_each_other(two_ranks):
    answers = two_ranks.run(talk)
    for answer in answers:
        assert answer["gather"] == [[0.0, 0.5], [1.0, 0.5]]
        assert answer["lists"] == [[], [1.0]]
        assert answer["none"] == [[], []]
        assert answer["means"] == [0.5, 2.0]
        assert answer["texts"] == ["000001.024", "", "é" * 300, None]
    assert [answer["first"] for answer in answers] == [[0], []]
    assert [[part.tolist() for part in answer["collect"]] for answer in answers] == [
        [[[7, 7], [7, 7]], [[8, 8], [8, 8]]],
        [],
    ]


def test_alone_everything_is_answered_at_once():
    world = World()
    assert (world.rank, world.size, world.is_first) == (0, 1, True)
    assert world.gather([1.0]) == [[1.0]]
    assert world.gather_lists([]) == [[]]
    assert world.means([torch.tensor(3.0)]) == [3.0]
    assert world.tell("x") == "x"
    assert world.collect(torch.ones(1)) == [torch.ones(1)]
    assert world.first_does(lambda: 4) == 4


def differentiate() -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients, and gradients of gradients, of a loss in which every rank has a part."""
    world = World()
    x = torch.tensor([1.0 + world.rank, 2.0], dtype=torch.float64, requires_grad=True)
    rows = gather_across(x)
    loss = (rows.square().sum() ** 2) + sum_across(x).prod() * (world.rank + 1)
    (first,) = torch.autograd.grad(loss, x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x)
    return first.detach(), second


def test_reductions_can_be_differentiated_twice(two_ranks):
    """As in one process, for the sum of both ranks' losses."""
    x = torch.tensor([[1.0, 2.0], [2.0, 2.0]], dtype=torch.float64, requires_grad=True)
    loss = 2 * (x.square().sum() ** 2) + x.sum(dim=0).prod() * 3
    (first,) = torch.autograd.grad(loss, x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x)
    for rank, (ours, twice) in enumerate(two_ranks.run(differentiate)):
        assert torch.allclose(ours, first[rank].detach(), rtol=1e-12)
        assert torch.allclose(twice, second[rank], rtol=1e-12)


def stand_still() -> tuple[str, list[int]]:
    ends: list[int] = []
    said = io.StringIO()
    with contextlib.redirect_stderr(said), Watch(World(), stalled_seconds=2, end=ends.append) as watch:
        watch.step(1)
        deadline = time.monotonic() + 20
        while not ends and time.monotonic() < deadline:
            time.sleep(0.1)
    return said.getvalue(), ends


def test_ranks_that_stand_still_are_ended_and_say_where(two_ranks):
    answers = two_ranks.run(stand_still)
    assert all(ends for _, ends in answers)
    said = "".join(text for text, _ in answers)
    assert "no step for" in said
    assert "rank 0 stands in" in said
    assert "rank 1 stands in" in said


def start_slowly() -> list[int]:
    """Before its first step a rank may take longer."""
    ends: list[int] = []
    with Watch(World(), stalled_seconds=1, start_seconds=30, end=ends.append) as watch:
        time.sleep(3)
        assert not ends
        watch.step(1)
        time.sleep(4)
    return ends


def test_the_first_step_may_take_longer(two_ranks):
    assert all(two_ranks.run(start_slowly))


def wait_shorter() -> list[float]:
    backend = dist.group.WORLD._get_backend(torch.device("cpu"))
    before = backend.options._timeout
    parallel, told = Parallel("fsdp"), []
    for seconds in (100, before.total_seconds()):
        parallel.set_timeout(seconds)
        told.append(backend.options._timeout.total_seconds())
    return [*told, before.total_seconds()]


@pytest.mark.skipif(not hasattr(dist, "set_timeout"), reason="torch 2.15 can do this")
def test_ranks_wait_no_longer_than_they_are_told(two_ranks):
    for told, restored, before in two_ranks.run(wait_shorter):
        assert (told, restored) == (100, before)


def keep_going() -> list[int]:
    """One rank works for long between two steps, and says so; the others wait."""
    ends: list[int] = []
    world = World()
    with Watch(world, stalled_seconds=2, end=ends.append) as watch:
        for _ in range(8):
            time.sleep(0.5)
            if world.is_first:
                watch.alive()
        world.wait()
    return ends


def test_waiting_for_a_rank_that_works_is_no_standstill(two_ranks):
    assert two_ranks.run(keep_going) == [[], []]


def fail_on_one(error: BaseException) -> tuple[str, list[int]]:
    ends: list[int] = []
    said, world = io.StringIO(), World()
    watch = Watch(world, end=ends.append)
    with contextlib.redirect_stderr(said), contextlib.suppress(type(error)), watch:
        if world.rank == 1:
            raise error
        deadline = time.monotonic() + 20
        while not ends and time.monotonic() < deadline:
            time.sleep(0.1)
    return said.getvalue(), ends


@pytest.mark.parametrize("error", [ValueError("its data is damaged"), KeyboardInterrupt()])
def test_a_rank_that_fails_ends_the_others_with_its_message(error, two_ranks):
    """The first one tells it, and ends with its exit code."""
    (said, ends), (unsaid, own_ends) = two_ranks.run(fail_on_one, error)
    mistake = isinstance(error, ValueError)
    assert set(ends) == {2 if mistake else 130}
    assert not own_ends
    assert not unsaid
    line = "error: rank 1 failed: its data is damaged; all ranks end, the same command resumes"
    assert said.splitlines()[0] == f"bigtrain: {line if mistake else 'interrupted'}"


@pytest.mark.parametrize(
    ("strategy", "world", "shard", "says"),
    [
        ("single", 2, 0, "one process"),
        ("ddp", 1, 0, "more than one process"),
        ("fsdp", 1, 0, "more than one process"),
        ("hsdp", 4, 3, "valid: \\[2\\]"),
        ("hsdp", 4, 4, "valid: \\[2\\]"),
        ("hsdp", 2, 2, "use fsdp"),
    ],
)
def test_strategies_that_do_not_fit_are_refused(strategy, world, shard, says):
    with pytest.raises(ValueError, match=says):
        check_strategy(strategy, world, shard)


def test_a_game_alone_needs_no_process_group():
    assert Parallel().world == 1
