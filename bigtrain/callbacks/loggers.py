"""What shows a run elsewhere than in its folder, and what of its records is shown, under which name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning import Trainer
from lightning.pytorch.loggers import Logger
from PIL.Image import Image

from bigtrain.callbacks.guard_signs import Level, Look
from bigtrain.evaluation.protocol import Score

#: Of a record, what says when it was made, and is no measurement.
_MOMENTS = ("time", "images_seen")


class RunLogger(Logger, ABC):
    """Shows a run elsewhere: numbers and pictures by moment, alerts, and what does not change."""

    @property
    def version(self) -> str:
        """Lightning wants one."""
        return ""

    @abstractmethod
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Numbers of one moment; what has been shown of that moment before stays.

        Args:
            metrics: by name, `kimg` among them.
            step: the images that had been seen.
        """

    @abstractmethod
    def log_image(self, key: str, images: Sequence[Image], step: int) -> None:
        """Pictures of one moment."""

    def log_hyperparams(self, *arguments: Any, **options: Any) -> None:
        """Lightning's, which has none to tell: the configuration is told by `tell`."""

    @abstractmethod
    def tell(self, facts: Mapping[str, Any]) -> None:
        """What holds for the whole run, as nested plain data: what is told later stands beside what was told before."""

    def alert(self, title: str, text: str) -> None:
        """Something that somebody should know now."""

    def log_snapshot(self, path: Path, facts: Mapping[str, Any]) -> None:
        """A snapshot that has been written.

        Args:
            path: of its file.
            facts: its card, without the configuration.
        """

    def go_back(self, images_seen: int) -> None:
        """The training has gone back to that moment."""

    @abstractmethod
    def close(self, code: int = 0, preempted: bool = False) -> None:
        """Ends what is shown.

        Args:
            code: with which the training ends.
            preempted: whether it was asked to end, and goes on later.
        """


def loggers_of(trainer: Trainer) -> list[RunLogger]:
    return [logger for logger in trainer.loggers if isinstance(logger, RunLogger)]


def numbers_of(record: Mapping[str, Any]) -> dict[str, float]:
    """What a record shows, of any of a run's files; nothing if it is of no measurement."""
    if "verdict" in record:
        return _of_look(record)  # type: ignore[arg-type]
    if "metric" in record:
        return {"kimg": record["kimg"], record["metric"]: record["value"]}
    if "rollbacks" in record:
        return {}
    kind = record.get("phase")
    phase = {} if kind is None else {"transition": int(kind == "transition")}
    numbers = {name: v for name, v in record.items() if isinstance(v, (int, float)) and name not in _MOMENTS}
    return {**numbers, **phase}


def _of_look(look: Look) -> dict[str, float]:
    """The guard's, with the largest singular value σ₀ of each player's weights."""
    numbers = {"kimg": look["kimg"], "guard/verdict": int(Level[look["verdict"].upper()])}
    numbers.update((f"guard/{n}", look[n]) for n in ("diversity", "diversity/real") if look.get(n) is not None)
    for name, value in look["singular_values"].items():
        player = f"guard/singular_value/{name.partition('.')[0]}"
        numbers[player] = max(value, numbers.get(player, 0.0))
    for name, values in look.get("spectra", {}).items():
        for index, value in enumerate(values[1:], start=1):
            key = f"guard/singular_value/{name.partition('.')[0]}/{index}"
            numbers[key] = max(value, numbers.get(key, 0.0))
    return numbers


def log(trainer: Trainer, record: Mapping[str, Any]) -> None:
    """Shows the numbers of a record."""
    for logger in trainer.loggers:
        logger.log_metrics(numbers_of(record), record["images_seen"])


def log_scores(trainer: Trainer, scores: Iterable[Score], images_seen: int) -> None:
    """Each score under its name, and how it was measured beside what holds for the whole run."""
    for score in scores:
        record = score.to_dict()
        log(trainer, {"images_seen": images_seen, **record})
        for logger in loggers_of(trainer):
            logger.tell({"protocol": {score.metric: record["protocol"]}})
