"""`bigtrain fit` under torchrun and under a real SLURM of two nodes: stopped, restarted, and no number changes."""

import os
import shlex
import signal
import subprocess
import sys
import time

import pytest

from bigtrain.checkpoints import Checkpoints
from bigtrain.storage import Storage
from tests.distributed.test_runs import TWO, alive, check_same, kill, lines_of, wait_for
from tests.runs import ENVIRONMENT, ROOT, bigtrain, children
from tests.services.slurm import CPUS, slurm

__all__ = ["slurm"]


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


def job(slurm, config, run, folder) -> int:
    """Submits a training on both nodes."""
    command = [sys.executable, "-m", "bigtrain", "fit", "--config", str(config), "--run", str(run)]
    script = folder / "train.sbatch"
    script.write_text(f"""#!/bin/bash
#SBATCH --job-name=train --nodes=2 --ntasks-per-node=1 --cpus-per-task={CPUS} --requeue --open-mode=append
#SBATCH --output={folder}/log --chdir={ROOT} --signal=SIGUSR1@120
export OMP_NUM_THREADS=1
srun --kill-on-bad-exit=1 {shlex.join(command)}
""")
    return slurm.submit(script)


def trains(run):
    """Whether a run has written more than it had."""
    before = len(lines_of(run, "throughput.jsonl"))
    return lambda: len(lines_of(run, "throughput.jsonl")) > before


def test_before_its_time_limit_a_slurm_job_saves_and_goes_back_into_the_queue(
    slurm, longer, longer_undisturbed, tmp_path
):
    run = tmp_path / "run"
    number = job(slurm, longer, run, tmp_path)
    wait_for(trains(run))
    slurm.command("scancel", "--signal=USR1", number)  # what --signal does two minutes before the limit
    slurm.start_again(number)
    begun = time.monotonic()
    wait_for(trains(run))
    print(f"training again {time.monotonic() - begun:.0f} s after it could start")
    slurm.wait_for(number, "COMPLETED")
    assert slurm.restarts(number) == 1
    check_same(run, longer_undisturbed)


@pytest.mark.long
def test_a_slurm_job_that_makes_room_for_another_goes_on_afterwards(slurm, longer, longer_undisturbed, tmp_path):
    run = tmp_path / "run"
    number = job(slurm, longer, run, tmp_path)
    wait_for(trains(run))
    urgent = tmp_path / "urgent.sbatch"
    urgent.write_text("#!/bin/bash\nsleep 3\n")
    other = slurm.submit(urgent, "--partition=high", "--nodes=2", "--exclusive", f"--output={tmp_path}/urgent.log")
    slurm.wait_for(other, "COMPLETED")
    assert slurm.state(number) == "PENDING"
    assert "saved; waiting to be ended by SLURM" in (tmp_path / "log").read_text()
    slurm.start_again(number)
    slurm.wait_for(number, "COMPLETED")
    check_same(run, longer_undisturbed)
