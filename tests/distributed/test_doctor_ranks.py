"""The doctor's all-reduce among real ranks, and the whole command under its launchers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from unittest import mock

import pytest
import torch

from bigtrain.checkpoints import Checkpoints
from bigtrain.cli.checks import ranks, reduction
from bigtrain.cli.checks.finding import Line
from bigtrain.cli.checks.plan import Plan
from bigtrain.cli.checks.space import sizes
from bigtrain.runtime.compute import Compute
from bigtrain.runtime.world import World
from bigtrain.storage import Storage
from tests.runs import ENVIRONMENT, ROOT
from tests.services.s3 import free_ports
from tests.services.slurm import CPUS, slurm

__all__ = ["slurm"]


def summed(wrong: bool) -> dict:
    """What a rank measures, of fewer bytes; with one that adds something of its own."""
    world = World()
    with mock.patch.dict(reduction.BYTES, cpu=1 << 16):
        original = torch.Tensor.fill_
        spoilt = wrong and world.rank == 1
        with mock.patch.object(torch.Tensor, "fill_", lambda x, value: original(x, value + 1 if spoilt else value)):
            return reduction.measure(world, torch.device("cpu"))


def told() -> dict:
    """What the ranks hear of the other nodes: here each rank is one."""
    world = World()
    with mock.patch.dict(os.environ, SLURMD_NODENAME=f"node-{world.rank}"):
        lines = [] if world.is_first else [["warning", "limits", f"of rank {world.rank}: ü", "more"]]
        return reduction._gathered(world, lines)


def test_the_sum_of_two_ranks(two_ranks):
    first, second = two_ranks.run(summed, False)
    assert first["right"]
    assert second["right"]
    assert (first["bytes"], first["backend"]) == (1 << 16, "gloo")
    assert 0 < first["seconds"] == second["seconds"] < 60
    assert first["clocks"] == second["clocks"]
    assert max(first["clocks"]) - min(first["clocks"]) < 60  # (of one machine; it may be busy)


def test_a_sum_that_is_wrong_on_one_rank_is_wrong_on_all(two_ranks):
    assert [found["right"] for found in two_ranks.run(summed, True)] == [False, False]


def test_what_each_node_finds_is_heard(four_ranks):
    for heard in four_ranks.run(told):
        assert heard == {f"node-{n}": [["warning", "limits", f"of rank {n}: ü", "more"]] for n in (1, 2, 3)}


def test_a_checkpoint_is_as_large_as_was_said(longer, longer_undisturbed):
    """The whole folder of a real one; of a network that grows, nothing else than its json is added."""
    checkpoint, snapshot, count = sizes(Plan([f"--config={longer}"]))
    checkpoints = Storage(longer_undisturbed / "checkpoints")
    newest = Checkpoints(checkpoints).names()[-1]
    tensors = sum(size for key, size in checkpoints.list(newest) if key.endswith(".safetensors"))
    assert checkpoint <= tensors <= checkpoint + 50_000  # headers
    snapshots = dict(Storage(longer_undisturbed / "snapshots").list())
    files = [size for key, size in snapshots.items() if key.endswith(".safetensors")]
    assert len(files) == count
    assert all(snapshot <= size <= snapshot + 20_000 for size in files)


@pytest.mark.long
def test_the_command_starts_two_ranks():
    answer = ranks.measured(Compute("cpu", devices=2), [Line("ok", "limits", "fine", "")])
    assert answer["right"]
    assert answer["nodes"] == {}
    assert len(answer["clocks"]) == 2


@pytest.mark.long
def test_torchrun_may_start_them(longer, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "--"]
    command += ["bigtrain", "doctor", "--config", str(longer), "--run", str(tmp_path / "run"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=ENVIRONMENT, check=False)
    assert done.returncode == 0, done.stderr
    (found,) = [line for line in json.loads(done.stdout) if "2 ranks by gloo" in line["found"]]
    assert found["level"] == "ok"


@pytest.mark.long
def test_two_nodes_of_slurm(slurm, longer, tmp_path):
    """One reports, for both; and sees that the job's script asks for no signal."""
    script = tmp_path / "doctor.sbatch"
    command = f"{sys.executable} -m bigtrain doctor --config {longer} --run {tmp_path / 'run'} --json"
    script.write_text(f"""#!/bin/bash
#SBATCH --job-name=doctor --nodes=2 --ntasks-per-node=1 --cpus-per-task={CPUS} --requeue --time=60
#SBATCH --output={tmp_path}/log --chdir={ROOT}
export OMP_NUM_THREADS=1 MASTER_PORT={free_ports(1)[0]}  # by default it is that of any first job of a cluster
srun {command} > {tmp_path}/report 2> {tmp_path}/errors
""")
    number = slurm.submit(script)
    slurm.wait_for(number, "COMPLETED", "FAILED", seconds=500)
    found = json.loads((tmp_path / "report").read_text())
    said = [line["found"] for line in found if line["check"] == "all-reduce"]
    assert any(text.startswith("2 ranks by gloo") for text in said), (found, (tmp_path / "errors").read_text())
    assert "n2 found nothing wrong either" in said
    job = [line for line in found if line["check"] == "SLURM"]
    assert [line["level"] for line in job] == ["ok", "ok", "warning"], job
    assert f"job {number} has " in job[0]["found"]
    assert "asks for no signal" in job[2]["found"]
