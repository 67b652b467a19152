"""`bigtrain status`: says of a run what its records say, and no more."""

import json
import os
import stat
import time

import pytest

from bigtrain.callbacks.records import Records
from bigtrain.cli import status as verb
from bigtrain.cli.jobs import Answer, Jobs, ask
from bigtrain.cli.main import main
from bigtrain.cli.run_folder import RunFolder

NOW = 1_000_000.0


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run's folder, at a moment at which the clock stands, where there is no SLURM."""
    monkeypatch.setattr(time, "time", lambda: NOW)
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


def fill(run, seen=(32_000, 64_000), total=256_000):
    """The records of a run, as far as the last of these moments; the images between two took 16 s."""
    (run / "config.yaml").touch()
    Jobs(run / "jobs.jsonl").started(0, total, 2)
    before = 0
    for at in seen:
        place = {"images_seen": at, "kimg": at / 1000}
        Records(run / "metrics.jsonl").append({**place, "resolution": 8, "alpha": 0.25, "phase": "transition"})
        speed = {"images_per_second": (at - before) / 16, "seconds": 16.0, "time": NOW - 60}
        Records(run / "throughput.jsonl").append({**place, **speed})
        before = at


def add_checkpoint(run, name, age, complete=True):
    folder = run / "checkpoints" / name
    folder.mkdir(parents=True)
    marker = folder / ("COMPLETE" if complete else "state.json")
    marker.touch()
    os.utime(marker, (NOW - age, NOW - age))


def score(run, at, metric, value):
    facts = {"metric": metric, "value": value, "kimg": at / 1000, "protocol": {"extractor": "classifier"}}
    Records(run / "evaluation.jsonl").append({"images_seen": at, **facts})


def lines(run, capsys):
    assert main(["status", str(run)]) == 0
    return capsys.readouterr().out.splitlines()


def test_one_screen(run, capsys):
    fill(run)
    Jobs(run / "jobs.jsonl").started(32_000, 256_000, 2)
    add_checkpoint(run, "000032.000", 7200)
    add_checkpoint(run, "000064.000", 90)
    add_checkpoint(run, "000096.000", 1, complete=False)
    for at, fid in ((32_000, 9.0), (64_000, 4.5)):
        score(run, at, "fid10k", fid)
        score(run, at, "is10k", 2.0)
    assert lines(run, capsys) == [
        f"{run}: started, last sign 0:00:00 ago",
        "restarts    1",
        "kimg        64 of 256 (25.0%)",
        "phase       8x8 transition alpha 0.25",
        "speed       2000.0 images/s, 0:01:36 left",
        "fid10k      4.5000 at 64 kimg (by classifier)",
        "is10k       2.0000 at 64 kimg (by classifier)",
        "checkpoint  64 kimg, 0:01:30 ago",
    ]


def test_json_says_the_same(run, capsys):
    fill(run)
    add_checkpoint(run, "000064.000", 90)
    assert main(["status", str(run), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == {
        "run": str(run),
        "state": "started",
        "job": None,
        "restarts": 0,
        "kimg": 64,
        "total_kimg": 256,
        "images_per_second": 2000,
        "seconds_left": 96,
        "last_sign": NOW,
        "place": {"resolution": 8, "phase": "transition", "alpha": 0.25},
        "scores": [],
        "checkpoint": {"kimg": 64, "time": NOW - 90},
        "log": None,
    }


def test_the_speed_is_that_of_the_last_records(run):
    """Of the first of twelve nothing is left; what took longer weighs more."""
    for number in range(12):
        speed, seconds = (1, 1000) if number < 2 else (100, 30) if number % 2 else (200, 10)
        record = {"images_seen": number, "images_per_second": speed, "seconds": seconds, "time": NOW}
        Records(run / "throughput.jsonl").append(record)
    assert verb._speed(Records(run / "throughput.jsonl").read()) == pytest.approx((100 * 30 + 200 * 10) / 40)


@pytest.mark.parametrize(("seen", "code", "state"), [(256_000, 0, "finished"), (64_000, 138, "stopped")])
def test_how_it_ended(run, seen, code, state):
    fill(run, (32_000, seen))
    Jobs(run / "jobs.jsonl").stopped(seen, code)
    assert verb.status(RunFolder(run))["state"] == state


def test_a_longer_total_makes_a_finished_run_unfinished(run):
    fill(run, (256_000,))
    Jobs(run / "jobs.jsonl").stopped(256_000, 0)
    Jobs(run / "jobs.jsonl").started(256_000, 512_000, 1)
    found = verb.status(RunFolder(run))
    assert (found["state"], found["total_kimg"], found["seconds_left"]) == ("started", 512, 16)


def squeue(run, said, code=0):
    """A stand-in that says this of any job."""
    (run.parent / "said").write_text(said)
    program = run.parent / "squeue"
    program.write_text(f'#!/bin/sh\nwhile read -r line; do echo "$line"; done < {run.parent}/said\nexit {code}\n')
    program.chmod(stat.S_IRWXU)


@pytest.mark.parametrize(
    ("said", "code", "answer"),
    [
        ("RUNNING|n[1-2]|None\n", 0, Answer("RUNNING", "n[1-2]")),
        ("PENDING||Resources\n", 0, Answer("PENDING", None, "Resources")),
        ("CANCELLED|n1|None\n", 0, Answer("CANCELLED", "n1")),
        ("", 0, Answer()),
        ("slurm_load_jobs error: Invalid job id specified\n", 1, Answer()),
    ],
)
def test_what_slurm_says(run, said, code, answer):
    squeue(run, said, code)
    assert ask("12") == answer
    assert answer.alive == (answer.state in ("RUNNING", "PENDING"))


def test_a_job_that_waits(run, capsys):
    Jobs(run / "jobs.jsonl").submitted("12", "run/slurm-12.log")
    squeue(run, "PENDING||Resources\n")
    assert lines(run, capsys) == [
        f"{run}: pending, last sign 0:00:00 ago",
        "job         12  PENDING  Resources",
        "restarts    0",
        "kimg        0",
        "log         run/slurm-12.log",
    ]


def test_a_job_that_slurm_has_forgotten(run, capsys, monkeypatch):
    Jobs(run / "jobs.jsonl").submitted("12", "run/slurm-12.log")
    for name, value in (("SLURM_PROCID", "0"), ("SLURM_JOB_ID", "12"), ("SLURM_RESTART_COUNT", "3")):
        monkeypatch.setenv(name, value)
    fill(run)
    assert Jobs(run / "jobs.jsonl").read()[-1]["slurm_restart"] == 3
    found = lines(run, capsys)
    assert found[:2] == [f"{run}: started, last sign 0:00:00 ago", "job         12  no longer known to SLURM"]
    assert found[-1] == "log         run/slurm-12.log"


def test_a_job_is_of_the_past_when_the_run_goes_on_without_slurm(run):
    Jobs(run / "jobs.jsonl").submitted("12", "run/slurm-12.log")
    squeue(run, "CANCELLED|n1|None\n")
    assert verb.status(RunFolder(run))["state"] == "cancelled"
    fill(run)
    found = verb.status(RunFolder(run))
    assert (found["state"], found["job"], found["log"]) == ("started", None, None)


def test_a_folder_that_is_no_run_is_one_line(run, capsys):
    for folder in (run, run / "none"):
        assert main(["status", str(folder)]) == 2
        out, error = capsys.readouterr()
        assert (out, error.count("\n")) == ("", 1)
        assert f"{str(folder)!r} is no run" in error
