"""`bigtrain sample` as one rank of a pool does it, or the only one."""

from __future__ import annotations

import torch

from bigtrain.cli import sample, sample_kinds
from bigtrain.cli.processes import Rank
from bigtrain.runtime.watch import Watch
from bigtrain.runtime.world import World
from bigtrain.snapshots import load_snapshot

#: Of --as: the ending of a name.
ENDINGS = {"grid": ".png", "folder": "", "zip": ".zip", "npz": ".npz", "shards": "-shards"}


def make(snapshot: str, out: str, form: str, *options: str) -> str:
    """Makes 45 samples in batches of 8, the last of which is not whole, and says what a rank says of it."""
    arguments = [snapshot, "--out", out + ENDINGS[form], "--as", form, "--num", "45", "--batch", "8", *options]
    parsed = sample._parser().parse_args(arguments)
    sample._settle(parsed)
    parsed.labels = [3, 1, 4]
    found, world = load_snapshot(snapshot), World()
    rank = Rank(world, torch.device("cpu"), Watch(world))
    return sample_kinds.MAKERS["samples"](parsed, sample_kinds.sampler_of(parsed, found, rank.device), found, rank)
