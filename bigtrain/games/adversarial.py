"""The game of one generator against one discriminator."""

from __future__ import annotations

from typing import Any, Literal, cast

import torch
from torch import Tensor

from bigtrain import randomness
from bigtrain.clock import images
from bigtrain.games.base import Batch, Game
from bigtrain.games.ema import EMA
from bigtrain.games.player import Player
from bigtrain.networks import Discriminator, Generator
from bigtrain.networks.base import Network
from bigtrain.objectives import Objective
from bigtrain.regularizers import Regularizer, Shown
from bigtrain.sampling.latents import Inputs
from bigtrain.sampling.pixels import fade, to_float
from bigtrain.schedules import Moment, Schedule


class AdversarialGame(Game):
    """D turns, then one G turn, then the generator's average.

    Args:
        generator: the player that makes images.
        discriminator: the player that tells them from real ones.
        objective: what both minimise.
        schedule: resolution, alpha and batch size in the course of training (set by the configuration's `schedule`).
        regularizers: penalties of the discriminator.
        accumulation: each batch is played in so many equal parts, whose gradients are averaged.
        joint_pass: whether real and fake images go through the discriminator in one batch (BigGAN) or two.
        fake_labels: labels of the fakes in D turns: `drawn` from the classes' frequencies, or those of the `real` ones.
        ema_half_life_kimg: of the average of the generator.
        ema_start_kimg: the average is a copy before that.
        seed: of everything random (set by the configuration's `seed`).
        class_counts: images of each class in the data, the frequencies of drawn labels (set by the data).
    """

    generator: Player
    discriminator: Player

    def __init__(
        self,
        generator: Player,
        discriminator: Player,
        objective: Objective,
        schedule: Schedule,
        regularizers: list[Regularizer] = [],  # noqa: B006 (read only)
        accumulation: int = 1,
        joint_pass: bool = False,
        fake_labels: Literal["drawn", "real"] = "drawn",
        ema_half_life_kimg: float = 10.0,
        ema_start_kimg: float = 0.0,
        seed: int = 0,
        class_counts: list[int] | None = None,
    ) -> None:
        super().__init__(schedule, seed)
        self.objective, self.regularizers = objective, regularizers
        self.accumulation, self.joint_pass, self.fake_labels = accumulation, joint_pass, fake_labels
        self.add_players(generator=generator, discriminator=discriminator)
        _check_kinds(generator.network, discriminator.network)
        self.ema = EMA(generator.network, images(ema_half_life_kimg), images(ema_start_kimg))
        self.class_counts = class_counts or [1] * self.generator_network.num_classes
        self._inputs = {
            turn: Inputs(seed, turn, self.generator_network.latent_dim, self.class_counts) for turn in self.player_names
        }
        _check_players(self.generator_network, self.discriminator_network)
        _check_schedule(schedule, self.generator_network, self.discriminator_network)
        _check_batches(schedule, accumulation, self.discriminator_network.batch_group)

    @property
    def generator_network(self) -> Generator:
        return cast(Generator, self.generator.network)

    @property
    def discriminator_network(self) -> Discriminator:
        return cast(Discriminator, self.discriminator.network)

    @property
    def average(self) -> Generator:
        """The generator's average: what is sampled, scored and shared."""
        return cast(Generator, self.ema.network)

    @property
    def weight(self) -> Tensor:
        """A weight of the generator, whose device and type the latents and images take."""
        return next(self.generator_network.parameters())

    def play(self, moment: Moment, batch: Batch) -> None:
        phase = moment.phase
        real, label = batch["images"], batch["labels"]
        for turn in range(phase.d_steps_per_g_step):
            part = slice(turn * phase.batch_size, (turn + 1) * phase.batch_size)
            self.discriminator_turn(moment, moment.images_seen + turn * phase.batch_size, real[part], label[part])
        self.generator_turn(moment)
        self.ema.update(self.generator_network, moment.images_seen, phase.images_per_step)

    def discriminator_turn(self, moment: Moment, first: int, real: Tensor, label: Tensor) -> None:
        """One discriminator update, with the real images of indices first, first + 1, …"""
        total = torch.zeros((), device=self.device)
        for part in self.parts(len(real)):
            shown = self.show(moment, range(first + part.start, first + part.stop), real[part], label[part])
            losses = {"adversarial": self.objective.discriminator(shown.real_logits, shown.fake_logits)}
            losses.update((regularizer.name, regularizer(shown)) for regularizer in self.regularizers)
            loss = torch.stack(list(losses.values())).sum() / self.accumulation
            loss.backward()
            total += loss.detach()
            self.measure(**{f"loss_d/{name}": value for name, value in losses.items()})
            self.measure(**{"logit/real": shown.real_logits, "logit/fake": shown.fake_logits})
        norm = self.discriminator.step(total, moment.images_seen)
        self.measure(**{"loss_d": total, "grad_norm_d": norm})

    def generator_turn(self, moment: Moment) -> None:
        """One generator update. The discriminator passes the gradient on to the images; its own is not computed."""
        total = torch.zeros((), device=self.device)
        for part in self.parts(moment.phase.batch_size):
            indices = range(moment.images_seen + part.start, moment.images_seen + part.stop)
            fake, label = self.generate(moment, "generator", indices)
            leaf = fake.detach().requires_grad_(True)
            loss = self.objective.generator(self.discriminate(moment, leaf, label)) / self.accumulation
            (gradient,) = torch.autograd.grad(loss, leaf)
            fake.backward(gradient)
            total += loss.detach()
        norm = self.generator.step(total, moment.images_seen)
        self.measure(**{"loss_g": total, "grad_norm_g": norm})

    def parts(self, size: int) -> list[slice]:
        """The equal parts in which a batch of that size is played."""
        length = size // self.accumulation
        return [slice(start, start + length) for start in range(0, size, length)]

    def show(self, moment: Moment, indices: range, real: Tensor, label: Tensor) -> Shown:
        """The discriminator's logits of real images and of as many fakes."""
        real = fade(to_float(real).to(self.weight), moment.alpha)
        real.requires_grad_(any(regularizer.of_real_logits for regularizer in self.regularizers))
        with torch.no_grad():
            given = label if self.fake_labels == "real" else None
            fake, fake_label = self.generate(moment, "discriminator", indices, given)
        if self.joint_pass:
            logits = self.discriminate(moment, torch.cat((real, fake)), torch.cat((label, fake_label)))
            real_logits, fake_logits = logits.chunk(2)
        else:
            real_logits = self.discriminate(moment, real, label)
            fake_logits = self.discriminate(moment, fake, fake_label)
        return Shown(
            real,
            fake,
            real_logits,
            fake_logits,
            discriminate=lambda x: self.discriminate(moment, x, label),
            uniform=lambda: torch.from_numpy(randomness.uniform(self.seed, "mix", indices)).to(fake),
        )

    def generate(self, moment: Moment, turn: str, indices: range, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Fakes of a player's turn and their labels; latents, and labels unless given, are addressed by the indices."""
        latent, drawn = self._inputs[turn](indices)
        label = drawn.to(self.device) if label is None else label
        place = self.place(moment, self.generator_network)
        return self.generator(latent.to(self.weight), label, **place).to(self.weight), label

    def discriminate(self, moment: Moment, shown: Tensor, label: Tensor) -> Tensor:
        """Logits in the type of the weights: a loss is not computed in half precision."""
        return self.discriminator(shown, label, **self.place(moment, self.discriminator_network)).to(self.weight)

    @staticmethod
    def place(moment: Moment, network: Generator | Discriminator) -> dict[str, Any]:
        """Where a growing network stands; nothing for the others."""
        return {"resolution": moment.resolution, "alpha": moment.alpha} if network.progressive else {}


def _check_kinds(generator: Network, discriminator: Network) -> None:
    for name, network, kind in (("generator", generator, Generator), ("discriminator", discriminator, Discriminator)):
        if not isinstance(network, kind):
            raise ValueError(f"{name}.network makes a {type(network).__name__}, which is not a {kind.__name__}")


def _check_players(generator: Generator, discriminator: Discriminator) -> None:
    for name in ("resolution", "image_channels", "num_classes"):
        of_generator, of_discriminator = getattr(generator, name), getattr(discriminator, name)
        if of_generator != of_discriminator:
            raise ValueError(
                f"{name} must be the same for both players: it is {of_generator} for the generator and "
                f"{of_discriminator} for the discriminator"
            )


def _check_schedule(schedule: Schedule, generator: Generator, discriminator: Discriminator) -> None:
    for network in (generator, discriminator):
        name, own = type(network).__name__, network.resolution
        if network.progressive and max(schedule.resolutions) > own:
            raise ValueError(f"the schedule's resolutions {schedule.resolutions} go beyond those of {name} (={own})")
        if not network.progressive and schedule.resolutions != [own]:
            raise ValueError(f"{name} does not grow: the schedule's resolutions {schedule.resolutions} must be [{own}]")


def _check_batches(schedule: Schedule, accumulation: int, group: int) -> None:
    if accumulation < 1:
        raise ValueError(f"accumulation (={accumulation}) must be at least 1")
    for phase in schedule.phases:
        if phase.batch_size % accumulation:
            raise ValueError(
                f"batch_size (={phase.batch_size}) at {phase.resolution}² must be a multiple of accumulation "
                f"(={accumulation}); nearest: {_multiples(phase.batch_size, accumulation)}"
            )
        part = phase.batch_size // accumulation
        if part % group and part > group:
            raise ValueError(
                f"batch_size / accumulation (={part}) at {phase.resolution}² must be a multiple of the "
                f"discriminator's stddev_group (={group}); nearest: {_multiples(part, group)}"
            )


def _multiples(value: int, of: int) -> str:
    """The multiples next to a value, for a message."""
    return " or ".join(str(m) for m in (value // of * of, (value // of + 1) * of) if m)
