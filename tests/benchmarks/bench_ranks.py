"""What spreading a game over ranks costs: `python tests/benchmarks/bench_ranks.py`.

Bytes that two ranks reduce in a step, over the bytes of the gradients that are needed, for bigtrain and for Lightning's
own wrapper around both networks; memory of a rank under ddp and fsdp; and the time that a checkpoint takes from the
training, over that of a step.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from bigtrain.checkpoints import Checkpoints
from bigtrain.games import AdversarialGame, Player
from bigtrain.networks import BigGANDiscriminator, BigGANGenerator
from bigtrain.objectives import Hinge
from bigtrain.runtime.parallel import Parallel, Strategy, local
from bigtrain.runtime.world import World
from bigtrain.schedules import Constant
from bigtrain.storage import Storage
from tests.distributed.cases import Case, counted, make, play
from tests.distributed.ranks import Ranks
from tests.unit.tiny import CLASSES, batch

STEPS = 4
CASE = Case("non-saturating + R1", dtype=torch.float32)
MIB = 2**20


def needed() -> int:
    """Bytes of both networks' gradients, once a step."""
    game = make(CASE)
    return STEPS * sum(4 * p.numel() for player in game.players.values() for p in player.network.parameters())


def ours(strategy: Strategy) -> Counter[str]:
    return play(CASE, strategy, steps=STEPS)[1]


class Both(nn.Module):
    """Both networks in one module, as a LightningModule holds them."""

    def __init__(self, game: AdversarialGame) -> None:
        super().__init__()
        self.generator, self.discriminator = game.generator.network, game.discriminator.network

    def forward(self, latent: torch.Tensor, label: torch.Tensor, real: torch.Tensor | None) -> torch.Tensor:
        fake = self.generator(latent, label)
        if real is None:
            return -self.discriminator(fake, label).mean()
        return self.discriminator(fake.detach(), label).mean() - self.discriminator(real, label).mean()


def lightnings() -> Counter[str]:
    """The one wrapper that works for two optimizers: find_unused_parameters=True."""
    game, counts = make(CASE), Counter[str]()
    wrapper = DistributedDataParallel(Both(game), find_unused_parameters=True)
    latent, label = torch.randn(16, 6), torch.zeros(16, dtype=torch.int64)
    with counted(counts):
        for _ in range(STEPS):
            for real in (torch.randn(16, 1, 8, 8), None):
                wrapper(latent, label, real).backward()
                for player in game.players.values():
                    player.network.zero_grad()
    return counts


def biggan() -> AdversarialGame:
    """A BigGAN at 32² whose weights take 100 MiB and whose activations take little."""
    sizes = {"num_classes": CLASSES, "image_channels": 1, "width": 96, "attention": []}
    adam = partial(torch.optim.Adam, lr=1e-4, betas=(0.0, 0.999))
    return AdversarialGame(
        Player(partial(BigGANGenerator, 32, latent_dim=80, **sizes), adam),
        Player(partial(BigGANDiscriminator, 32, **sizes), adam),
        Hinge(),
        Constant(32, 4, 1.0),
        joint_pass=True,
    )


def resident(field: str = "VmRSS") -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def memory(strategy: Strategy) -> dict[str, float]:
    """MiB that a rank holds between steps, and at most more than before the networks were made."""
    before = resident()
    game = biggan()
    game.spread_over(Parallel(strategy))
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
    world, rank = game.parallel.world, game.parallel.rank
    for number in range(2):
        whole = batch(game)
        mine = {**whole, "images": whole["images"][rank::world], "labels": whole["labels"][rank::world]}
        game.training_step(mine, number)
    held = sum(piece.tensor.numel() * piece.tensor.element_size() for piece in game.training_state().values())
    weights = {
        name: sum(4 * local(p).numel() for p in game.players[name].network.parameters()) for name in game.players
    }
    return {
        "weights of G": weights["generator"] / MIB,
        "weights of D": weights["discriminator"] / MIB,
        "weights, optimizers, average": held / MIB,
        "peak over the start": resident("VmHWM") - before,
    }


def saving(folder: str) -> tuple[float, float]:
    """Seconds that a save keeps this rank, and those of a step."""
    game = biggan()
    game.spread_over(Parallel("fsdp"))
    world, rank = game.parallel.world, game.parallel.rank
    checkpoints = Checkpoints(Storage(Path(folder) / "checkpoints"), world=World())
    steps, saves = [], []
    for number in range(6):
        whole = batch(game)
        mine = {**whole, "images": whole["images"][rank::world], "labels": whole["labels"][rank::world]}
        begun = time.perf_counter()
        game.training_step(mine, number)
        steps.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        checkpoints.save(game.clock.images_seen, game.training_state(), {})
        saves.append(time.perf_counter() - begun)
        time.sleep(2)  # until it is written: at any real cadence it is
        checkpoints.finish()
    return sorted(saves)[3], sorted(steps)[3]


def formula(world: int) -> None:
    """Of BigGAN at 256², from the numbers of its weights."""
    with torch.device("meta"):
        generator = sum(
            p.numel() for p in BigGANGenerator(256, num_classes=1000, latent_dim=119, init="normal").parameters()
        )
        discriminator = sum(p.numel() for p in BigGANDiscriminator(256, num_classes=1000, init="normal").parameters())
    for name, part in (("ddp", 1), (f"fsdp over {world}", world)):
        rest = 4 * (4 * generator + 3 * discriminator) / part  # weights, two moments; the average of G
        turn = 4 * max(2 * generator + (discriminator if part > 1 else 0), 2 * discriminator)
        extra = turn if part > 1 else 4 * (generator + discriminator)
        print(
            f"BigGAN-256 (G {generator / 1e6:.1f}, D {discriminator / 1e6:.1f} million weights), {name}: "
            f"{rest / MIB:.0f} MiB held, {extra / MIB:.0f} MiB more in a turn, beside activations"
        )


def main() -> None:
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as name:
        ranks = Ranks(2, Path(name))
        ideal = needed()
        print(f"ddp: {ranks.run(ours, 'ddp')[0]['allreduce bytes'] / ideal:.2f} of the bytes that are needed")
        print(f"Lightning's wrapper: {ranks.run(lightnings)[0]['allreduce bytes'] / ideal:.2f}")
        counts = ranks.run(ours, "fsdp")[0]
        print(f"fsdp: {counts['reduce_scatter_base'] / (2 * STEPS):.2f} reductions a turn")
        save, step = ranks.run(saving, name)[0]
        print(f"a checkpoint keeps the training for {1000 * save:.0f} ms, a step takes {1000 * step:.0f} ms")
        ranks.close()
        for strategy in ("ddp", "fsdp"):
            ranks = Ranks(2, Path(name) / strategy)
            print(strategy, {what: f"{mib:.0f} MiB" for what, mib in ranks.run(memory, strategy)[0].items()})
            ranks.close()
    formula(8)


if __name__ == "__main__":
    main()
