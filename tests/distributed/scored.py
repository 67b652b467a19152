"""A training that is scored, as one rank of a pool plays it, or the only one."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from bigtrain.callbacks.evaluation import Evaluating
from bigtrain.callbacks.records import Records
from bigtrain.callbacks.scoring import Scorer
from bigtrain.callbacks.scoring_base import Measurement
from bigtrain.cli.reference import reference_shards
from bigtrain.evaluation import classifier
from bigtrain.games import AdversarialGame, Player
from bigtrain.networks import DCGANDiscriminator, DCGANGenerator
from bigtrain.objectives import NonSaturating
from bigtrain.runtime.parallel import Parallel, Strategy
from bigtrain.runtime.world import World
from bigtrain.schedules import Constant
from bigtrain.storage import Storage
from tests.distributed.cases import whole_state
from tests.unit.tiny import batch

#: Of each kind of statistic one.
METRICS = ["fid", "is", "recognition", "vendi", "kid_all", "recall", "ms_ssim"]
NUM, BATCH = 47, 5  # of two ranks one has a sample more, of eight most have none in their second batch


def make_game() -> AdversarialGame:
    """One with batch norm, in float64: on any number of ranks it trains alike."""
    networks = {"image_channels": 1, "num_classes": 10, "width": 2}
    optimizer = partial(torch.optim.Adam, lr=2e-3, betas=(0.5, 0.99))
    game = AdversarialGame(
        Player(partial(DCGANGenerator, 16, latent_dim=6, **networks), optimizer),
        Player(partial(DCGANDiscriminator, 16, **networks), optimizer),
        NonSaturating(),
        Constant(16, 16, 1.0),
        ema_half_life_kimg=0.05,
        class_counts=[1, 2, 3, 4, 5, 5, 4, 3, 2, 1],
    )
    return game.double()


def make_scorer(shards: str, spare: str | None = None) -> Scorer:
    """By a classifier of one epoch."""
    found, resolution = reference_shards(shards, None, 16)
    by = Measurement("classifier", batch_size=BATCH)
    return Scorer(found, resolution, by, None if spare is None else Storage(spare))


def trained(
    shards: str, records: str | None, strategy: Strategy = "single", shard: int = 0
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Two steps, scores unless there is no file for them, two more steps: the state after them, and the scores."""
    game = make_game()
    game.spread_over(Parallel(strategy, shard=shard))
    scores: dict[str, float] = {}
    for number in range(4):
        if number == 2 and records is not None:
            scores = _score(game, shards, records)
        whole, rank, world = batch(game), game.parallel.rank, game.parallel.world
        mine = {**whole, "images": whole["images"][rank::world], "labels": whole["labels"][rank::world]}
        game.training_step(mine, number)
    return whole_state(game), scores


def _score(game: AdversarialGame, shards: str, records: str) -> dict[str, float]:
    scorer, found = make_scorer(shards), []
    evaluating = Evaluating(0, scorer, Records(Path(records)), METRICS, NUM, 0.8, 2, world=World())
    score = scorer.score
    with (
        mock.patch.object(classifier, "MAX_EPOCHS", 1),
        mock.patch.object(scorer, "score", lambda *asked: found.append(score(*asked)) or found[-1]),
    ):
        evaluating.prepare()
        evaluating.act(SimpleNamespace(loggers=[]), game)  # type: ignore[arg-type]
    return {each.metric: each.value for each in found[0]}


def prepared(shards: str, spare: str | None, writable: bool) -> tuple[str, Tensor]:
    """The classifier's weights and the mean of its features on the real images, where the shards may be read only."""
    write = Storage.write

    def refuse(storage: Storage, *content: Any) -> Any:
        if storage.url == shards and not writable:
            raise OSError("read-only")
        return write(storage, *content)

    scorer = make_scorer(shards, spare)
    with mock.patch.object(classifier, "MAX_EPOCHS", 1), mock.patch.object(Storage, "write", refuse):
        scorer.prepare(["fid", "kid"], NUM, World())
    reference = scorer.reference(["fid", "kid"])
    assert reference is not None
    return scorer.extractor.weight_hash, reference.features.mean


def prepared_otherwise(shards: str) -> str:
    """What is said where rank 1 has another classifier."""
    scorer = make_scorer(shards)
    if World().rank == 1:
        scorer.extractor.weight_hash = "0" * 12
    try:
        scorer.prepare(["fid"], NUM, World())
    except ValueError as error:
        return str(error)
    return "nothing"


class FailsOnOneRank(nn.Module):
    """An extractor that one rank cannot use, as if its memory was full."""

    channels = 1

    def forward(self, images: Tensor) -> Tensor:
        if os.environ.get("LOCAL_RANK") == "1" and len(images) == 7:  # not of the reference
            raise ValueError("this rank's extractor fails")
        return nn.functional.avg_pool2d(images.float(), images.shape[-1] // 2).flatten(1)
