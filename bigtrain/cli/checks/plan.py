"""What is planned: a run by a configuration, or nothing in particular."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bigtrain.cli.checks.finding import Line
from bigtrain.runtime.compute import Compute

if TYPE_CHECKING:
    from bigtrain.data.shard_set import ShardSet
    from bigtrain.games import AdversarialGame
    from bigtrain.storage import Storage


class Plan:
    """The parts of a configuration that the checks ask for, each made when it is needed. Nothing is trained or written.

    Args:
        arguments: of `bigtrain fit`; none for a look at the machine alone.

    Raises:
        ValueError: if the configuration has a mistake.
    """

    def __init__(self, arguments: Sequence[str] = ()) -> None:
        self.configured = bool(arguments)
        self.compute = Compute()
        #: What was found so far.
        self.lines: list[Line] = []
        if not arguments:
            return
        from bigtrain.cli.configuration import as_given, make_parser, parse  # noqa: PLC0415 (torch)
        from bigtrain.cli.fit import folder_of  # noqa: PLC0415
        from bigtrain.cli.settings import Cadences, Evaluation, GuardSettings  # noqa: PLC0415

        parser = make_parser()
        config = parse(parser, arguments)
        self.folder = Path(folder_of(config))
        self.plain = plain = as_given(parser, config)
        self.data: dict[str, Any] = plain["data"]
        self.compute = Compute(**plain["compute"])
        self.cadences = Cadences(**plain["cadences"])
        self.evaluation = _made(Evaluation, plain["evaluation"])
        self.guard = _made(GuardSettings, plain["guard"])

    @cached_property
    def game(self) -> AdversarialGame:
        """Its networks without numbers, and its optimizers with the state that they have after a step.

        Raises:
            ValueError: as the training would.
        """
        import torch  # noqa: PLC0415
        from jsonargparse import ArgumentParser  # noqa: PLC0415

        from bigtrain.cli.configuration import instantiate  # noqa: PLC0415
        from bigtrain.games import Game  # noqa: PLC0415
        from bigtrain.schedules import Schedule  # noqa: PLC0415

        parser = ArgumentParser(exit_on_error=False)
        parser.add_subclass_arguments(Schedule, "schedule", required=True)
        parser.add_subclass_arguments(Game, "game", required=True)
        parser.link_arguments("schedule", "game.init_args.schedule", apply_on="instantiate")
        players = {"schedule": self.plain["schedule"], "game": _unfused(self.plain["game"])}
        config = parser.parse_object(players)
        with torch.device("meta"):
            game = instantiate(parser, config).game
        if self.compute.precision == "64-true":
            game.double()
        for player in game.players.values():
            for group in player.optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = torch.empty_like(parameter)
            player.optimizer.step()
        return game

    @cached_property
    def storages(self) -> list[Storage]:
        """Of the data, each with little patience."""
        from bigtrain.storage import Storage, StorageOptions  # noqa: PLC0415

        options = StorageOptions(**self.data["storage"]).hasty(retries=1, seconds=5)
        url = self.data["url"]
        return [Storage(one, options) for one in (url if isinstance(url, dict) else [url])]

    @property
    def shards(self) -> ShardSet:
        """Of the data.

        Raises:
            ValueError, OSError: if there are none, or they cannot be reached: each time, but it is tried only once.
        """
        if isinstance(self._opened, Exception):
            raise self._opened
        return self._opened

    @property
    def reachable(self) -> bool:
        """Whether there are shards."""
        return not isinstance(self._opened, Exception)

    @cached_property
    def _opened(self) -> ShardSet | Exception:
        from bigtrain.data.manifest import Manifest  # noqa: PLC0415
        from bigtrain.data.shard_set import ShardSet  # noqa: PLC0415

        try:
            parts = [(storage, Manifest.load(storage)) for storage in self.storages]
            return ShardSet(parts, self.storages[0].options)
        except (ValueError, OSError) as problem:
            return problem

    @property
    def processes(self) -> int:
        """Of the training, on all nodes."""
        return math.prod(self.compute.layout())


def _made(kind: type, values: dict[str, Any] | None) -> Any:
    return None if values is None else kind(**values)


def _unfused(value: Any) -> Any:
    """The same with optimizers that are not fused, which need real numbers. Their state is the same."""
    if isinstance(value, dict):
        return {key: False if key == "fused" and one else _unfused(one) for key, one in value.items()}
    return [_unfused(one) for one in value] if isinstance(value, list) else value
