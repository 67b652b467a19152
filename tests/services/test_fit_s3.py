"""Trainings from the S3 server: the same as from a folder, whatever becomes of the server meanwhile."""

import json
import time

import pytest

from bigtrain.storage import Storage
from tests.runs import begin, bigtrain, tiny_config, write_config


def weights(run):
    return (max((run / "checkpoints").iterdir()) / "rank-00000.safetensors").read_bytes()


def wait_for_records(process, run, count):
    deadline = time.monotonic() + 120
    while not ((run / "metrics.jsonl").exists() and (run / "metrics.jsonl").read_text().count("\n") >= count):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("cached", [True, False], ids=["cache", "ranges"])
def test_a_server_that_is_killed_and_restarted_changes_nothing(digits, s3, s3_environment, tmp_path, cached):
    storage = Storage(f"s3://{s3.bucket()}/digits")
    for path in digits.rglob("*"):
        if path.is_file() and "evaluation" not in path.parts:
            storage.write_file(str(path.relative_to(digits)), path)
    config = tiny_config(digits, evaluation=None)
    config["schedule"]["init_args"]["total_kimg"] = 1.6
    config["data"] |= {"decoded_mib": 0, "batches_ahead": 1, "cache_folder": str(tmp_path / "cache")}
    config["data"] |= {"cache_gib": 1 if cached else 0, "storage": {"timeout_seconds": 2, "connect_seconds": 1}}
    file = write_config(tmp_path / "config.yaml", config)
    local = bigtrain("fit", "--config", file, "--run", tmp_path / "local")
    assert local.returncode == 0, local.stderr
    arguments = ("fit", "--config", file, "--run", tmp_path / "remote", "--data.url", storage.url)
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
