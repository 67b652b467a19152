"""The list of checks, in the order of the report."""

from __future__ import annotations

from bigtrain.cli.checks.check import Check
from bigtrain.cli.checks.gpus import driver, gpus
from bigtrain.cli.checks.machine import limits, memory, shared_memory
from bigtrain.cli.checks.networks import compute, networks
from bigtrain.cli.checks.ranks import SECONDS, all_reduce
from bigtrain.cli.checks.shards import labels, shards
from bigtrain.cli.checks.slurm import slurm
from bigtrain.cli.checks.software import software
from bigtrain.cli.checks.space import cache, disk
from bigtrain.cli.checks.stores import clock, kept, storage
from bigtrain.cli.checks.weights import weights

CHECKS = (
    Check("versions", software, of_node=True),
    Check("GPUs", gpus, of_node=True),
    Check("driver", driver, of_node=True),
    Check("memory", memory, of_node=True),
    Check("shared memory", shared_memory, of_node=True),
    Check("limits", limits, of_node=True),
    Check("compute", compute, of_run=True),
    Check("all-reduce", all_reduce, SECONDS + 10),
    Check("SLURM", slurm),
    Check("networks", networks, of_run=True),
    Check("disk", disk, of_run=True),
    Check("cache", cache, of_node=True, of_run=True),
    Check("clock", clock, of_run=True),
    Check("storage", storage, of_run=True),
    Check("evaluation", kept, of_run=True),
    Check("shards", shards, 180, of_run=True),
    Check("labels", labels, 180, of_run=True),
    Check("weights", weights, of_run=True),
)
