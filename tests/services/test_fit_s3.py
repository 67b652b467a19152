"""Trainings from the S3 server: the same as from a folder, whatever becomes of the server meanwhile."""

import json
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from bigtrain.storage import Storage
from tests.runs import begin, bigtrain, tiny_config, write_config
from tests.services import proxy as faults
from tests.services.proxy import ALWAYS


def weights(run):
    return (max((run / "checkpoints").iterdir()) / "rank-00000.safetensors").read_bytes()


def wait_for_records(process, run, count):
    deadline = time.monotonic() + 120
    while not ((run / "metrics.jsonl").exists() and (run / "metrics.jsonl").read_text().count("\n") >= count):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)


#: Reads all batches, and fails in the trainer as soon as one is late.
FAILING = """
import sys
from bigtrain.data.datamodule import ShardDataModule
from bigtrain.schedules import Constant
from bigtrain.storage import StorageOptions

storage = StorageOptions(sys.argv[2], timeout_seconds=300)
data = ShardDataModule(sys.argv[1], Constant(8, 8, 1000), storage=storage, decoded_mib=0, cache_folder=sys.argv[3])
batches = data.batches(0)
batches.stopping = lambda: 1 // 0
for batch in batches:
    print(batch["first"], flush=True)
"""


def upload(digits, s3):
    storage = Storage(f"s3://{s3.bucket()}/digits")
    for path in digits.rglob("*"):
        if path.is_file() and "evaluation" not in path.parts:
            storage.write_file(str(path.relative_to(digits)), path)
    return storage.url


def wait_for_stalls(proxy):
    """Until threads wait for answers that do not come."""
    deadline = time.monotonic() + 60
    while sum(request.fault is not None for request in proxy.requests) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@contextmanager
def killed_at_the_end(process):
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


SOON = 20  # seconds, where one request alone may take 300


def test_a_training_that_is_asked_to_stop_does_not_wait_for_a_dead_store(digits, s3, s3_environment, proxy, tmp_path):
    config = tiny_config(digits, evaluation=None)
    config["schedule"]["init_args"]["total_kimg"] = 1000
    storage = {"endpoint": proxy.endpoint, "timeout_seconds": 300}
    config["data"] = {"url": upload(digits, s3), "decoded_mib": 0, "cache_gib": 0, "storage": storage}
    file = write_config(tmp_path / "config.yaml", config)
    arguments = ("fit", "--config", file, "--run", tmp_path / "run")
    with killed_at_the_end(begin(*arguments, environment=s3.environment)) as process:
        wait_for_records(process, tmp_path / "run", 3)
        proxy.inject(faults.stall(), r"\.tar", nth=ALWAYS)
        wait_for_stalls(proxy)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=SOON)
    assert process.returncode == 128 + signal.SIGTERM, errors
    assert "with a checkpoint; the same command resumes" in errors


def test_an_error_in_the_trainer_does_not_wait_for_a_dead_store(digits, s3, s3_environment, proxy, tmp_path):
    url = upload(digits, s3)
    proxy.inject(faults.stall(), r"\.tar", nth=ALWAYS)
    command = [sys.executable, "-c", FAILING, url, proxy.endpoint, str(tmp_path / "cache")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with killed_at_the_end(subprocess.Popen(command, **pipes)) as process:
        wait_for_stalls(proxy)
        _, errors = process.communicate(timeout=SOON)
    assert process.returncode == 1
    assert "ZeroDivisionError" in errors.strip().splitlines()[-1]


@pytest.mark.parametrize(
    "cached", [pytest.param(True, id="cache", marks=pytest.mark.long), pytest.param(False, id="ranges")]
)
def test_a_server_that_is_killed_and_restarted_changes_nothing(digits, s3, s3_environment, tmp_path, cached):
    url = upload(digits, s3)
    config = tiny_config(digits, evaluation=None)
    config["schedule"]["init_args"]["total_kimg"] = 1.6
    config["data"] |= {"decoded_mib": 0, "batches_ahead": 1, "cache_folder": str(tmp_path / "cache")}
    config["data"] |= {"cache_gib": 1 if cached else 0, "storage": {"timeout_seconds": 2, "connect_seconds": 1}}
    file = write_config(tmp_path / "config.yaml", config)
    local = bigtrain("fit", "--config", file, "--run", tmp_path / "local")
    assert local.returncode == 0, local.stderr
    arguments = ("fit", "--config", file, "--run", tmp_path / "remote", "--data.url", url)
    remote = begin(*arguments, environment=s3.environment)
    wait_for_records(remote, tmp_path / "remote", 10)
    s3.kill()
    time.sleep(1)
    s3.start()
    _, errors = remote.communicate(timeout=240)
    assert remote.returncode == 0, errors
    assert weights(tmp_path / "remote") == weights(tmp_path / "local")
    last = json.loads((tmp_path / "remote" / "throughput.jsonl").read_text().splitlines()[-1])
    assert last["data/reads"] > 0
    assert ("data/cache_hits" in last) == cached
