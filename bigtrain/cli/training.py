"""Puts a training together: the game, its data, the callbacks and the place in the run's folder."""

from __future__ import annotations

import logging
import secrets
import sys
import warnings
from functools import cached_property
from typing import Any

from lightning import Callback, Trainer
from lightning.pytorch.loggers import Logger, WandbLogger

from bigtrain.callbacks.checkpoint import Checkpointing
from bigtrain.callbacks.evaluation import Evaluating
from bigtrain.callbacks.metrics import Metrics
from bigtrain.callbacks.progress import TrainingProgress
from bigtrain.callbacks.samples import Samples
from bigtrain.callbacks.scoring import Scorer
from bigtrain.callbacks.throughput import Throughput
from bigtrain.checkpoints import Checkpoints
from bigtrain.cli.run_folder import RunFolder
from bigtrain.cli.settings import WandB
from bigtrain.data.datamodule import ShardDataModule
from bigtrain.games import AdversarialGame
from bigtrain.games.player import NonFiniteError
from bigtrain.runtime.environment import versions
from bigtrain.runtime.signals import StopRequest
from bigtrain.snapshots import Card


class Training:
    """One training in its folder.

    Args:
        folder: of the run.
        built: the instantiated configuration.
        config: the same as plain data.

    Raises:
        ValueError: if game and data do not fit, or the folder's checkpoint is not of them.
    """

    def __init__(self, folder: RunFolder, built: Any, config: dict[str, Any]) -> None:
        self.folder, self.built, self.config = folder, built, config
        self.game: AdversarialGame = built.game
        self.data: ShardDataModule = built.data
        _check_fit(self.game, self.data)
        self.checkpoints = Checkpoints(folder.storage("checkpoints"), built.cadences.keep_checkpoints)
        self.stop = StopRequest()
        self.data.stopping = lambda: self.stop.signal is not None

    @property
    def finished(self) -> bool:
        return self.game.clock.images_seen >= self.game.schedule.total_images

    def resume(self) -> None:
        """Goes to the newest checkpoint, or to the beginning; what was recorded after it is forgotten."""
        checkpoint = self.checkpoints.load()
        if checkpoint is None:
            self.folder.go_back(-1)
            return
        if checkpoint.facts["manifest"] != self.data.shards.hash:
            raise ValueError(
                f"the shards at data.url (={self.data.shards.url!r}) are not those that the run in {self.folder.path} "
                f"was trained on (another manifest): give these, or another --run folder to begin anew"
            )
        self.game.load_training_state(checkpoint.tensors, checkpoint.images_seen)
        self.data.faults.load(checkpoint.facts.get("quarantine", {"shards": [], "samples": []}))
        self.folder.go_back(checkpoint.images_seen)
        _say(f"resuming {self.folder.path} at {self.game.clock.kimg:g} kimg")

    def train(self) -> int:
        """Trains to the end, or until a signal asks to stop. Returns the exit code."""
        self.built.compute.apply()
        for evaluating in self.evaluating:
            evaluating.scorer.prepare(evaluating.metrics, evaluating.num)
        logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # it tells what this command does not do
        trainer = Trainer(
            **self.built.compute.trainer_arguments(),
            max_epochs=1,
            logger=self.loggers,
            callbacks=self.callbacks,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            default_root_dir=self.folder.path,
        )
        try:
            with self.stop, warnings.catch_warnings():
                # Lightning uses what torch has deprecated, and wonders about an average that is not trained.
                warnings.filterwarnings("ignore", module="lightning")
                trainer.fit(self.game, self.data)
        except NonFiniteError as error:
            names = self.checkpoints.names()
            last = self.checkpoints.storage.locate(names[-1]) if names else "none yet"
            raise ValueError(
                f"training stopped before a non-finite update: {error}; last good checkpoint: {last}"
            ) from error
        if self.finished:
            return 0
        _say(f"stopped at {self.game.clock.kimg:g} kimg with a checkpoint; the same command resumes")
        return 128 + (self.stop.signal or 0)

    def report(self) -> None:
        """Names what was made, with the newest scores."""
        scores = self.folder.evaluation.read()
        newest = [score for score in scores if score["images_seen"] == scores[-1]["images_seen"]]
        _say(f"finished {self.folder.path} at {self.game.clock.kimg:g} kimg")
        for score in newest:
            spread = "" if score["std"] is None else f" ± {score['std']:.3f}"
            print(f"{score['metric']}: {score['value']:.4f}{spread}  (by {score['protocol']['extractor']})")

    @cached_property
    def loggers(self) -> list[Logger]:
        wandb: WandB | None = self.built.wandb
        if wandb is None:
            return []
        name = wandb.name or self.folder.path.resolve().name
        logger = WandbLogger(
            project=wandb.project,
            name=name,
            id=_run_id(self.folder),
            resume="allow",
            save_dir=self.folder.path,
            offline=wandb.mode == "offline",
        )
        logger.experiment.config.update(self.config, allow_val_change=True)
        logger.experiment.define_metric("*", step_metric="kimg")
        return [logger]

    @cached_property
    def callbacks(self) -> list[Callback]:
        """In the order in which they act after a step: a checkpoint comes last."""
        cadences = self.built.cadences
        return [
            Throughput(cadences.metrics_kimg, self.folder.throughput),
            Metrics(cadences.metrics_kimg, self.folder.metrics),
            TrainingProgress(),
            Samples(cadences.samples_kimg, self.folder.storage("samples"), cadences.num_samples),
            *self.evaluating,
            Checkpointing(
                cadences.checkpoint_kimg,
                self.checkpoints,
                self.facts,
                self.folder.storage("snapshots"),
                self.card,
                self.stop,
            ),
        ]

    @cached_property
    def evaluating(self) -> list[Evaluating]:
        """The scores, if the configuration asks for any; what it asks for is checked before the training begins."""
        wanted = self.built.evaluation
        if wanted is None:
            return []
        resolution = self.game.generator_network.resolution
        scorer = Scorer(self.data.shards, resolution, wanted.extractor, wanted.inception_weights, wanted.batch_size)
        records = self.folder.evaluation
        return [Evaluating(wanted.every_kimg, scorer, records, wanted.metrics, wanted.num, wanted.truncation)]

    def facts(self) -> dict[str, Any]:
        """What a checkpoint says beside the tensors."""
        return {
            "manifest": self.data.shards.hash,
            "quarantine": self.data.faults.state(),
            "config": self.config,
            "versions": versions(),
        }

    def card(self, game: AdversarialGame) -> Card:
        """The card of a snapshot that is taken now, with the scores of this moment."""
        scores = [score for score in self.folder.evaluation.read() if score["images_seen"] == game.clock.images_seen]
        return Card(
            network=self.config["game"]["init_args"]["generator"]["init_args"]["network"],
            images_seen=game.clock.images_seen,
            resolution=game.moment.resolution,
            alpha=game.moment.alpha,
            classes=self.data.shards.classes,
            class_counts=self.data.shards.class_counts,
            seed=game.seed,
            manifest=self.data.shards.hash,
            versions=versions(),
            config=self.config,
            scores=scores,
        )


def _say(text: str) -> None:
    print(f"bigtrain: {text}", file=sys.stderr)


def _run_id(folder: RunFolder) -> str:
    """The id by which Weights & Biases knows the run; made once, so that a resumed run is the same one there."""
    path = folder.path / "wandb-id"
    if not path.exists():
        path.write_text(secrets.token_hex(4), encoding="utf-8")
    return path.read_text(encoding="utf-8").strip()


def _check_fit(game: AdversarialGame, data: ShardDataModule) -> None:
    """The networks must have the channels and classes of the data (or no classes)."""
    network, shards = game.generator_network, data.shards
    if network.image_channels != shards.channels:
        raise ValueError(
            f"image_channels (={network.image_channels}) of the networks must be those of the shards at "
            f"data.url (={data.shards.url!r}): {shards.channels}"
        )
    if network.num_classes not in (0, shards.num_classes):
        raise ValueError(
            f"num_classes (={network.num_classes}) of the networks must be those of the shards at data.url "
            f"(={data.shards.url!r}): {shards.num_classes}, or 0 for unconditional networks"
        )
