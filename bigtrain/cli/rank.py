"""One rank of a training, from joining the others to leaving them."""

from __future__ import annotations

from typing import Any

from lightning import Trainer

from bigtrain.cli.run_folder import RunFolder
from bigtrain.cli.training import Training
from bigtrain.runtime.compute import Compute
from bigtrain.runtime.launch import join, make_trainer
from bigtrain.runtime.signals import leave
from bigtrain.runtime.watch import FAILED, MISTAKE, Watch
from bigtrain.storage.secrets import redacted


class LostError(OSError):
    """A connection that a training has used is lost: no mistake, and the same command may well go on."""

    exit_code = FAILED


def run(folder: RunFolder, built: Any, config: dict[str, Any]) -> int:
    """Trains on one rank, in the process that is to be it. Returns the exit code: 0 when the training is finished.

    Args:
        folder: of the run.
        built: the instantiated configuration.
        config: the same as plain data.
    """
    compute: Compute = built.compute
    compute.apply()
    trainer = make_trainer(compute, folder.path)
    world, parallel = join(trainer, compute)
    watch = Watch(world, compute.timeout_seconds, compute.start_timeout_seconds, clean=redacted)
    try:
        with watch:
            training = Training(folder, built, config, world, parallel, watch)
            training.resume()
            code = 0 if training.finished else _train(training, trainer)
            if training.finished and world.is_first:
                training.report()
        world.leave()
        if code > 128:
            leave(code - 128, world)
        return code
    except (ValueError, OSError) as error:
        if world.is_first:
            raise
        return getattr(error, "exit_code", MISTAKE)  # the first one tells it


def _train(training: Training, trainer: Trainer) -> int:
    """Trains, and notes in the run's folder from where to where."""
    clock, total = training.game.clock, training.game.schedule.total_images
    jobs = training.folder.jobs if training.world.is_first else None
    if jobs is not None:
        jobs.started(clock.images_seen, total, training.world.size)
    code, begun = MISTAKE, clock.images_seen
    try:
        code = training.train(trainer)
    except ConnectionError as error:
        if clock.images_seen == begun:
            raise
        code = FAILED
        raise LostError(str(error)) from error
    finally:
        if jobs is not None:
            jobs.stopped(clock.images_seen, code)
    return code
