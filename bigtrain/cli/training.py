"""Puts a training together: the game, its data, the callbacks and the place in the run's folder."""

from __future__ import annotations

import contextlib
import sys
import warnings
from dataclasses import asdict
from functools import cached_property
from typing import Any

import torch
from lightning import Callback, Trainer

from bigtrain.callbacks.checkpoint import Checkpointing
from bigtrain.callbacks.evaluation import Evaluating
from bigtrain.callbacks.loggers import RunLogger
from bigtrain.callbacks.metrics import Metrics
from bigtrain.callbacks.progress import TrainingProgress
from bigtrain.callbacks.samples import Samples
from bigtrain.callbacks.throughput import Throughput
from bigtrain.callbacks.utilization import Utilization
from bigtrain.callbacks.watching import Stragglers, Watching
from bigtrain.checkpoints import Checkpoints
from bigtrain.cli.loggers import environment, facts_of, make_loggers
from bigtrain.cli.rollbacks import Rollbacks
from bigtrain.cli.run_folder import RunFolder
from bigtrain.cli.scorings import scorings_of
from bigtrain.cli.start import begin_from
from bigtrain.data.datamodule import ShardDataModule
from bigtrain.data.shard_set import ShardSet
from bigtrain.games import AdversarialGame
from bigtrain.games.player import NonFiniteError
from bigtrain.networks import Generator
from bigtrain.networks.cost import cost
from bigtrain.runtime.environment import versions
from bigtrain.runtime.parallel import Parallel
from bigtrain.runtime.signals import Agreement, StopRequest
from bigtrain.runtime.watch import Watch
from bigtrain.runtime.world import World
from bigtrain.snapshots import Card
from bigtrain.storage.secrets import redacted


