"""A build goes on exactly where it stopped, whatever stopped it, and only if it is the same build."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bigtrain.data.manifest import Manifest
from bigtrain.randomness import permutation
from tests.runs import begin
from tests.unit.made_source import Made, build_made, files_of, unusable


def interrupt_at(calls: int, before: Callable[[int], None]) -> Callable[[int], None]:
    left = [calls]

    def trouble(index: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        before(index)

    return trouble


@pytest.mark.parametrize("calls", [0, 3, 6, 13, 19])
def test_an_interrupted_build_goes_on_and_ends_as_if_it_had_not_been(
    calls: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trouble = unusable({5, 6})
    whole = build_made(Made(trouble=trouble), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        build_made(Made(trouble=interrupt_at(calls, trouble)), tmp_path / "cut")
    assert "the same command goes on from there" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"holds no manifest.json: its build is unfinished"):
        Manifest.load(str(tmp_path / "cut"))
    finished = {path: path.stat().st_mtime_ns for path in (tmp_path / "cut").rglob("*.tar")}

    source = Made(trouble=trouble)
    assert build_made(source, tmp_path / "cut") == whole
    assert files_of(tmp_path / "cut") == files_of(tmp_path / "whole")
    unfinished = permutation(20, 0, "build")[calls // 6 * 6 :].tolist()
    assert source.loaded == unfinished, "no image of a finished shard is touched"
    assert {path: path.stat().st_mtime_ns for path in finished} == finished


def test_a_finished_build_says_so_and_does_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = build_made(Made(), tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    capsys.readouterr()
    source = Made()
    assert build_made(source, tmp_path) == first
    assert "is finished already: nothing to do" in capsys.readouterr().err
    assert source.loaded == []
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("name", ["r4/shard-000001.tar", "r8/shard-000001.index.json", "parts/000001.json"])
def test_only_a_part_that_misses_a_file_is_made_again(name: str, tmp_path: Path) -> None:
    build_made(Made(), tmp_path)
    before = files_of(tmp_path)
    (tmp_path / name).unlink()
    source = Made()
    build_made(source, tmp_path)
    assert source.loaded == permutation(20, 0, "build")[6:12].tolist()
    assert files_of(tmp_path) == before


def test_a_shard_of_another_size_is_made_again(tmp_path: Path) -> None:
    build_made(Made(), tmp_path)
    before = files_of(tmp_path)
    with (tmp_path / "r8/shard-000002.tar").open("r+b") as file:
        file.truncate(600)
    build_made(Made(), tmp_path)
    assert files_of(tmp_path) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 1}, "seed was 0 and is 1 now"),
        ({"resolutions": [8]}, r"resolutions was \[4, 8\] and is \[8\] now"),
        ({"samples_per_shard": 5, "quality": 50}, "samples_per_shard was 6 .* quality was 95"),
    ],
)
def test_another_plan_is_refused(options: dict[str, object], message: str, tmp_path: Path) -> None:
    build_made(Made(), tmp_path)
    before = files_of(tmp_path)
    with pytest.raises(ValueError, match=f"holds another build: {message}.*choose another DEST"):
        build_made(Made(), tmp_path, **options)
    assert files_of(tmp_path) == before


def test_another_source_is_refused(tmp_path: Path) -> None:
    build_made(Made(), tmp_path)
    with pytest.raises(ValueError, match="the source has other images or labels now"):
        build_made(Made(count=19), tmp_path)


def test_shards_of_another_origin_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(ValueError, match="of another origin; choose another DEST"):
        build_made(Made(), tmp_path)


def test_several_processes_make_the_same_bytes(tmp_path: Path) -> None:
    build_made(Made(), tmp_path / "one")
    build_made(Made(), tmp_path / "two", workers=2)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")


def kill_this_process(index: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_dies_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # who is killed leaves his temporary files
    with pytest.raises(ChildProcessError, match=r"a worker process of the build died.* run the same command again"):
        build_made(Made(trouble=kill_this_process), tmp_path / "shards", workers=2)


def test_a_source_that_cannot_be_read_is_no_skip(tmp_path: Path) -> None:
    def trouble(index: int) -> None:
        raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output error"):
        build_made(Made(trouble=trouble), tmp_path)
    assert not list(tmp_path.glob("parts/0*"))


@pytest.mark.parametrize(("number", "workers"), [(signal.SIGINT, 2), (signal.SIGTERM, 1)])
def test_a_signal_keeps_what_is_finished(number: int, workers: int, tmp_path: Path) -> None:
    """Sent to all processes at once, as a terminal and a scheduler do."""
    command = ["build", "digits:", str(tmp_path), "--resolutions=4,8,256", "--samples-per-shard=20"]
    process = begin("shards", *command, f"--workers={workers}")
    while not (tmp_path / "parts/000001.json").exists() and process.poll() is None:
        time.sleep(0.05)
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert [line for line in errors.splitlines() if "images/s" not in line] == [
        f"shards build: stopped; what is finished in {tmp_path} is kept: the same command goes on from there",
        "bigtrain: interrupted",
    ]
    assert not (tmp_path / "manifest.json").exists()
