"""`bigtrain fit` on several ranks: killed, stopped, resumed on other numbers of ranks, ended when a rank is lost."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from bigtrain.checkpoints import Checkpoints
from bigtrain.storage import Storage
from tests.runs import begin, bigtrain, children

TWO = ("--compute.devices", 2)


@pytest.fixture(scope="module")
def undisturbed(config, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    result = bigtrain("fit", "--config", config, "--run", folder, *TWO)
    assert result.returncode == 0, result.stderr
    return folder


def end_of(folder: Path) -> dict[str, torch.Tensor]:
    """The last checkpoint's tensors."""
    checkpoint = Checkpoints(Storage(folder / "checkpoints")).load()
    assert checkpoint is not None
    return {name: checkpoint.tensors[name] for name in checkpoint.tensors}


def check_same(folder: Path, undisturbed: Path) -> None:
    found, expected = end_of(folder), end_of(undisturbed)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert (folder / "metrics.jsonl").read_text() == (undisturbed / "metrics.jsonl").read_text()


def lines_of(folder: Path, name: str = "metrics.jsonl") -> list[dict]:
    path = folder / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def wait_for(condition, seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.02)


def other_rank(pid: int) -> int:
    """The process of rank 1, which rank 0 has started."""
    return children(pid)[0]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_ranks_end_where_one_process_does(strategy, config, undisturbed, tmp_path):
    one, ranks = tmp_path / "one", tmp_path / "ranks"
    assert bigtrain("fit", "--config", config, "--run", one).returncode == 0
    result = bigtrain("fit", "--config", config, "--run", ranks, *TWO, "--compute.strategy", strategy)
    assert result.returncode == 0, result.stderr
    found, expected = end_of(ranks), end_of(one)
    for name, value in expected.items():
        if name.startswith("networks/"):
            assert torch.allclose(found[name], value, rtol=1e-4, atol=1e-4), name
    for ours, theirs in zip(lines_of(ranks), lines_of(one), strict=True):
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            assert ours[name] == (value if isinstance(value, (int, str)) else pytest.approx(value, rel=1e-3, abs=1e-4))


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_ranks_begin_where_one_process_does(strategy, config, undisturbed, tmp_path):
    """With the weights of another run; with those of seed 9 they would be elsewhere."""
    ends = {}
    for name, options in (("one", ()), ("ranks", (*TWO, "--compute.strategy", strategy))):
        begin_there = ("--seed", 9, "--schedule.total_kimg", 0.032, "--start_from", undisturbed)
        result = bigtrain("fit", "--config", config, "--run", tmp_path / name, *begin_there, *options)
        assert result.returncode == 0, result.stderr
        assert f"beginning with {undisturbed}" in result.stderr
        ends[name] = end_of(tmp_path / name)
    for name, value in ends["one"].items():
        if name.startswith("networks/"):
            assert torch.allclose(ends["ranks"][name], value, rtol=1e-4, atol=1e-4), name
    far = end_of(undisturbed)["networks/discriminator.network.blocks.1.conv1.weight"]  # of 8², not yet trained again
    assert torch.equal(ends["ranks"]["networks/discriminator.network.blocks.1.conv1.weight"], far)


def test_elastic_resume_keeps_everything(config, undisturbed, tmp_path):
    """1 → 2 → 4 (sharded) → 1 ranks."""
    run = tmp_path / "run"
    until = "--schedule.init_args.total_kimg"
    for kimg, options in (
        (0.16, ()),
        (0.24, TWO),
        (0.32, ("--compute.devices", 4, "--compute.strategy", "hsdp", "--compute.shard", 2)),
        (0.40, (*TWO, "--compute.strategy", "fsdp")),
        (0.48, ()),
    ):
        result = bigtrain("fit", "--config", config, "--run", run, until, kimg, *options)
        assert result.returncode == 0, result.stderr
    found, expected = end_of(run), end_of(undisturbed)
    for name, value in expected.items():
        if name.startswith("networks/"):
            assert torch.allclose(found[name], value, rtol=1e-4, atol=1e-4), name
    places = {line["images_seen"]: (line["alpha"], line["resolution"]) for line in lines_of(run)}
    for line in lines_of(undisturbed):  # (the end of each part has a line of its own)
        assert places[line["images_seen"]] == (line["alpha"], line["resolution"])


