"""What every game has: players, the clock, and a place in training that can be saved and found again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor

from bigtrain import randomness
from bigtrain.clock import Clock
from bigtrain.games.checks import difference
from bigtrain.games.player import Player
from bigtrain.runtime.parallel import Parallel, Piece
from bigtrain.sampling.latents import Inputs
from bigtrain.schedules import Moment, Schedule

Batch = dict[str, Any]  # images uint8 [n, c, h, w], labels [n], first: the index of the first image


class Game(LightningModule, ABC):
    """A LightningModule whose step is a pure function of its weights and of `clock.images_seen`.

    A subclass hands its players to `add_players` and plays one step (all updates between two ticks of the clock).
    """

    def __init__(self, schedule: Schedule, seed: int) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.schedule, self.seed, self.clock, self.parallel = schedule, seed, Clock(), Parallel()
        #: When the last step began.
        self.moment = schedule.at(0)
        #: What training draws beside the data is of this seed, and the learning rates are times this: see `vary`.
        self.drawing_seed, self.rate_factor = seed, 1.0
        self._inputs: dict[str, Inputs] = {}
        self._measurements: dict[str, list[Tensor]] = {}

    def add_players(self, **players: Player) -> None:
        """Builds each player's network and optimizer, and registers the player under its name."""
        self.player_names = tuple(players)
        for name, player in players.items():
            player.build(self.seed, name)
            self.add_module(name, player)

    def begin_turn(self) -> None:
        """Before all passes of a turn."""
        for player in self.players.values():
            player.begin_turn()

    def spread_over(self, parallel: Parallel) -> None:
        """Puts the players where the strategy wants them; before anything is trained or loaded.

        Raises:
            ValueError: if the ranks cannot share the batches of the schedule.
        """
        self.parallel = parallel
        for player in self.players.values():
            player.spread_over(parallel)

    def vary(self, drawing_seed: int, rate_factor: float) -> None:
        """After a rollback: goes on with other latents, labels and noise, or with smaller steps.

        Samples, pictures and scores keep `seed`.
        """
        self.drawing_seed, self.rate_factor = drawing_seed, rate_factor
        self._inputs = {
            turn: Inputs(drawing_seed, turn, inputs.latent_dim, inputs.class_counts)
            for turn, inputs in self._inputs.items()
        }
        for player in self.players.values():
            player.spread.rewrap()  # as in a process that has just begun

    def cpu(self) -> Game:
        """Nothing: Lightning would take the weights from their device when a fit ends, but another may follow."""
        return self

    @property
    def players(self) -> dict[str, Player]:
        return {name: getattr(self, name) for name in self.player_names}

    @abstractmethod
    def play(self, moment: Moment, batch: Batch) -> None:
        """All updates of one step, from the images of `batch`; leaves its measurements in `measured`."""

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        self.moment = moment = self.schedule.at(self.clock.images_seen)
        assert batch["first"] == moment.images_seen, "the data is at another place than the clock"
        randomness.seed_generators(self.drawing_seed, "step", moment.images_seen)  # for layers with noise of their own
        for player in self.players.values():
            player.prepare(moment, self.schedule.total_images, self.rate_factor)
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

    def training_state(self) -> dict[str, Piece]:
        """Everything that the next step depends on, the clock excepted, as named tensors: what this rank holds."""
        state = self.state_dict().items()
        pieces = {f"networks/{name}": self.parallel.piece(tensor.detach()) for name, tensor in state}
        for name, player in self.players.items():
            pieces.update((f"optimizers/{name}/{key}", piece) for key, piece in player.optimizer_pieces().items())
        return pieces

    def load_training_state(self, tensors: Mapping[str, Tensor], images_seen: int) -> None:
        """Goes back to a saved place, of any strategy.

        Args:
            tensors: whole ones, by the names of `training_state`.
            images_seen: of the place.

        Raises:
            ValueError: if the tensors are of other networks.
        """
        state = {f"networks/{name}": value for name, value in self.state_dict().items()}
        found = {name: tuple(tensors[name].shape) for name in tensors if name.startswith("networks/")}
        wrong = difference(found, {name: tuple(value.shape) for name, value in state.items()})
        if wrong is not None:
            raise ValueError(f"the checkpoint is of other networks: {wrong}; resume with the run's config")
        for name, target in state.items():
            self.parallel.load(target, tensors[name])
        for name, player in self.players.items():
            player.load_optimizer(tensors, f"optimizers/{name}/")
        self.clock.images_seen = images_seen
