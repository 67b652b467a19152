"""How many ranks there are, and which one this is, as torchrun, SLURM or nobody says."""

import pytest

from bigtrain.runtime.compute import Compute, is_first

TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4", "RANK": "5", "LOCAL_RANK": "1"}
SLURM = {"SLURM_PROCID": "0", "SLURM_NNODES": "2", "SLURM_NTASKS": "16", "SLURM_JOB_NAME": "train"}


@pytest.mark.parametrize(
    ("compute", "environ", "layout"),
    [
        (Compute(accelerator="cpu"), {}, (1, 1)),
        (Compute(accelerator="cpu", devices=2), {}, (1, 2)),
        (Compute(accelerator="cpu"), TORCHRUN, (2, 4)),
        (Compute(accelerator="cpu", devices=4, num_nodes=2), TORCHRUN, (2, 4)),
        (Compute(accelerator="cpu"), SLURM, (2, 8)),
        (Compute(accelerator="cpu"), {**SLURM, "SLURM_JOB_NAME": "bash"}, (1, 1)),  # an interactive shell
    ],
)
def test_the_launcher_says_how_many(compute, environ, layout):
    assert compute.layout(environ) == layout


@pytest.mark.parametrize(
    ("compute", "environ", "says"),
    [
        (Compute(accelerator="cpu", devices=3), TORCHRUN, r"compute.devices \(=3\).*\(=4\)"),
        (Compute(accelerator="cpu", num_nodes=3), SLURM, r"compute.num_nodes \(=3\).*\(=2\)"),
        (Compute(accelerator="cpu"), {**SLURM, "SLURM_NTASKS": "5"}, "ntasks-per-node"),
    ],
)
def test_what_differs_from_the_launcher_is_refused(compute, environ, says):
    with pytest.raises(ValueError, match=says):
        compute.layout(environ)


@pytest.mark.parametrize(
    ("environ", "first"),
    [
        ({}, True),
        ({"LOCAL_RANK": "1"}, False),
        ({"NODE_RANK": "1", "LOCAL_RANK": "0"}, False),
        (TORCHRUN, False),
        ({**TORCHRUN, "RANK": "0"}, True),
        (SLURM, True),
        ({**SLURM, "SLURM_PROCID": "3"}, False),
    ],
)
def test_one_rank_is_the_first(environ, first):
    assert is_first(environ) is first


@pytest.mark.parametrize("options", [{"devices": -1}, {"shard": -2}, {"timeout_seconds": 0.0}])
def test_numbers_that_mean_nothing_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Compute(**options)
