"""`bigtrain sample` on several ranks: the bytes of one process, and nothing half done when it is stopped."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bigtrain.cli.main import main
from tests.distributed.sampled import ENDINGS, make
from tests.distributed.test_runs import alive, wait_for
from tests.runs import ENVIRONMENT, ROOT, begin, bigtrain, children
from tests.unit.made_snapshot import made_snapshot

BIGGAN = {
    "resolution": 32,
    "image_channels": 3,
    "num_classes": 10,
    "latent_dim": 8,
    "shared_dim": 4,
    "width": 4,
    "attention": [16],
}


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory) -> str:
    return made_snapshot(tmp_path_factory.mktemp("snapshots"), "BigGANGenerator", BIGGAN, resolution=32)


def stored(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("form", ENDINGS)
def test_every_form_has_the_bytes_of_one_process(form, snapshot, two_ranks, four_ranks, tmp_path):
    options = ("--standing-stats", "2", "--truncation", "0.8")
    made = {}
    for name, run in (("one", lambda *all_: [make(*all_)]), ("two", two_ranks.run), ("four", four_ranks.run)):
        arguments = (snapshot, str(tmp_path / name / "samples"), form, *options)
        said = run(*arguments) if name == "one" else run(make, *arguments)
        assert said == ["45 samples", *[""] * (len(said) - 1)]
        made[name] = stored(tmp_path / name)
    assert made["one"]
    assert made["one"] == made["two"] == made["four"]


def test_the_command_starts_the_others(snapshot, tmp_path):
    options = ("--num", 45, "--batch", 8, "--standing-stats", 2)
    assert main(["sample", snapshot, "--out", str(tmp_path / "one.zip"), *map(str, options)]) == 0
    result = bigtrain("sample", snapshot, "--out", tmp_path / "two.zip", *options, "--devices", 2)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == f"{tmp_path}/two.zip: 45 samples of {snapshot.removesuffix('.safetensors')} at 1 kimg\n"
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


@pytest.mark.parametrize(
    ("send", "number"),  # a scheduler's word to the first process; Ctrl-C, which all of a terminal hear
    [(os.kill, signal.SIGTERM), pytest.param(os.killpg, signal.SIGINT, marks=pytest.mark.long)],
)
def test_what_is_stopped_leaves_nothing_under_the_final_name(send, number, snapshot, tmp_path):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    arguments = ("sample", snapshot, "--out", tmp_path / "a.zip", "--num", 1_000_000, "--batch", 8, "--devices", 2)
    process = begin(*arguments, environment={"TMPDIR": str(temporary)})
    try:
        wait_for(lambda: process.poll() is not None or any(path.stat().st_size for path in temporary.rglob("*.zip")))
        others = children(process.pid)
        send(process.pid, number)
        _, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, error
    assert [line for line in error.splitlines() if not line.startswith("sampling: ")] == ["bigtrain: interrupted"]
    assert len(others) == 1
    assert not any(map(alive, others))
    assert not (tmp_path / "a.zip").exists()
    assert not list(temporary.glob("bigtrain-*"))


@pytest.mark.long
def test_a_rank_that_fails_ends_the_others_with_one_line(snapshot, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").touch()
    begun = time.monotonic()
    result = bigtrain("sample", snapshot, "--out", tmp_path / "there", "--as", "shards", "--devices", 2)
    assert result.returncode == 2
    (line,) = [line for line in result.stderr.splitlines() if "error" in line]
    assert "there' holds file already" in line
    assert time.monotonic() - begun < 60


@pytest.mark.long
def test_torchrun_may_start_them(snapshot, tmp_path):
    assert main(["sample", snapshot, "--out", str(tmp_path / "one.npz"), "--num", "20", "--batch", "8"]) == 0
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "3", "-m", "--"]
    command += ["bigtrain", "sample", snapshot, "--out", str(tmp_path / "three.npz"), "--num", "20", "--batch", "8"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=ENVIRONMENT, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "three.npz").read_bytes()


def test_what_cannot_be_started_is_refused(snapshot, tmp_path, capsys, monkeypatch):
    def said(*options: str) -> str:
        assert main(["sample", snapshot, "--out", str(tmp_path / "a.png"), *options]) == 2
        return capsys.readouterr().err

    with monkeypatch.context() as gpus:
        gpus.setattr("torch.cuda.device_count", lambda: 2)
        assert "--devices (=3) must be at most 2" in said("--devices", "3")
    started = {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4"}
    for name, value in started.items():
        monkeypatch.setenv(name, value)
    assert "torchrun or SLURM, which started theirs" in said("--devices", "4")
    assert "--kind classes is made by one process, and 4 were started" in said("--kind", "classes")
    assert not list(tmp_path.iterdir())
