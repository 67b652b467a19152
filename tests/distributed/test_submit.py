"""`bigtrain submit` and a real SLURM of two nodes: whatever happens to a job, its run is one and ends as it should."""

import json
import os
import re
import signal
import time
from pathlib import Path

import pytest

from bigtrain.checkpoints import Checkpoints
from bigtrain.cli.jobs import Jobs
from bigtrain.cli.main import main
from bigtrain.storage import Storage
from tests.distributed.test_runs import check_same, lines_of, wait_for
from tests.runs import ENVIRONMENT, ROOT, bigtrain
from tests.services.slurm import CPUS
from tests.unit.test_readme import commands, page

TWO = ("--nodes", 2, "--cpus-per-task", CPUS, "--time", 60)
LONG = 600  # seconds, on a machine that has much else to do


@pytest.fixture(scope="module")
def remote(digits, s3) -> str:
    """The shards, on the S3 server."""
    bucket = s3.bucket()
    for path in digits.rglob("*"):
        if path.is_file() and "evaluation" not in path.parts:
            s3.request("PUT", f"/{bucket}/digits/{path.relative_to(digits)}", path.read_bytes())
    return f"s3://{bucket}/digits"


@pytest.fixture
def ask(slurm, s3, monkeypatch, capsys):
    """Runs `bigtrain` where SLURM and the S3 server are known: exit code, what it prints, what it complains of."""
    for name, value in {**ENVIRONMENT, **slurm.environment, **s3.environment}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(ROOT)

    def run(*arguments) -> tuple[int, str, str]:
        capsys.readouterr()
        return main([str(argument) for argument in arguments]), *capsys.readouterr()

    return run


@pytest.fixture
def submit(ask, remote, longer):
    """Submits a training from the S3 server on both nodes; the job's number."""

    def job(run: Path, *options) -> int:
        return number(ask(*readmes_command(longer, run), "--data.url", remote, *options))

    return job


def readmes_command(config: Path, run: Path) -> list[object]:
    """README's first `bigtrain submit`, with what there is here in place of what it names; and no GPUs."""
    _, *words = next(words for words in commands(page("README.md"), "bigtrain") if words[0] == "submit")
    here = {"--config": config, "--run": run, "--cpus-per-task": CPUS, "--time": 60, "--partition": "main"}
    named = dict(zip(words[::2], words[1::2], strict=True))
    assert (named.pop("--gpus-per-node"), named["--nodes"]) == ("8", "2")
    return ["submit", *(word for name, value in named.items() for word in (name, here.get(name, value)))]


def number(answer: tuple[int, str, str]) -> int:
    """Of the last job that was submitted."""
    code, said, error = answer
    assert code == 0, error
    return int(re.findall(r"^job (\d+):", said, re.MULTILINE)[-1])


def trains(run):
    """Whether a run has written more than it had."""
    before = len(lines_of(run, "throughput.jsonl"))
    return lambda: len(lines_of(run, "throughput.jsonl")) > before


def events(run: Path) -> list[dict]:
    return Jobs(run / "jobs.jsonl").read()


def saved(run: Path) -> list[float]:
    """The images seen at each checkpoint."""
    return [float(name) * 1000 for name in Checkpoints(Storage(run / "checkpoints")).names()]


def status(ask, run: Path) -> dict:
    code, said, error = ask("status", run, "--json")
    assert code == 0, error
    return json.loads(said)


def test_before_its_time_limit_a_job_saves_and_goes_back_into_the_queue(
    slurm, ask, submit, longer, longer_undisturbed, tmp_path
):
    run = tmp_path / "run"
    job = submit(run, "--wandb.mode", "offline")
    wait_for(trains(run), LONG)
    slurm.command("scancel", "--signal=USR1", job)  # what --signal does two minutes before the limit
    code, said, error = ask("submit", "--config", longer, "--run", run, *TWO)
    assert (code, said) == (2, "")
    assert f"job {job} of the run in {run} is " in error
    slurm.start_again(job)
    begun = time.monotonic()
    wait_for(trains(run), LONG)
    print(f"training again {time.monotonic() - begun:.0f} s after it could start")
    slurm.wait_for(job, "COMPLETED", seconds=LONG)
    assert slurm.restarts(job) == 1
    check_same(run, longer_undisturbed)
    told = events(run)
    assert [event["event"] for event in told] == ["submitted", "started", "stopped", "started", "stopped"]
    assert {event["job"] for event in told if "job" in event} == {str(job)}
    assert [event["slurm_restart"] for event in told if event["event"] == "started"] == [0, 1]
    assert [event["exit_code"] for event in told if event["event"] == "stopped"] == [128 + signal.SIGUSR1, 0]
    assert 0 < told[2]["images_seen"] == told[3]["images_seen"] < told[4]["images_seen"] == 1600
    log = (run / f"slurm-{job}.log").read_text()
    assert log.index("saved; waiting to be ended by SLURM") < log.index("resuming") < log.index("finished")
    ids = {path.name.rpartition("-")[2] for path in (run / "wandb").glob("offline-run-*")}
    assert ids == {(run / "wandb-id").read_text()}
    found = status(ask, run)
    assert (found["state"], found["restarts"], found["kimg"], found["total_kimg"]) == ("finished", 1, 1.6, 1.6)
    assert found["job"]["state"] == "COMPLETED"


