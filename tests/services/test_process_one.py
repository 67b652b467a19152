"""bigtrain as process 1, which it is in a container: signals reach it, and it ends its processes."""

import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.runs import ENVIRONMENT, ROOT, children, tiny_config, write_config

#: A process namespace with a /proc of its own, of which the program is process 1.
UNSHARE = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]


@pytest.fixture(scope="module", autouse=True)
def _namespaces():
    done = subprocess.run([*UNSHARE, "true"], capture_output=True, check=False) if shutil.which("unshare") else None
    if done is None or done.returncode:
        pytest.skip("process namespaces need unshare and root")


def test_sigterm_ends_a_training_with_a_checkpoint_and_all_of_its_processes(digits, tmp_path):
    config = tiny_config(digits, evaluation=None, compute={"accelerator": "cpu", "devices": 2})
    config["schedule"]["init_args"]["total_kimg"] = 1000
    file, run = write_config(tmp_path / "config.yaml", config), tmp_path / "run"
    command = [*UNSHARE, sys.executable, "-m", "bigtrain", "fit", "--config", str(file), "--run", str(run)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, cwd=ROOT)
    try:
        deadline = time.monotonic() + 120
        while not ((run / "metrics.jsonl").exists() and (run / "metrics.jsonl").read_text().count("\n") >= 2):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        (first,) = children(process.pid)
        ranks = children(first)
        assert len(ranks) >= 1
        # A container's runtime sends it to process 1 alone.
        subprocess.run(["kill", f"-{signal.SIGTERM}", str(first)], check=True)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGTERM, errors
    assert "with a checkpoint; the same command resumes" in errors
    assert list((run / "checkpoints").iterdir())
