"""What every game has: players, the clock, and a place in training that can be saved and found again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor

from bigtrain import randomness
from bigtrain.clock import Clock
from bigtrain.games.player import Player
from bigtrain.schedules import Moment, Schedule

Batch = dict[str, Any]  # images uint8 [n, c, h, w], labels [n], first: the index of the first image


class Game(LightningModule, ABC):
    """A LightningModule whose step is a pure function of its weights and of `clock.images_seen`.

    A subclass hands its players to `add_players` and plays one step (all updates between two ticks of the clock).
    """

    def __init__(self, schedule: Schedule, seed: int) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.schedule, self.seed, self.clock = schedule, seed, Clock()
        #: When the last step began.
        self.moment = schedule.at(0)
        self._measurements: dict[str, list[Tensor]] = {}

    def add_players(self, **players: Player) -> None:
        """Builds each player's network and optimizer, and registers the player under its name."""
        self.player_names = tuple(players)
        for name, player in players.items():
            player.build(self.seed, name)
            self.add_module(name, player)

    @property
    def players(self) -> dict[str, Player]:
        return {name: getattr(self, name) for name in self.player_names}

    @abstractmethod
    def play(self, moment: Moment, batch: Batch) -> None:
        """All updates of one step, from the images of `batch`; leaves its measurements in `measured`."""

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        self.moment = moment = self.schedule.at(self.clock.images_seen)
        assert batch["first"] == moment.images_seen, "the data is at another place than the clock"
        randomness.seed_generators(self.seed, "step", moment.images_seen)  # for layers with noise of their own
        for player in self.players.values():
            player.prepare(moment, self.schedule.total_images)
        self._measurements = {}
        self.play(moment, batch)
        self.clock.advance(moment.phase.images_per_step)

    def measure(self, **values: Tensor) -> None:
        """Notes values of the step, of any shape; what is noted several times must have one shape each time."""
        for name, value in values.items():
            self._measurements.setdefault(name, []).append(value.detach())

    @property
    def measured(self) -> dict[str, Tensor]:
        """Means over the last step, by name: scalars. They are computed only when somebody asks."""
        return {name: torch.stack(values).mean() for name, values in self._measurements.items()}

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """For Lightning's bookkeeping; the players step the optimizers themselves."""
        return [player.optimizer for player in self.players.values()]

    def training_state(self) -> dict[str, Tensor]:
        """Everything that the next step depends on, the clock excepted, as named tensors."""
        optimizers = {
            f"optimizers/{name}/{key}": value
            for name, player in self.players.items()
            for key, value in player.optimizer_tensors().items()
        }
        return {**{f"networks/{name}": value for name, value in self.state_dict().items()}, **optimizers}

    def load_training_state(self, tensors: dict[str, Tensor], images_seen: int) -> None:
        """Goes back to a saved place.

        Raises:
            ValueError: if the tensors are of other networks.
        """
        networks = _below("networks/", tensors)
        expected = {name: tuple(value.shape) for name, value in self.state_dict().items()}
        found = {name: tuple(value.shape) for name, value in networks.items()}
        wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        if wrong:
            raise ValueError(
                f"the checkpoint is of other networks: {wrong[0]} is {found.get(wrong[0], 'missing')} in it and "
                f"{expected.get(wrong[0], 'missing')} here ({len(wrong)} such tensors); resume with the run's config"
            )
        self.load_state_dict(networks)
        for name, player in self.players.items():
            player.load_optimizer_tensors(_below(f"optimizers/{name}/", tensors))
        self.clock.images_seen = images_seen


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