@pytest.mark.long
def test_a_job_that_makes_room_for_another_goes_on_afterwards(slurm, submit, longer_undisturbed, tmp_path):
    run = tmp_path / "run"
    job = submit(run)
    wait_for(trains(run), LONG)
    urgent = tmp_path / "urgent.sbatch"
    urgent.write_text("#!/bin/bash\nsleep 3\n")
    other = slurm.submit(urgent, "--partition=high", "--nodes=2", "--exclusive", f"--output={tmp_path}/urgent.log")
    slurm.wait_for(other, "COMPLETED", seconds=LONG)
    assert slurm.state(job) == "PENDING"
    assert "saved; waiting to be ended by SLURM" in (run / f"slurm-{job}.log").read_text()
    slurm.start_again(job)
    slurm.wait_for(job, "COMPLETED", seconds=LONG)
    check_same(run, longer_undisturbed)


@pytest.mark.long
def test_a_job_that_is_cancelled_stays_so_with_a_checkpoint(
    slurm, ask, submit, longer_undisturbed, tmp_path, monkeypatch
):
    monkeypatch.setenv("BIGTRAIN_RETRY_AFTER", "0")
    run = tmp_path / "run"
    job = submit(run)
    wait_for(trains(run), LONG)
    assert status(ask, run)["state"] == "running"
    slurm.command("scancel", job)
    slurm.wait_for(job, "CANCELLED", seconds=LONG)
    wait_for(lambda: not slurm.processes(job, "n1") and not slurm.processes(job, "n2"), LONG)
    at = events(run)[-1]["images_seen"]
    assert 0 < at == saved(run)[-1] < 1600
    time.sleep(5)
    assert (slurm.state(job), slurm.restarts(job)) == ("CANCELLED", 0)
    found = status(ask, run)
    assert (found["state"], found["checkpoint"]["kimg"]) == ("cancelled", at / 1000)
    again = submit(run)
    assert again > job
    slurm.wait_for(again, "COMPLETED", seconds=LONG)
    check_same(run, longer_undisturbed)


@pytest.mark.long
def test_a_job_that_loses_a_process_goes_on_from_its_checkpoint(
    slurm, submit, longer_undisturbed, tmp_path, monkeypatch
):
    monkeypatch.setenv("BIGTRAIN_RETRY_AFTER", "0")
    run = tmp_path / "run"
    job = submit(run)
    wait_for(lambda: saved(run), LONG)
    (other,) = slurm.processes(job, "n2")
    os.kill(other, signal.SIGKILL)
    begun = time.monotonic()
    slurm.wait_for(job, "PENDING", seconds=LONG)
    print(f"back in the queue after {time.monotonic() - begun:.0f} s")
    slurm.start_again(job)
    slurm.wait_for(job, "COMPLETED", seconds=LONG)
    assert slurm.restarts(job) == 1
    check_same(run, longer_undisturbed)


@pytest.mark.long
def test_a_job_that_loses_a_node_goes_on_when_there_are_two_again(slurm, submit, longer_undisturbed, tmp_path):
    run = tmp_path / "run"
    job = submit(run)
    wait_for(lambda: saved(run), LONG)
    slurm.cut_off("n2", job)
    begun = time.monotonic()
    try:
        slurm.wait_for(job, "PENDING", "FAILED", "NODE_FAIL", seconds=LONG)
        print(f"{slurm.state(job)} after {time.monotonic() - begun:.0f} s")
    finally:
        slurm.start_node("n2")
    assert slurm.state(job) == "PENDING"  # and not started now: what is left of it would end its next start
    slurm.wait_for(job, "COMPLETED", seconds=LONG)
    assert slurm.restarts(job) == 1
    check_same(run, longer_undisturbed)


@pytest.mark.long
def test_an_array_builds_shards_and_a_job_merges_them(slurm, ask, digits, tmp_path, monkeypatch):
    built = tmp_path / "built"
    monkeypatch.chdir(tmp_path)  # where the logs go
    job = number(ask("submit", "shards", "digits:", built, "--resolutions", "4,8,16", "--workers", 1, "--parts", 3))
    slurm.wait_for(job, "COMPLETED", seconds=LONG)
    assert len(list(tmp_path.glob("slurm-*.log"))) == 4
    assert bigtrain("shards", "verify", built).returncode == 0
    counts = [json.loads((folder / "manifest.json").read_text())["class_counts"] for folder in (built, digits)]
    assert counts[0] == counts[1]
    assert sum(counts[0]) == 1797


@pytest.mark.long
def test_an_array_trains_for_each_value_of_an_option(slurm, ask, config, tmp_path):
    runs = tmp_path / "runs"
    job = number(ask("submit", "sweep", "--over", "seed", 5, 6, "--config", config, "--run", runs))
    slurm.wait_for(f"{job}_0", "COMPLETED", seconds=LONG)
    slurm.wait_for(f"{job}_1", "COMPLETED", seconds=LONG)
    for seed in (5, 6):
        alone = tmp_path / f"alone{seed}"
        assert bigtrain("fit", "--config", config, "--run", alone, "--seed", seed).returncode == 0
        check_same(runs / f"seed={seed}", alone)
        assert events(runs / f"seed={seed}")[0]["job"] == f"{job}_{seed - 5}"
