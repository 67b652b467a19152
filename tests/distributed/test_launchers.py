"""`bigtrain fit` under torchrun: stopped, restarted, and no number changes."""

import os
import signal
import subprocess
import sys

import pytest

from bigtrain.checkpoints import Checkpoints
from bigtrain.storage import Storage
from tests.distributed.test_runs import TWO, alive, check_same, kill, lines_of, wait_for
from tests.runs import ENVIRONMENT, ROOT, bigtrain, children


def by_torchrun(config, run, restarts=0):
    """As README says."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["--max-restarts", str(restarts), "-m", "--", "bigtrain", "fit", "--config", config, "--run", run]
    return subprocess.Popen(
        list(map(str, command)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**ENVIRONMENT, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"},
        start_new_session=True,
    )


def test_torchrun_starts_the_ranks_again_when_one_dies(longer, longer_undisturbed, tmp_path):
    run = tmp_path / "run"
    process = by_torchrun(longer, run, restarts=1)
    wait_for(lambda: process.poll() is not None or len(Checkpoints(Storage(run / "checkpoints")).names()) > 1)
    ranks = children(process.pid)
    assert len(ranks) == 2
    os.kill(ranks[1], signal.SIGKILL)
    _, error = process.communicate(timeout=240)
    assert process.returncode == 0, error
    assert not any(map(alive, ranks))
    check_same(run, longer_undisturbed)


@pytest.mark.long
def test_torchrun_is_stopped_with_a_checkpoint(longer, longer_undisturbed, tmp_path):
    run = tmp_path / "run"
    process = by_torchrun(longer, run)
    wait_for(lambda: process.poll() is not None or lines_of(run, "throughput.jsonl"))
    process.send_signal(signal.SIGTERM)  # as Kubernetes does: to the first process
    wait_for(lambda: process.poll() is not None, 60)
    error = kill(process)
    at = lines_of(run)[-1]["images_seen"]
    assert at < 1600, error
    assert float(Checkpoints(Storage(run / "checkpoints")).names()[-1]) * 1000 >= at
    result = bigtrain("fit", "--config", longer, "--run", run, *TWO)
    assert result.returncode == 0, result.stderr
    check_same(run, longer_undisturbed)
