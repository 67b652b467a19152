"""samples/: the averaged generator's images of the same latents in the course of training."""

from __future__ import annotations

from lightning import Trainer

from bigtrain.callbacks.loggers import loggers_of
from bigtrain.callbacks.periodic import Periodic
from bigtrain.clock import moment_name
from bigtrain.games import AdversarialGame
from bigtrain.sampling.generate import Sampler, cycled
from bigtrain.sampling.outputs import grid, grid_columns, png
from bigtrain.storage import Storage


class Samples(Periodic):
    """Writes a grid at each cadence; with classes, each column is of one class.

    Args:
        kimg: the cadence.
        storage: the folder of the grids.
        num: images in a grid.
    """

    def __init__(self, kimg: float, storage: Storage, num: int) -> None:
        super().__init__(kimg)
        self.storage, self.num = storage, num

    def act(self, trainer: Trainer, game: AdversarialGame) -> None:  # type: ignore[override]
        with game.whole_average():  # by all ranks
            if game.parallel.rank == 0:
                self._write(trainer, game)

    def _write(self, trainer: Trainer, game: AdversarialGame) -> None:
        images, _ = sampler(game)(range(self.num))
        columns = grid_columns(self.num, game.generator_network.num_classes)
        picture = grid(images, columns)
        self.storage.write(f"{moment_name(game.clock.images_seen)}.png", png(picture))
        for logger in loggers_of(trainer):
            logger.log_image("samples", [picture], game.clock.images_seen)


def sampler(game: AdversarialGame) -> Sampler:
    """Makes images with the averaged generator as it was trained last, with the run's seed and labels in turn."""
    labels = cycled(range(max(1, game.generator_network.num_classes)))
    return Sampler(game.average, game.seed, labels, place=game.place(game.moment, game.average))