def begun(config: Path, run: Path, seconds: float = 0.0) -> subprocess.Popen[str]:
    """Starts a run, and waits until some seconds after its first record."""
    process = begin("fit", "--config", config, "--run", run, *TWO)
    wait_for(lambda: process.poll() is not None or lines_of(run, "throughput.jsonl"))
    time.sleep(seconds)
    return process


def kill(process: subprocess.Popen[str]) -> str:
    """Kills what there still is of a run's ranks; returns what it said."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return process.communicate()[1]


def finish(config: Path, run: Path, undisturbed: Path) -> None:
    """Resumes a run, which must end as the other did."""
    result = bigtrain("fit", "--config", config, "--run", run, *TWO)
    assert result.returncode == 0, result.stderr
    check_same(run, undisturbed)


@pytest.mark.parametrize("seconds", [pytest.param(0.0, marks=pytest.mark.long), 0.35])
def test_all_ranks_killed_and_resumed(seconds, config, undisturbed, tmp_path):
    run = tmp_path / "run"
    kill(begun(config, run, seconds))
    finish(config, run, undisturbed)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(25))
def test_four_kills_at_random_moments(seed, config, undisturbed, tmp_path):
    """100 in all. Half of them fall into starting or the first steps, half into the rest."""
    chance, run = random.Random(seed), tmp_path / "run"
    for _ in range(4):
        process = begin("fit", "--config", config, "--run", run, *TWO)
        time.sleep(chance.uniform(2, 9))
        kill(process)
    finish(config, run, undisturbed)


def stopped_by(number: int, rank: int, config: Path, run: Path, seconds: float) -> int:
    """Sends a signal to one rank while the run trains; returns the exit code."""
    process = begun(config, run, seconds)
    if process.poll() is None:
        os.kill(process.pid if rank == 0 else other_rank(process.pid), number)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 0 or "the same command resumes" in error, error
    return process.returncode


@pytest.mark.parametrize(
    ("number", "rank"), [pytest.param(signal.SIGTERM, 0, marks=pytest.mark.long), (signal.SIGUSR1, 1)]
)
def test_a_signal_to_one_rank_stops_all_with_a_checkpoint(number, rank, longer, longer_undisturbed, tmp_path):
    run = tmp_path / "run"
    assert stopped_by(number, rank, longer, run, 0.2) == 128 + number
    at = lines_of(run)[-1]["images_seen"]
    names = Checkpoints(Storage(run / "checkpoints")).names()
    assert float(names[-1]) * 1000 >= at - 32
    finish(longer, run, longer_undisturbed)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(20))
def test_signals_at_random_moments(seed, longer, longer_undisturbed, tmp_path):
    chance, run = random.Random(seed), tmp_path / "run"
    number = chance.choice([signal.SIGTERM, signal.SIGUSR1])
    stopped_by(number, chance.randrange(2), longer, run, chance.uniform(0, 3))
    finish(longer, run, longer_undisturbed)


@pytest.mark.parametrize(
    ("rank", "number"),
    [(1, signal.SIGKILL), (0, signal.SIGKILL), pytest.param(1, signal.SIGSTOP, marks=pytest.mark.long)],
)
def test_a_lost_rank_ends_the_others_soon_and_is_named(rank, number, config, tmp_path):
    text = config.read_text().replace("total_kimg: 0.48", "total_kimg: 400")
    path, run = tmp_path / "endless.yaml", tmp_path / "run"
    path.write_text(text)
    process = begun(path, run)
    pids = [process.pid, other_rank(process.pid)]
    lost = time.monotonic()
    os.kill(pids[rank], number)
    wait_for(lambda: not alive(pids[1 - rank]), 60)
    assert time.monotonic() - lost < 60
    error = kill(process)
    assert (f"rank {rank} is dead" if rank else "rank 0 is gone") in error
    shutil.rmtree(run)


def test_a_mistake_is_said_once(config, tmp_path):
    result = bigtrain("fit", "--config", config, "--run", tmp_path / "run", *TWO, "--game.init_args.accumulation", 3)
    assert result.returncode == 2
    assert result.stderr.count("bigtrain: error:") == 1
    assert "batch_size" in result.stderr


def test_what_does_not_fit_the_number_of_ranks_is_refused(config, tmp_path):
    result = bigtrain("fit", "--config", config, "--run", tmp_path / "run", "--compute.strategy", "fsdp")
    assert result.returncode == 2, result.stderr
    assert "more than one process" in result.stderr
    assert result.stderr.count("bigtrain: error:") == 1
