"""The configuration of a training: YAML and dotted overrides, typed, with unknown keys refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml
from jsonargparse import ActionConfigFile, ArgumentError, ArgumentParser, Namespace

from bigtrain.cli.mistakes import explain, root_mistake
from bigtrain.cli.settings import Cadences, Evaluation, GuardSettings, WandB
from bigtrain.data.datamodule import ShardDataModule
from bigtrain.games import Game
from bigtrain.runtime.compute import Compute
from bigtrain.schedules import Schedule
from bigtrain.storage.secrets import redacted


def make_parser() -> ArgumentParser:
    """The parser of `bigtrain fit`."""
    parser = ArgumentParser(
        prog="bigtrain fit",
        description="Trains by a configuration. The same command, given again, resumes.",
        exit_on_error=False,
    )
    parser.add_argument("--config", action=ActionConfigFile, help="a YAML file; later arguments override it")
    parser.add_argument("--run", type=str | None, default=None, help="the run's folder; default runs/CONFIG'S NAME")
    parser.add_argument("--seed", type=int, default=0, help="of everything random")
    parser.add_argument(
        "--start_from", type=str | None, default=None, help="a snapshot or conversion whose weights a run begins with"
    )
    parser.add_subclass_arguments(Schedule, "schedule", required=True)
    parser.add_subclass_arguments(Game, "game", required=True)
    parser.add_class_arguments(ShardDataModule, "data")
    parser.add_argument("--compute", type=Compute, default=Compute(), help="on what the training runs")
    parser.add_argument("--cadences", type=Cadences, default=Cadences(), help="what is written when")
    parser.add_argument("--evaluation", type=Evaluation | None, default=Evaluation(), help="scores; null for none")
    parser.add_argument(
        "--guard", type=GuardSettings | None, default=GuardSettings(), help="watches for a collapse; null for none"
    )
    parser.add_argument("--wandb", type=WandB | None, default=None, help="Weights & Biases; null for none")
    parser.add_argument("--tensorboard", type=bool, default=False, help="event files in tensorboard/ of the run")
    parser.link_arguments("seed", "game.init_args.seed")
    parser.link_arguments("seed", "data.seed")
    parser.link_arguments("schedule", "game.init_args.schedule", apply_on="instantiate")
    parser.link_arguments("schedule", "data.schedule", apply_on="instantiate")
    parser.link_arguments("data", "game.init_args.class_counts", compute_fn=_class_counts, apply_on="instantiate")
    return parser


def _class_counts(data: ShardDataModule) -> list[int]:
    return data.shards.class_counts


def parse(parser: ArgumentParser, arguments: Sequence[str]) -> Namespace:
    """The configuration that the arguments give.

    Raises:
        ValueError: one line with the name, what is wrong and what would be right.
    """
    try:
        return parser.parse_args(list(arguments))
    except ArgumentError as error:
        raise ValueError(explain(str(error), parser)) from error


def instantiate(parser: ArgumentParser, config: Namespace) -> Namespace:
    """Makes schedule, data and game of a configuration.

    Raises:
        ValueError: the one that a class raised about its arguments, without what the parser says around it.
    """
    try:
        return parser.instantiate(config)
    except (ValueError, TypeError) as error:
        raise root_mistake(error) from error


def as_given(parser: ArgumentParser, config: Namespace) -> dict[str, Any]:
    """The whole configuration as plain data, without the names of the files that it came from."""
    plain = yaml.safe_load(parser.dump(config, skip_unset=False))
    return {key: value for key, value in plain.items() if key not in ("config", "run")}


def as_dict(parser: ArgumentParser, config: Namespace) -> dict[str, Any]:
    """The same without secrets, to be written and shown."""
    without: dict[str, Any] = redacted(as_given(parser, config))
    return without
