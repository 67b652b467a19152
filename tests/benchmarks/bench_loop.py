"""What bigtrain's loop costs over a bare PyTorch loop of the same step: `python tests/benchmarks/bench_loop.py`.

Both play quickstart's game at full growth on the same digits, in turns, in one process. The bare loop has the images in
memory and draws its latents by torch.randn; bigtrain's reads shards, decodes, addresses every latent, checks every loss
and gradient for being finite, and records metrics and throughput as `bigtrain fit` does.
"""

from __future__ import annotations

import logging
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path

import torch
import yaml
from lightning import Callback, Trainer
from torch.nn import functional as F

from bigtrain.callbacks.metrics import Metrics
from bigtrain.callbacks.progress import TrainingProgress
from bigtrain.callbacks.records import Records
from bigtrain.callbacks.throughput import Throughput
from bigtrain.cli.configuration import instantiate, make_parser, parse
from bigtrain.cli.main import main as bigtrain
from bigtrain.games.ema import EMA

ROUNDS, STEPS, BATCH = 7, 40, 32
ROOT = Path(__file__).parent.parent.parent


class Stopwatch(Callback):
    """Notes the end of each step."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, *_: object) -> None:
        self.ends.append(time.perf_counter())


def build(shards: Path, folder: Path):
    """Quickstart's game and data at one resolution, for STEPS steps."""
    config = yaml.safe_load((ROOT / "configs/quickstart.yaml").read_text())
    length = BATCH * STEPS / 1000
    arguments = {"resolution": 16, "batch_size": BATCH, "total_kimg": length}
    config["schedule"] = {"class_path": "Constant", "init_args": arguments}
    for player in ("generator", "discriminator"):  # a constant schedule wants networks of its resolution
        assert config["game"]["init_args"][player]["network"]["init_args"]["resolution"] == 16
    config["data"]["url"] = str(shards)
    file = folder / "bench.yaml"
    file.write_text(yaml.safe_dump(config))
    parser = make_parser()
    return instantiate(parser, parse(parser, ["--config", str(file)]))


def bigtrain_seconds(shards: Path, folder: Path) -> float:
    """Seconds a step in `bigtrain fit`'s loop, the first steps left out."""
    built, watch = build(shards, folder), Stopwatch()
    callbacks = [
        Throughput(1.0, Records(folder / "throughput.jsonl")),
        Metrics(1.0, Records(folder / "metrics.jsonl")),
        TrainingProgress(),
        watch,
    ]
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=1,
        logger=False,
        callbacks=callbacks,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(built.game, built.data)
    return (watch.ends[-1] - watch.ends[4]) / (len(watch.ends) - 5)


def bare_seconds(shards: Path, folder: Path) -> float:
    """Seconds a step in a plain loop over the same networks, loss, penalty, optimizers and average."""
    built = build(shards, folder)
    game = built.game
    generator, discriminator = game.generator_network, game.discriminator_network
    weight = game.regularizers[0].weight
    g_optimizer, d_optimizer = game.generator.optimizer, game.discriminator.optimizer
    ema = EMA(generator, 5000)
    images, labels = built.data.reader.read([(0, i) for i in range(BATCH * 8)], 16)
    data = torch.from_numpy(images).float() / 127.5 - 1
    targets = torch.from_numpy(labels)
    ends = []
    for step in range(STEPS):
        part = slice(step % 8 * BATCH, (step % 8 + 1) * BATCH)
        real, label = data[part].clone().requires_grad_(True), targets[part]
        fake_label = torch.randint(0, 10, (BATCH,))
        with torch.no_grad():
            fake = generator(torch.randn(BATCH, generator.latent_dim), fake_label)
        real_logits, fake_logits = discriminator(real.detach(), label), discriminator(fake, fake_label)
        (gradient,) = torch.autograd.grad(discriminator(real, label).sum(), real, create_graph=True)
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
    return (ends[-1] - ends[4]) / (len(ends) - 5)


def main() -> None:
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    if len(sys.argv) > 1:
        torch.set_num_threads(int(sys.argv[1]))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shards = folder / "digits"
        bigtrain(["shards", "build", "digits:", str(shards), "--resolutions", "4,8,16", "--workers", "1"])
        pairs = [(bigtrain_seconds(shards, folder), bare_seconds(shards, folder)) for _ in range(ROUNDS)]
    for ours, bare in pairs:
        print(f"bigtrain {1000 * ours:.2f} ms  bare {1000 * bare:.2f} ms  ratio {ours / bare:.3f}")
    ratios = [ours / bare for ours, bare in pairs]
    print(
        f"bigtrain's loop over a bare one, {torch.get_num_threads()} threads: {statistics.median(ratios):.3f} (median)"
    )


if __name__ == "__main__":
    main()
