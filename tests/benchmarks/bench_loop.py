"""What bigtrain's loop costs over bare PyTorch loops: `python tests/benchmarks/bench_loop.py [threads]`.

All play a recipe's game at full growth on the same digits, in turns, in one process: quickstart's, whose nets are the
smallest that are good for anything, and that of Fashion-MNIST. `plain` is a for loop over batches in memory that calls
the game's own step: what bigtrain adds to it is reading shards (decoding in the first epoch; the digits fit into memory
after it), Lightning and the callbacks of `bigtrain fit`. In `bare` the step is written by hand too: without addressed
latents and labels, without a check that losses and gradients are finite, and without measuring anything.
"""

from __future__ import annotations

import logging
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import torch
import yaml
from lightning import Callback
from torch.nn import functional as F

from bigtrain.callbacks.metrics import Metrics
from bigtrain.callbacks.progress import TrainingProgress
from bigtrain.callbacks.records import Records
from bigtrain.callbacks.throughput import Throughput
from bigtrain.callbacks.utilization import Utilization
from bigtrain.cli.configuration import instantiate, make_parser, parse
from bigtrain.cli.main import main as bigtrain
from bigtrain.data.batches import to_tensor
from bigtrain.games.ema import EMA
from bigtrain.runtime.compute import Compute
from bigtrain.runtime.launch import make_trainer
from bigtrain.runtime.world import World
from bigtrain.sampling.pixels import to_float

ROUNDS, BATCH = 3, 32
RECIPES = ("quickstart", "progan_fashion32")
EPOCH, STEPS = 57, 130  # 1,797 digits are 57 steps
ROOT = Path(__file__).parent.parent.parent


class Seconds(NamedTuple):
    """Mean of a step in the first epoch (the very first steps left out) and after it."""

    first_epoch: float
    later: float


def per_step(ends: list[float]) -> Seconds:
    return Seconds((ends[EPOCH] - ends[4]) / (EPOCH - 4), (ends[-1] - ends[EPOCH]) / (len(ends) - 1 - EPOCH))


class Stopwatch(Callback):
    """Notes the end of each step."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, *_: object) -> None:
        self.ends.append(time.perf_counter())


def build(recipe: str, shards: Path, folder: Path):
    """A recipe's game, and the digits at its full resolution, for STEPS steps."""
    config = yaml.safe_load((ROOT / f"configs/{recipe}.yaml").read_text())
    resolution = config["game"]["init_args"]["generator"]["network"]["init_args"]["resolution"]
    length = BATCH * STEPS / 1000
    arguments = {"resolution": resolution, "batch_size": BATCH, "total_kimg": length}
    config["schedule"] = {"class_path": "Constant", "init_args": arguments}
    config["data"]["url"] = str(shards)
    file = folder / "bench.yaml"
    file.write_text(yaml.safe_dump(config))
    parser = make_parser()
    return instantiate(parser, parse(parser, ["--config", str(file)]))


def bigtrain_seconds(recipe: str, shards: Path, folder: Path) -> Seconds:
    """A step of `bigtrain fit`'s loop."""
    built, watch = build(recipe, shards, folder), Stopwatch()
    callbacks = [
        Throughput(1.0, Records(folder / "throughput.jsonl"), Utilization(None, "32-true", False)),
        Metrics(1.0, Records(folder / "metrics.jsonl"), World()),
        TrainingProgress(),
        watch,
    ]
    trainer = make_trainer(Compute(accelerator="cpu"), folder)
    trainer.callbacks.extend(callbacks)
    trainer.fit(built.game, built.data)
    return per_step(watch.ends)


def bare_seconds(recipe: str, shards: Path, folder: Path) -> Seconds:
    """A step of a plain loop over the same networks, loss, penalty, optimizers and average."""
    built = build(recipe, shards, folder)
    game = built.game
    generator, discriminator = game.generator_network, game.discriminator_network
    weight = game.regularizers[0].weight
    g_optimizer, d_optimizer = game.generator.optimizer, game.discriminator.optimizer
    ema = EMA(generator, 5000)
    images, labels = built.data.reader.read([(0, i) for i in range(BATCH * 8)], generator.resolution)
    data = to_float(to_tensor(images))
    targets = torch.from_numpy(labels)
    ends = []
    for step in range(STEPS):
        part = slice(step % 8 * BATCH, (step % 8 + 1) * BATCH)
        real, label = data[part].clone().requires_grad_(True), targets[part]
        fake_label = torch.randint(0, 10, (BATCH,))
        with torch.no_grad():
            fake = generator(torch.randn(BATCH, generator.latent_dim), fake_label)
        real_logits, fake_logits = discriminator(real, label), discriminator(fake, fake_label)
        (gradient,) = torch.autograd.grad(real_logits.sum(), real, create_graph=True)
        loss = F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()
        (loss + weight / 2 * gradient.square().sum(dim=(1, 2, 3)).mean()).backward()
        d_optimizer.step()
        d_optimizer.zero_grad()
        fake_label = torch.randint(0, 10, (BATCH,))
        discriminator.requires_grad_(False)
        fake = generator(torch.randn(BATCH, generator.latent_dim), fake_label)
        F.softplus(-discriminator(fake, fake_label)).mean().backward()
        discriminator.requires_grad_(True)
        g_optimizer.step()
        g_optimizer.zero_grad()
        ema.update(generator, step * BATCH, BATCH)
        ends.append(time.perf_counter())
    return per_step(ends)


def plain_seconds(recipe: str, shards: Path, folder: Path) -> Seconds:
    """A step of the game itself, on batches in memory, in a for loop."""
    built, ends = build(recipe, shards, folder), []
    for number, batch in enumerate(list(built.data.batches(0))):
        built.game.training_step(batch, number)
        ends.append(time.perf_counter())
    return per_step(ends)


def main() -> None:
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    if len(sys.argv) > 1:
        torch.set_num_threads(int(sys.argv[1]))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shards = folder / "digits"
        bigtrain(["shards", "build", "digits:", str(shards), "--resolutions", "16,32", "--workers", "1"])
        for recipe in RECIPES:
            report(recipe, [measure(recipe, shards, folder, turn) for turn in range(ROUNDS)])


LOOPS = {"bigtrain": bigtrain_seconds, "plain": plain_seconds, "bare": bare_seconds}


def measure(recipe: str, shards: Path, folder: Path, turn: int) -> dict[str, Seconds]:
    """All loops, each time another one first."""
    names = list(LOOPS)
    rotated = names[turn % len(names) :] + names[: turn % len(names)]
    return {name: LOOPS[name](recipe, shards, folder) for name in rotated}


def report(recipe: str, rounds: list[dict[str, Seconds]]) -> None:
    for epoch in Seconds._fields:
        seconds = {name: [getattr(one[name], epoch) for one in rounds] for name in LOOPS}
        times = "  ".join(f"{name} {1000 * statistics.median(values):.2f} ms" for name, values in seconds.items())
        ratios = [
            f"{statistics.median(a / b for a, b in zip(seconds['bigtrain'], seconds[name], strict=True)):.3f} of {name}"
            for name in ("plain", "bare")
        ]
        print(f"{recipe}, {epoch}: {times}; ratio {', '.join(ratios)} (medians, {torch.get_num_threads()} threads)")


if __name__ == "__main__":
    main()
