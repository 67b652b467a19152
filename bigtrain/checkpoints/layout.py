"""The folders of the checkpoints, and what is in one: which count, which are kept, which are removed."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from bigtrain.storage import Storage

FORMAT = 2
FACTS, MARKER = "state.json", "COMPLETE"
#: Only folders with such a name (`clock.moment_name`) are ours.
NAME = re.compile(r"\d+\.\d{3}")


def tensors_file(rank: int) -> str:
    return f"rank-{rank:05d}.safetensors"


def pieces_file(rank: int) -> str:
    return f"rank-{rank:05d}.json"


def failure_file(rank: int) -> str:
    """By which a rank tells rank 0 why it could not write the others."""
    return f"rank-{rank:05d}.failed"


class Folders:
    """The checkpoints of one run as folders.

    Args:
        storage: where they are.
        keep: how many of the newest are kept, beside those with the best score of each kind.
    """

    def __init__(self, storage: Storage, keep: int) -> None:
        if keep < 1:
            raise ValueError(f"keep (={keep}) checkpoints must be at least 1")
        self.storage, self.keep = storage, keep
        #: Of the complete ones' names, oldest first, those that are kept besides.
        self.spared: Callable[[list[str]], list[str]] = lambda names: []

    def complete(self) -> list[str]:
        """Names of those that count, oldest first."""
        return _ours(key.split("/")[0] for key, _ in self.storage.list() if key.endswith(f"/{MARKER}"))

    def facts(self, name: str) -> dict[str, Any]:
        """The facts of one, without a look at its tensors.

        Raises:
            ValueError, FileNotFoundError: if they cannot be read.
        """
        return dict(json.loads(self.storage.read(f"{name}/{FACTS}"))["facts"])

    def all(self) -> list[str]:
        """Names of all, oldest first, also of those that hold nothing but what a kill left of a file."""
        if not self.storage.is_local:
            return _ours(key.split("/")[0] for key, _ in self.storage.list())
        with suppress(FileNotFoundError):
            return _ours(path.name for path in Path(self.storage.url).iterdir() if path.is_dir())
        return []

    def tidy(self, current: str) -> None:
        """Removes what is not complete, or neither among the newest nor the best; `current` always stays.

        A rank that still writes into another folder does so for an attempt that was given up.
        """
        complete = self.complete()
        kept = {current, *complete[-self.keep :], *self._best(complete), *self.spared(complete)}
        for name in self.all():
            if name not in kept:
                self.remove(name)

    def _best(self, names: list[str]) -> list[str]:
        """Of each way of measuring the one with the lowest score."""
        best: dict[str, tuple[float, str]] = {}
        for name in names:
            if (found := self._score(name)) is not None:
                measured, score = found
                best[measured] = min(best.get(measured, (score, name)), (score, name), key=lambda pair: pair[0])
        return [name for _, name in best.values()]

    def _score(self, name: str) -> tuple[str, float] | None:
        """How it was measured, and what it is; None for a checkpoint that was not scored, or cannot tell."""
        try:
            state = json.loads(self.storage.read(f"{name}/{FACTS}"))
            score = float(state["score"])
            return str(state.get("measured", "")), score
        except (ValueError, KeyError, TypeError, FileNotFoundError):
            return None

    def remove(self, name: str) -> None:
        """Removes a folder into which no rank is writing. The marker goes first: half a checkpoint never counts."""
        self.empty(name)
        if self.storage.is_local:
            shutil.rmtree(Path(self.storage.url) / name, ignore_errors=True)

    def empty(self, name: str) -> None:
        """Removes the files that are there, marker first, and nothing that another rank is still writing."""
        keys = [key for key, _ in self.storage.list(name)]
        self.storage.delete([key for key in keys if key == f"{name}/{MARKER}"])
        self.storage.delete([key for key in keys if key != f"{name}/{MARKER}"])
        if self.storage.is_local:
            with suppress(OSError):
                (Path(self.storage.url) / name).rmdir()  # if it is empty


def _ours(names: Iterable[str]) -> list[str]:
    found = {name for name in names if NAME.fullmatch(name)}
    return sorted(found, key=lambda name: tuple(map(int, name.split("."))))
