"""Whole commands in processes of their own, on small shards: for tests of runs, and of runs that are killed."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
#: One thread: sums are rounded in another order with two.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "default"}

#: Kills its own process (SIGKILL) at the n-th call of a method, before or after it, then is `bigtrain` otherwise.
KILLER = """
import functools, importlib, os, signal, sys
target, when, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
module, name, method = target.rsplit(".", 2)
owner = getattr(importlib.import_module(module), name)
original, calls = getattr(owner, method), 0
@functools.wraps(original)
def wrapped(*arguments, **options):
    global calls
    calls += 1
    if calls == count and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    result = original(*arguments, **options)
    if calls == count and when == "after":
        os.kill(os.getpid(), signal.SIGKILL)
    return result
setattr(owner, method, wrapped)
from bigtrain.cli.main import main
raise SystemExit(main(sys.argv[4:]))
"""


def bigtrain(*arguments: object, kill: tuple[str, str, int] | None = None, **options) -> subprocess.CompletedProcess:
    """Runs `bigtrain` with these arguments on one thread; `kill` names a method, before or after, and which call."""
    start = [sys.executable, "-m", "bigtrain"] if kill is None else [sys.executable, "-c", KILLER, *map(str, kill)]
    command = [*start, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, cwd=ROOT, check=False, **options)


#: A shell's background jobs ignore SIGINT, and so would everything that a test starts there.
LISTENER = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from bigtrain.cli.main import main
raise SystemExit(main(sys.argv[1:]))
"""


def begin(*arguments: object, environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """Starts `bigtrain` with these arguments in a session of its own, and does not wait for it."""
    return subprocess.Popen(
        [sys.executable, "-c", LISTENER, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**ENVIRONMENT, **(environment or {})},
        cwd=ROOT,
        start_new_session=True,
    )


def tiny_config(shards: Path, **top) -> dict:
    """A growing conditional game on digits that ends after 0.48 kimg: 4², a transition, 8²."""
    networks = {"resolution": 8, "image_channels": 1, "num_classes": 10, "fmap_base": 32, "fmap_max": 8}
    adam = {"class_path": "torch.optim.Adam", "init_args": {"lr": 2e-3, "betas": [0.0, 0.99]}}
    return {
        "seed": 3,
        "schedule": {
            "class_path": "Progressive",
            "init_args": {
                "resolutions": [4, 8],
                "batch_size": 8,
                "total_kimg": 0.48,
                "transition_kimg": 0.16,
                "stabilize_kimg": 0.16,
                "d_steps_per_g_step": 2,
            },
        },
        "game": {
            "class_path": "AdversarialGame",
            "init_args": {
                "generator": {
                    "network": {"class_path": "ProgressiveGenerator", "init_args": {**networks, "latent_dim": 6}},
                    "optimizer": adam,
                },
                "discriminator": {
                    "network": {"class_path": "ProgressiveDiscriminator", "init_args": networks},
                    "optimizer": adam,
                },
                "objective": {"class_path": "NonSaturating"},
                "regularizers": [{"class_path": "R1", "init_args": {"weight": 1.0}}],
                "ema_half_life_kimg": 0.1,
            },
        },
        "data": {"url": str(shards), "mirror": True},
        "cadences": {"metrics_kimg": 0.032, "samples_kimg": 0.16, "checkpoint_kimg": 0.064, "num_samples": 20},
        "evaluation": {"every_kimg": 0.16, "num": 60, "batch_size": 30},
        **top,
    }


def write_config(path: Path, config: dict) -> Path:
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def children(pid: int) -> list[int]:
    """The processes that a process has started and that are still there, by number."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended
            if int((process / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(process.name))
    return sorted(found)
