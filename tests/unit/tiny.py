"""A tiny game on made-up images, for tests that step it directly."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from unittest import mock

import numpy as np
import torch
from torch import nn

from bigtrain import randomness
from bigtrain.games import AdversarialGame, Player
from bigtrain.networks import (
    BigGANDeepDiscriminator,
    BigGANDeepGenerator,
    BigGANDiscriminator,
    BigGANGenerator,
    ProgressiveDiscriminator,
    ProgressiveGenerator,
)
from bigtrain.objectives import Hinge, NonSaturating
from bigtrain.regularizers import R1
from bigtrain.schedules import Constant, Progressive

CLASSES = 3


def adam(parameters):
    return torch.optim.Adam(parameters, lr=2e-3, betas=(0.0, 0.99))


def progressive_game(batch_size=8, d_steps=1, optimizer=adam, player_options=None, total_kimg=0.2, **options):
    """4² to 8², a new phase every 32 images."""
    networks = {"num_classes": CLASSES, "image_channels": 1, "fmap_base": 32, "fmap_max": 8}
    players = player_options or {}
    return AdversarialGame(
        Player(partial(ProgressiveGenerator, 8, latent_dim=6, **networks), optimizer, **players),
        Player(partial(ProgressiveDiscriminator, 8, **networks), optimizer, **players),
        options.pop("objective", NonSaturating()),
        Progressive([4, 8], batch_size, total_kimg, 0.032, 0.032, d_steps),
        options.pop("regularizers", [R1(1.0)]),
        **options,
    )


def biggan_game(batch_size=8, d_steps=2, player_options=None, **options):
    networks = {"num_classes": CLASSES, "image_channels": 1, "width": 2, "attention": [16]}
    players = player_options or {}
    return AdversarialGame(
        Player(partial(BigGANGenerator, 32, latent_dim=8, shared_dim=4, **networks), adam, **players),
        Player(partial(BigGANDiscriminator, 32, **networks), adam, **players),
        Hinge(),
        Constant(32, batch_size, 0.2, d_steps),
        joint_pass=True,
        **options,
    )


def biggan_deep_game(batch_size=8, player_options=None, **options):
    networks = {"num_classes": CLASSES, "image_channels": 1, "width": 4, "attention": [16]}
    players = player_options or {}
    return AdversarialGame(
        Player(partial(BigGANDeepGenerator, 32, latent_dim=6, shared_dim=4, **networks), adam, **players),
        Player(partial(BigGANDeepDiscriminator, 32, **networks), adam, **players),
        Hinge(),
        Constant(32, batch_size, 0.2),
        joint_pass=True,
        **options,
    )


def batch(game):
    """The images of the game's next step, by index."""
    moment = game.schedule.at(game.clock.images_seen)
    count, resolution = moment.phase.images_per_step, moment.resolution
    indices = range(moment.images_seen, moment.images_seen + count)
    pixels = randomness.words(0, "images", indices, resolution**2) % 256
    labels = randomness.words(0, "labels", indices, 1)[:, 0] % CLASSES
    return {
        "images": torch.from_numpy(pixels.astype(np.uint8).reshape(count, 1, resolution, resolution)),
        "labels": torch.from_numpy(labels.astype(np.int64)),
        "first": moment.images_seen,
    }


def play(game, steps):
    for i in range(steps):
        game.training_step(batch(game), i)
    return game


@contextlib.contextmanager
def compiled_quickly() -> Iterator[None]:
    """What is compiled here is so up to the graphs of forward and backward, which torch runs as they are."""
    inner = nn.Module.compile
    with mock.patch.object(nn.Module, "compile", lambda network: inner(network, backend="aot_eager")):
        yield
