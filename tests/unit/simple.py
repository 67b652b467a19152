"""Players so simple that what they learn in a step can be written down, and the games that they play."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from bigtrain.games import AdversarialGame, AuxiliaryClassifierGame, Player
from bigtrain.networks import Discriminator, Generator
from bigtrain.schedules import Constant

PIXELS = 16
BATCH = 8
RATE = 0.05


def drawn(*shape, std=0.3):
    return nn.Parameter(std * torch.randn(shape))


class LinearGenerator(Generator):
    """G(z, y) = matrix z + shift_y; shift_y only with classes."""

    def __init__(self, num_classes=0):
        super().__init__(4, 1, num_classes, latent_dim=3)
        self.matrix = drawn(PIXELS, 3)
        self.shift = drawn(num_classes, PIXELS) if num_classes else None

    def forward(self, latent, label=None):
        flat = latent @ self.matrix.T
        if self.shift is not None:
            flat = flat + self.shift[self.needed_label(label)]
        return flat.reshape(-1, 1, 4, 4)


class LinearDiscriminator(Discriminator):
    """D(x) = linear · x + constant; with classes also a logit of each, classes x + class_constants."""

    def __init__(self, num_classes=0):
        super().__init__(4, 1, num_classes)
        self.linear, self.constant = drawn(PIXELS, std=0.6), drawn(1)
        if num_classes:
            self.classifies = True
            self.classes, self.class_constants = drawn(num_classes, PIXELS), drawn(num_classes)

    def logit(self, flat):
        return flat @ self.linear + self.constant

    def forward(self, images, label=None):
        flat = images.flatten(1)
        if not self.classifies:
            return self.logit(flat)
        return torch.cat((self.logit(flat)[:, None], flat @ self.classes.T + self.class_constants), dim=1)


class QuadraticDiscriminator(LinearDiscriminator):
    """½ xᵀ quadratic x more: its gradient depends on the image."""

    def __init__(self, num_classes=0):
        super().__init__(num_classes)
        self.quadratic = drawn(PIXELS, PIXELS, std=0.1)

    def logit(self, flat):
        return super().logit(flat) + (flat @ self.quadratic * flat).sum(dim=1) / 2


class TanhGenerator(LinearGenerator):
    """Two layers."""

    def __init__(self, num_classes=0):
        super().__init__(num_classes)
        self.second = drawn(PIXELS, PIXELS)

    def forward(self, latent, label=None):
        return torch.tanh(super().forward(latent, label).flatten(1) @ self.second).reshape(-1, 1, 4, 4)


class TanhDiscriminator(Discriminator):
    """Two layers."""

    def __init__(self, num_classes=0):
        super().__init__(4, 1, num_classes)
        self.classifies = num_classes > 0
        self.first, self.shift, self.second = drawn(5, PIXELS), drawn(5), drawn(1 + num_classes, 5, std=1.0)

    def forward(self, images, label=None):
        verdict = torch.tanh(images.flatten(1) @ self.first.T + self.shift) @ self.second.T
        return verdict if self.classifies else verdict.squeeze(1)


def simple_game(generator, discriminator, objective, classes=0, optimizer=None, weight_regularizers=None, **options):
    """In double precision, of steps in proportion to the gradients, with auxiliary classes if there are any."""
    optimizer = optimizer or partial(torch.optim.SGD, lr=RATE)
    game = AuxiliaryClassifierGame if classes else AdversarialGame
    return game(
        Player(partial(generator, classes), optimizer, weight_regularizers=weight_regularizers),
        Player(partial(discriminator, classes), optimizer, weight_regularizers=weight_regularizers),
        objective(),
        Constant(4, BATCH, 1.0),
        **options,
    ).double()


def prepared(game):
    """The game's first moment, for which its players are ready."""
    moment = game.schedule.at(0)
    for player in game.players.values():
        player.prepare(moment, game.schedule.total_images)
    return moment
