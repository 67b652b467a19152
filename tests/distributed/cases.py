"""The cases of the invariant matrix, and how each is played on the ranks of a pool or by one process."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
import torch.distributed as dist
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bigtrain.games import AdversarialGame, AuxiliaryClassifierGame, Player
from bigtrain.networks import (
    BigGANDiscriminator,
    BigGANGenerator,
    ProgressiveDiscriminator,
    ProgressiveGenerator,
    SNGANDiscriminator,
    SNGANGenerator,
)
from bigtrain.objectives import Hinge, NonSaturating, Objective, Wasserstein
from bigtrain.regularizers import R1, ApproximateR1, Drift, GradientPenalty, OrthogonalReg, Regularizer
from bigtrain.runtime.parallel import Parallel, Strategy
from bigtrain.schedules import Constant, Progressive, Schedule
from tests.unit.tiny import CLASSES, batch, compiled_quickly

BATCH, STEPS = 32, 10
METHODS: dict[str, tuple[type[Objective], list[Regularizer]]] = {
    "hinge": (Hinge, []),
    "non-saturating + R1": (NonSaturating, [R1(1.0)]),
    "WGAN-GP": (Wasserstein, [GradientPenalty(10.0), Drift(1e-3)]),
}
OTHER_METHODS: dict[str, tuple[type[Objective], list[Regularizer]]] = {
    "non-saturating + approximate R1": (NonSaturating, [ApproximateR1(1.0, 0.1)]),
}


class Case(NamedTuple):
    """One cell of the matrix."""

    method: str
    accumulation: int = 1
    growth: bool = False
    networks: str = "progressive"
    d_steps: int = 1
    max_grad_norm: float | None = None
    stddev_group: int | None = 2
    dtype: torch.dtype = torch.float64
    recompute: bool = False
    compile: bool = False
    orthogonal_reg: bool = False
    stddev: Literal["original", "gan_zoo"] = "original"
    classifier: bool = False

    @property
    def name(self) -> str:
        return "-".join(str(part) for part in self).replace(" ", "")


def make(case: Case) -> AdversarialGame:
    """The game of a case, for one process."""
    objective, regularizers = (METHODS | OTHER_METHODS)[case.method]
    common = {"num_classes": CLASSES, "image_channels": 1}
    optimizer = partial(torch.optim.Adam, lr=5e-4, betas=(0.5, 0.99), eps=1e-4)
    options: dict[str, Any] = {
        "max_grad_norm": case.max_grad_norm,
        "recompute": case.recompute,
        "compile": case.compile,
        "weight_regularizers": [OrthogonalReg(0.01)] if case.orthogonal_reg else [],
    }
    conditioning: Literal["projection", "classifier"] = "classifier" if case.classifier else "projection"
    schedule: Schedule
    if case.networks == "progressive":
        sizes = {**common, "fmap_base": 32, "fmap_max": 8}
        generator = Player(partial(ProgressiveGenerator, 8, latent_dim=6, **sizes), optimizer, **options)
        discriminator = Player(
            partial(
                ProgressiveDiscriminator,
                8,
                stddev_group=case.stddev_group,
                stddev=case.stddev,
                conditioning=conditioning,
                **sizes,
            ),
            optimizer,
            **options,
        )
        step = BATCH * case.d_steps
        schedule = (
            Progressive([4, 8], BATCH, STEPS * step / 1000, 3 * step / 1000, 3 * step / 1000, case.d_steps)
            if case.growth
            else Constant(8, BATCH, STEPS * step / 1000, case.d_steps)
        )
    elif case.networks == "sngan":
        sizes = {**common, "width": 2}
        generator = Player(partial(SNGANGenerator, 32, latent_dim=6, **sizes), optimizer, **options)
        discriminator = Player(
            partial(SNGANDiscriminator, 32, conditioning=conditioning, **sizes), optimizer, **options
        )
        schedule = Constant(32, BATCH, 1.0, case.d_steps)
    else:
        sizes = {**common, "width": 2, "attention": [16]}
        generator = Player(partial(BigGANGenerator, 32, latent_dim=8, shared_dim=4, **sizes), optimizer, **options)
        discriminator = Player(partial(BigGANDiscriminator, 32, **sizes), optimizer, **options)
        schedule = Constant(32, BATCH, 1.0, case.d_steps)
    with compiled_quickly():
        game = (AuxiliaryClassifierGame if case.classifier else AdversarialGame)(
            generator,
            discriminator,
            objective(),
            schedule,
            regularizers=regularizers,
            accumulation=case.accumulation,
            joint_pass=case.networks != "progressive",
            ema_half_life_kimg=0.1,
        )
    return game.to(case.dtype)


def play(
    case: Case, strategy: Strategy = "single", shard: int = 0, steps: int = STEPS
) -> tuple[dict[str, torch.Tensor], Counter[str]]:
    """Plays some steps. Returns whole networks, averages and optimizers, and what was called and reduced how often."""
    game = make(case)
    counts: Counter[str] = Counter()
    game.spread_over(Parallel(strategy, shard=shard))
    for name, player in game.players.items():
        player.network.register_forward_pre_hook(lambda *_, name=name: counts.update([f"{name} forward"]))
        player.optimizer.register_step_post_hook(lambda *_, name=name: counts.update([f"{name} step"]))
    world, rank = game.parallel.world, game.parallel.rank
    with counted(counts):
        for number in range(steps):
            whole = batch(game)
            mine = {**whole, "images": whole["images"][rank::world], "labels": whole["labels"][rank::world]}
            game.training_step(mine, number)
    return whole_state(game), counts


def whole_state(game: AdversarialGame) -> dict[str, torch.Tensor]:
    """Every tensor of the training state, put together from the pieces of all ranks."""
    pieces = game.training_state()
    if game.parallel.world == 1:
        return {name: piece.tensor.clone() for name, piece in pieces.items()}
    wholes = {}
    for name, piece in pieces.items():
        whole = torch.zeros(piece.shape, dtype=piece.tensor.dtype)
        share = piece.tensor / len(piece.holders) if piece.tensor.is_floating_point() else piece.tensor
        if piece.tensor.is_floating_point() or game.parallel.rank == 0:
            if piece.shape:
                whole[piece.start : piece.start + len(piece.tensor)] = share
            else:
                whole.copy_(share)
        dist.all_reduce(whole)
        wholes[name] = whole
    return wholes


class counted(TorchDispatchMode):  # noqa: N801 (reads as a function)
    """Counts the calls of collectives and the bytes that they carry, under whatever strategy asks for them."""

    def __init__(self, counts: Counter[str]) -> None:
        super().__init__()
        self.counts = counts

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "c10d":
            name = func.name().removeprefix("c10d::").split(".")[0].strip("_")
            tensors = [leaf for leaf in tree_leaves(args) if isinstance(leaf, torch.Tensor)]
            self.counts[name] += 1
            self.counts[f"{name} bytes"] += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        return func(*args, **(kwargs or {}))
