"""`bigtrain doctor all-reduce`: the part of a rank in the doctor's all-reduce. The first one prints what came of it."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from bigtrain.cli.arguments import Parser
from bigtrain.cli.checks.machine import local_first
from bigtrain.cli.checks.ranks import SECONDS
from bigtrain.runtime.compute import Compute, launched
from bigtrain.runtime.launch import join, make_trainer, ranks
from bigtrain.runtime.world import World

#: Bytes that are summed: as the gradients of a large network, or of a small one.
BYTES = {"cuda": 256 << 20, "cpu": 16 << 20}
ROUNDS = 6


def run(arguments: Sequence[str]) -> int:
    """Joins the other ranks, sums, leaves."""
    parser = Parser(prog="bigtrain doctor all-reduce", description="One of the doctor's checks, a rank of it.")
    parser.add_argument("--accelerator", default="auto", help="as compute.accelerator")
    parser.add_argument("--devices", type=int, default=0, help="processes of this node, unless they were started")
    options = parser.parse_args(arguments)
    compute = Compute(
        options.accelerator, devices=options.devices, timeout_seconds=SECONDS, start_timeout_seconds=SECONDS
    )
    compute.apply()
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # NCCL chats where NCCL_DEBUG asks for it
    started = launched()
    lines = json.loads(sys.stdin.read()) if started else []
    with ranks(compute, ["doctor", "all-reduce", *arguments]):
        world, parallel = join(make_trainer(compute, Path()), compute)
        found = measure(world, parallel.device)
        found["nodes"] = _gathered(world, lines if started and local_first() and not world.is_first else [])
        if world.is_first:
            print(json.dumps(found), file=answer, flush=True)
        world.leave()
    return 0


def measure(world: World, device: torch.device) -> dict[str, Any]:
    """Seconds of the slowest rank for a sum over all, the median of some; whether it is right; and all clocks."""
    content = torch.empty(BYTES[device.type] // 4, device=device)
    total, right, seconds = world.size * (world.size + 1) / 2, True, []
    for _ in range(ROUNDS):
        content.fill_(world.rank + 1)
        _finish(device)
        world.wait()
        begun = time.perf_counter()
        dist.all_reduce(content)
        _finish(device)
        seconds.append(time.perf_counter() - begun)
        right &= bool((content == total).all())
    mine = sorted(seconds[1:])[len(seconds[1:]) // 2]  # the first one makes the connections
    world.wait()
    told = world.gather([time.time(), mine, right])
    return {
        "seconds": max(one for _, one, _ in told),
        "bytes": content.nbytes,
        "backend": dist.get_backend(),
        "right": all(one for _, _, one in told),
        "clocks": [one for one, _, _ in told],
    }


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _gathered(world: World, lines: list[Any]) -> dict[str, Any]:
    """What the first ranks of the other nodes have found, by node: as the bytes of a JSON, each a number."""
    node = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    mine = json.dumps([node, lines]).encode() if lines else b""
    texts = [bytes(map(int, row)) for row in world.gather_lists(list(mine))]
    return dict(json.loads(text) for text in texts if text)