class Training:
    """One training in its folder, as one of its ranks sees it.

    Args:
        folder: of the run.
        built: the instantiated configuration.
        config: the same as plain data.
        world: of the ranks.
        parallel: how the players are spread over them.
        watch: over the ranks.

    Raises:
        ValueError: if game, data and ranks do not fit, or the folder's checkpoint is not of them.
    """

    def __init__(
        self, folder: RunFolder, built: Any, config: dict[str, Any], world: World, parallel: Parallel, watch: Watch
    ) -> None:
        self.folder, self.built, self.config = folder, built, config
        self.world, self.watch = world, watch
        self.game: AdversarialGame = built.game
        self.data: ShardDataModule = built.data
        check_fit(self.game.generator_network, self.data.shards)
        if built.compute.precision == "64-true":
            self.game.double()  # before the optimizers, which Lightning would leave behind
        if built.compute.precision == "16-mixed":
            self.game.scale_losses()
        self.game.spread_over(parallel)
        self.checkpoints = Checkpoints(folder.storage("checkpoints"), built.cadences.keep_checkpoints, world)
        self.rollbacks = Rollbacks(folder, self.checkpoints, world, built.guard)
        self.stop = StopRequest()
        if world.size == 1:  # alone, a training that waits for data can stop at once
            self.data.stopping = lambda: self.stop.signal is not None

    @property
    def finished(self) -> bool:
        return self.game.clock.images_seen >= self.game.schedule.total_images

    def resume(self) -> None:
        """Goes to the newest good checkpoint, or to the beginning; what was recorded after it is forgotten.

        Only the beginning looks at `start_from`.
        """
        checkpoint = self.checkpoints.load(self.rollbacks.place())
        if checkpoint is not None:
            if checkpoint.facts["manifest"] != self.data.shards.hash:
                raise ValueError(
                    f"the shards at data.url (={self.data.shards.url!r}) are not those that the run in "
                    f"{self.folder.path} was trained on (another manifest): give these, or another --run folder to "
                    "begin anew"
                )
            self.game.load_training_state(checkpoint.tensors, checkpoint.images_seen)
            self.data.faults.load(checkpoint.facts.get("quarantine", {"shards": [], "samples": []}))
        elif self.built.start_from is not None:
            said = begin_from(self.built.start_from, self.game, self.config)
            for line in said if self.world.is_first else []:
                _say(line)
        self.rollbacks.apply(self.game)
        if self.world.is_first:
            self.folder.write_config(self.config)
            self.folder.go_back(-1 if checkpoint is None else checkpoint.images_seen)
            if checkpoint is not None:
                _say(f"resuming {self.folder.path} at {self.game.clock.kimg:g} kimg")

    def train(self, trainer: Trainer) -> int:
        """Trains to the end, or until a signal asks to stop. Returns the exit code."""
        code = 1
        try:
            code = self._train(trainer)
        finally:
            for logger in self.__dict__.get("loggers", []):  # none is begun only to be ended
                logger.close(code, preempted=code > 128)
        return code

    def _train(self, trainer: Trainer) -> int:
        for evaluating in self.evaluating:
            evaluating.prepare()
        trainer.loggers = [*self.loggers]
        trainer.callbacks.extend(self.callbacks)  # type: ignore[attr-defined]
        if self.world.is_first:
            for name, player in self.game.players.items():
                _say(f"{name}: {type(player.network).__name__}, {cost(player.network)}")
        try:
            with self.stop, warnings.catch_warnings():
                # Lightning uses what torch has deprecated, and wonders about an average that is not trained.
                warnings.filterwarnings("ignore", module="lightning")
                trainer.fit(self.game, self.data)
                while self.rollbacks.asked:
                    self.resume()
                    for logger in self.loggers:
                        logger.go_back(self.game.clock.images_seen)
                    trainer.fit_loop.max_epochs = (trainer.fit_loop.max_epochs or 0) + 1
                    trainer.fit(self.game, self.data)
        except NonFiniteError as error:
            with contextlib.suppress(OSError):
                self.checkpoints.finish()
            names = self.checkpoints.names()
            last = self.checkpoints.storage.locate(names[-1]) if names else "none yet"
            raise ValueError(
                f"training stopped before a non-finite update: {error}; last good checkpoint: {last}"
            ) from error
        if self.finished:
            if self.world.is_first:
                self._write_page()
            return 0
        stopped_by = self.checkpointing.stopped_by or 0
        if self.world.is_first:
            _say(f"stopped at {self.game.clock.kimg:g} kimg with a checkpoint; the same command resumes")
        return 128 + stopped_by

    def _write_page(self) -> None:
        """report.html, from what the run has recorded; whatever is wrong with it, the training is done."""
        from bigtrain.cli.report.page import write  # noqa: PLC0415 (only at the end)
        from bigtrain.cli.report.run_records import RunRecords  # noqa: PLC0415

        try:
            write(RunRecords(self.folder.path), self.folder.path / "report.html", sample=False)
        except Exception as error:
            _say(f"report.html could not be written: {error}")

    def report(self) -> None:
        """Names what was made, with the newest scores."""
        scores = self.folder.evaluation.read()
        newest = [score for score in scores if score["images_seen"] == scores[-1]["images_seen"]]
        _say(f"finished {self.folder.path} at {self.game.clock.kimg:g} kimg")
        for score in newest:
            spread = "" if score["std"] is None else f" ± {score['std']:.3f}"
            print(f"{score['metric']}: {score['value']:.4f}{spread}  (by {score['protocol']['extractor']})")

    @cached_property
    def loggers(self) -> list[RunLogger]:
        """Those that the configuration asks for, told what holds for the whole run."""
        if not self.world.is_first:
            return []
        data, built = facts_of(self.data.shards), self.built
        found = make_loggers(self.folder, built.wandb, built.tensorboard, self.game.clock.images_seen, data)
        for logger in found:
            logger.tell(environment(self.config))
        return found

    def _share(self, name: str, card: Card) -> None:
        """Gives a snapshot to the loggers."""
        facts = {key: value for key, value in asdict(card).items() if key not in ("config", "versions")}
        for logger in self.loggers:
            logger.log_snapshot(self.folder.path / "snapshots" / f"{name}.safetensors", facts)

    @property
    def _utilization(self) -> Utilization:
        device, compute = self.game.parallel.device, self.built.compute
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else None
        return Utilization(name, compute.precision, compute.tf32)

    @cached_property
    def callbacks(self) -> list[Callback]:
        """In the order in which they act after a step: a checkpoint comes last."""
        cadences = self.built.cadences
        shown = [TrainingProgress()] if self.world.is_first else []
        return [
            Throughput(cadences.metrics_kimg, self.folder.throughput, self._utilization),
            Metrics(cadences.metrics_kimg, self.folder.metrics, self.world),
            *shown,
            Samples(cadences.samples_kimg, self.folder.storage("samples"), cadences.num_samples),
            *self.evaluating,
            *self.rollbacks.guards,
            Watching(self.watch, self.built.compute.timeout_seconds),
            Stragglers(self.world),
            self.checkpointing,
        ]

    @cached_property
    def checkpointing(self) -> Checkpointing:
        return Checkpointing(
            self.built.cadences.checkpoint_kimg,
            self.checkpoints,
            self.facts,
            self.folder.storage("snapshots"),
            self.card,
            Agreement(self.world, self.stop),
            self._share,
        )

    @cached_property
    def evaluating(self) -> list[Evaluating]:
        """The scores, if the configuration asks for any; what it asks for is checked before the training begins."""
        return scorings_of(self.built.evaluation, self.game, self.data.shards, self.folder, self.watch)

    def facts(self) -> dict[str, Any]:
        """What a checkpoint says beside the tensors; asked of all ranks at once."""
        return {
            "manifest": self.data.shards.hash,
            "quarantine": self._quarantine(),
            "rollbacks": self.rollbacks.list,
            "config": self.config,
            "versions": versions(),
        }

    def _quarantine(self) -> dict[str, Any]:
        """What any of the ranks has set aside."""
        state = self.data.faults.state()
        shards = self.world.gather_lists(state["shards"])
        samples = self.world.gather_lists([number for place in state["samples"] for number in place])
        return {
            "shards": sorted({int(shard) for row in shards for shard in row}),
            "samples": sorted({(int(a), int(b)) for row in samples for a, b in zip(row[::2], row[1::2], strict=True)}),
        }

    def card(self, game: AdversarialGame) -> Card:
        """The card of a snapshot that is taken now, with the scores of this moment."""
        now = game.clock.images_seen
        return Card(
            network=self.config["game"]["init_args"]["generator"]["init_args"]["network"],
            images_seen=now,
            resolution=game.moment.resolution,
            alpha=game.moment.alpha,
            classes=self.data.shards.classes,
            class_counts=self.data.shards.class_counts,
            seed=game.seed,
            manifest=self.data.shards.hash,
            versions=versions(),
            config=self.config,
            scores=[score for score in self.folder.evaluation.read() if score["images_seen"] == now],
        )


def _say(text: str) -> None:
    print(f"bigtrain: {redacted(text)}", file=sys.stderr)


def check_fit(network: Generator, shards: ShardSet) -> None:
    """The networks must have the channels and classes of the data (or no classes).

    Raises:
        ValueError: if they have not.
    """
    if network.image_channels != shards.channels:
        raise ValueError(
            f"image_channels (={network.image_channels}) of the networks must be those of the shards at "
            f"data.url (={shards.url!r}): {shards.channels}"
        )
    if network.num_classes not in (0, shards.num_classes):
        raise ValueError(
            f"num_classes (={network.num_classes}) of the networks must be those of the shards at data.url "
            f"(={shards.url!r}): {shards.num_classes}, or 0 for unconditional networks"
        )
