"""The game of one generator against one discriminator."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Literal, cast

import torch
from torch import Tensor

from bigtrain import randomness
from bigtrain.clock import images
from bigtrain.games.base import Batch, Game
from bigtrain.games.checks import (
    check_batches,
    check_classifier,
    check_compiled,
    check_kinds,
    check_players,
    check_schedule,
    difference,
)
from bigtrain.games.ema import EMA
from bigtrain.games.loss_scale import LossScale
from bigtrain.games.player import Player
from bigtrain.networks import Discriminator, Generator
from bigtrain.objectives import Objective
from bigtrain.regularizers import Regularizer, Shown
from bigtrain.runtime.parallel import Parallel
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
    #: Whether it makes use of a discriminator that classifies.
    classifies = False

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
        check_kinds(generator.network, discriminator.network)
        self.ema = EMA(generator.network, images(ema_half_life_kimg), images(ema_start_kimg))
        self.average_spread = self.parallel.spread(self.ema.network)
        self.class_counts = class_counts or [1] * self.generator_network.num_classes
        self._inputs = {
            turn: Inputs(seed, turn, self.generator_network.latent_dim, self.class_counts) for turn in self.player_names
        }
        check_players(self.generator_network, self.discriminator_network)
        check_classifier(type(self).__name__, self.classifies, self.discriminator_network)
        check_compiled(discriminator.is_compiled, regularizers)
        check_schedule(schedule, self.generator_network, self.discriminator_network)
        check_batches(schedule, accumulation, self.discriminator_network.batch_group)

    def spread_over(self, parallel: Parallel) -> None:
        check_batches(self.schedule, self.accumulation, self.discriminator_network.batch_group, parallel.world)
        super().spread_over(parallel)
        self.average_spread = parallel.spread(self.ema.network.to(parallel.device))

    def begin_with(self, generator: Mapping[str, Tensor], discriminator: Mapping[str, Tensor] | None = None) -> None:
        """Puts weights in the place of the first ones, before anything is trained; the average begins with them too.

        Args:
            generator: whole tensors, by the names of the network.
            discriminator: the same; None: it stays as it was made.

        Raises:
            ValueError: if they are of other networks.
        """
        for name, network, state in (
            ("generator", self.generator.network, generator),
            ("generator", self.ema.network, generator),
            ("discriminator", self.discriminator.network, discriminator),
        ):
            if state is None:
                continue
            targets = network.state_dict()
            there, here = ({key: tuple(value.shape) for key, value in found.items()} for found in (state, targets))
            wrong = difference(there, here)
            if wrong is not None:
                raise ValueError(f"its {name} is another network than this {type(network).__name__}: {wrong}")
            for key, target in targets.items():
                self.parallel.load(target, state[key])

    def scale_losses(self) -> None:
        """Gives each player a loss scale of its own, which float16 needs; before anything is trained or loaded."""
        for player in self.players.values():
            player.loss_scale = LossScale()

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

    @contextlib.contextmanager
    def whole_average(self) -> Iterator[Generator]:
        """The average with all of its weights inside the block, which all ranks enter together."""
        with self.average_spread.whole():
            yield self.average

    def play(self, moment: Moment, batch: Batch) -> None:
        phase = moment.phase
        real, label = batch["images"], batch["labels"]
        size = phase.batch_size // self.parallel.world
        for turn in range(phase.d_steps_per_g_step):
            part = slice(turn * size, (turn + 1) * size)
            self.discriminator_turn(moment, moment.images_seen + turn * phase.batch_size, real[part], label[part])
        self.generator_turn(moment)
        self.ema.update(self.generator_network, moment.images_seen, phase.images_per_step)

    def discriminator_turn(self, moment: Moment, first: int, real: Tensor, label: Tensor) -> None:
        """One discriminator update, with this rank's part of the real images of indices first, first + 1, …"""
        self.begin_turn()
        total = torch.zeros((), device=self.device)
        for part, last in self.parts(len(real)):
            indices = self.indices(first, part)
            fake, fake_label = self.fakes(moment, indices, label[part] if self.fake_labels == "real" else None)
            loss = self.discriminator.run(
                last, self.discriminator_loss, moment, indices, real[part], label[part], fake, fake_label
            )
            self.discriminator.scaled(loss).backward()
            total += loss.detach()
        norm = self.discriminator.step(total, moment.images_seen)
        self.measure(**{"loss_d": total, "grad_norm_d": norm, **self.discriminator.scaling("d")})

    def generator_turn(self, moment: Moment) -> None:
        """One generator update. The discriminator passes the gradient on to the images; its own is not computed."""
        self.begin_turn()
        total = torch.zeros((), device=self.device)
        for part, last in self.parts(moment.phase.batch_size // self.parallel.world):
            indices = self.indices(moment.images_seen, part)
            latent, label = self.inputs("generator", indices)
            fake, *penalties = self.generator.run(last, self.fakes_and_penalties, moment, latent, label)
            leaf = fake.detach().requires_grad_(True)
            with self.discriminator.whole():
                loss = self.generator_loss(moment, leaf, label) / self.accumulation
                (gradient,) = torch.autograd.grad(self.generator.scaled(loss), leaf)
            scaled = [self.generator.scaled(penalty) for penalty in penalties]
            torch.autograd.backward([fake, *scaled], [gradient, *map(torch.ones_like, scaled)])
            total += torch.stack([loss.detach(), *(penalty.detach() for penalty in penalties)]).sum()
        norm = self.generator.step(total, moment.images_seen)
        self.measure(**{"loss_g": total, "grad_norm_g": norm, **self.generator.scaling("g")})

    def parts(self, size: int) -> Iterator[tuple[slice, bool]]:
        """The equal parts in which a rank's batch of that size is played, and whether it is the last."""
        length = size // self.accumulation
        for start in range(0, size, length):
            yield slice(start, start + length), start + length == size

    def indices(self, first: int, part: slice) -> range:
        """The indices of a part of this rank's batch, where the global batch begins at `first`."""
        world, rank = self.parallel.world, self.parallel.rank
        return range(first + part.start * world + rank, first + part.stop * world + rank, world)

    def generator_loss(self, moment: Moment, fake: Tensor, label: Tensor) -> Tensor:
        """The objective, from fakes that the discriminator has not seen."""
        return self.objective.generator(self.discriminate(moment, fake, label))

    def fakes_and_penalties(self, moment: Moment, latent: Tensor, label: Tensor) -> list[Tensor]:
        """Images of a generator turn, and the penalties of its weights."""
        penalties = self.generator.penalties()
        self.measure(**{f"loss_g/{name}": value for name, value in penalties.items()})
        images = self.generate(moment, latent, label)
        return [images, *(penalty / self.accumulation for penalty in penalties.values())]

    def discriminator_loss(
        self, moment: Moment, indices: range, real: Tensor, label: Tensor, fake: Tensor, fake_label: Tensor
    ) -> Tensor:
        """The objective and the penalties, from images as they are stored and as many fakes."""
        real = fade(to_float(real).to(fake), moment.alpha)
        real.requires_grad_(any(regularizer.of_real_logits for regularizer in self.regularizers))
        if self.joint_pass:
            of_both = self.discriminate(moment, torch.cat((real, fake)), torch.cat((label, fake_label)))
            of_real, of_fake = of_both.chunk(2)
        else:
            of_real = self.discriminate(moment, real, label)
            of_fake = self.discriminate(moment, fake, fake_label)
        real_logits, fake_logits = self.logits(of_real), self.logits(of_fake)
        shown = Shown(
            real,
            fake,
            real_logits,
            fake_logits,
            discriminate=lambda x: self.logits(
                self.discriminate(moment, x, label.repeat_interleave(len(x) // len(label)))
            ),
            uniform=lambda: torch.from_numpy(randomness.uniform(self.drawing_seed, "mix", indices)).to(fake),
            normal=lambda count: torch.from_numpy(randomness.normal(self.drawing_seed, "near", indices, count)).to(
                fake
            ),
        )
        losses = {"adversarial": self.objective.discriminator(real_logits, fake_logits)}
        losses.update(self.class_losses(of_real, label, of_fake, fake_label))
        losses.update((regularizer.name, regularizer(shown)) for regularizer in self.regularizers)
        losses.update(self.discriminator.penalties())
        self.measure(**{f"loss_d/{name}": value for name, value in losses.items()})
        self.measure(**{"logit/real": real_logits, "logit/fake": fake_logits})
        return torch.stack(list(losses.values())).sum() / self.accumulation

    def logits(self, verdict: Tensor) -> Tensor:
        """Of real against fake [n], in what the discriminator says: here it says no more."""
        return verdict

    def class_losses(self, of_real: Tensor, label: Tensor, of_fake: Tensor, fake_label: Tensor) -> dict[str, Tensor]:
        """What else the discriminator learns from what it says of both, by name: here nothing."""
        return {}

    @torch.no_grad()
    def fakes(self, moment: Moment, indices: range, label: Tensor | None) -> tuple[Tensor, Tensor]:
        """Fakes of a discriminator turn and their labels, which are drawn unless given."""
        latent, drawn = self.inputs("discriminator", indices)
        label = drawn if label is None else label
        with self.generator.whole():
            return self.generate(moment, latent, label), label

    def inputs(self, turn: str, indices: range) -> tuple[Tensor, Tensor]:
        """Latents and labels of a player's turn, addressed by the indices."""
        latent, label = self._inputs[turn](indices)
        return latent.to(self.device, self.float_type), label.to(self.device)

    def generate(self, moment: Moment, latent: Tensor, label: Tensor) -> Tensor:
        """Images in the type of the weights, also where half precision made them."""
        network = self.generator_network
        self.generator.advance()
        return network(latent, label, **self.place(moment, network)).to(self.float_type)

    def discriminate(self, moment: Moment, shown: Tensor, label: Tensor) -> Tensor:
        """Logits in the type of the weights: a loss is not computed in half precision."""
        network = self.discriminator_network
        self.discriminator.advance()
        return network(shown, label, **self.place(moment, network)).to(self.float_type)

    @property
    def float_type(self) -> torch.dtype:
        return next(self.generator_network.parameters()).dtype

    @staticmethod
    def place(moment: Moment, network: Generator | Discriminator) -> dict[str, Any]:
        """Where a growing network stands; nothing for the others."""
        return {"resolution": moment.resolution, "alpha": moment.alpha} if network.progressive else {}
