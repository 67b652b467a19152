"""What a run's folder tells of it: its records, read once and never changed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from bigtrain.callbacks.records import Records, how_measured
from bigtrain.checkpoints.layout import Folders
from bigtrain.cli.run_folder import RunFolder
from bigtrain.snapshots import FID
from bigtrain.storage import Storage, is_remote
from bigtrain.storage.secrets import redacted

Record = dict[str, Any]


class Band(NamedTuple):
    """A stretch of the training, in kimg."""

    start: float
    end: float
    resolution: int
    phase: str

    @property
    def name(self) -> str:
        return f"{self.resolution}²" + (" fades in" if self.phase == "transition" else "")


def check_run(path: str) -> None:
    """
    Raises:
        ValueError: if there is no run in that folder.
    """
    folder = Path(path)
    if is_remote(path) or not any((folder / name).is_file() for name in ("config.yaml", "metrics.jsonl")):
        raise ValueError(
            f"RUN (={path!r}) is no run: neither config.yaml nor metrics.jsonl is there; give the folder that "
            "`bigtrain fit --run` writes into"
        )


class RunRecords:
    """Everything that was written of a run.

    Args:
        path: its folder.
        scores: a file of scores at several truncations; None for the one that the run keeps, if there is one.

    Raises:
        ValueError: if one of the files is damaged.
    """

    TRUNCATION: Final = "truncation.json"

    def __init__(self, path: str | Path, scores: str | None = None) -> None:
        folder = RunFolder(path, keeper=False)
        self.path = folder.path
        self.metrics = self._read(folder.metrics)
        self.throughput = [one for one in self._read(folder.throughput) if "seconds" in one]  # once, not all told that
        self.evaluation = self._read(folder.evaluation)
        self.guard = self._read(folder.guard)
        self.jobs = self._read(Records(self.path / "jobs.jsonl"))
        self.samples, self.snapshots = folder.storage("samples"), folder.storage("snapshots")
        text = folder.config_path.read_text(encoding="utf-8") if folder.config_path.exists() else ""
        self.config_text = redacted(text)
        self.config = yaml.safe_load(text) or {}
        self.cards = list(self._cards())
        self.facts = _facts(folder.storage("checkpoints"))
        self.sweep = self._sweep(scores)

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @property
    def kimg(self) -> float:
        return max((records[-1]["kimg"] for records in (self.metrics, self.throughput) if records), default=0.0)

    @property
    def total_kimg(self) -> float | None:
        told = [record["total_images"] / 1000 for record in self.jobs if "total_images" in record]
        return told[-1] if told else self.setting("schedule", "init_args", "total_kimg")

    @property
    def finished(self) -> bool:
        return self.total_kimg is not None and self.kimg >= self.total_kimg

    @property
    def bands(self) -> list[Band]:
        """Resolutions and fades, as far as the records tell: from one to the next."""
        found: list[Band] = []
        for (resolution, phase), records in groupby(self.metrics, lambda r: (r["resolution"], r["phase"])):
            start = found[-1].end if found else 0.0
            found.append(Band(start, list(records)[-1]["kimg"], resolution, phase))
        return found

    @property
    def best_card(self) -> Record | None:
        """Of the snapshot with the lowest FID, among those measured as the newest was; of the newest, if none was."""
        scored = [(fid, card) for card in self.cards if (fid := fid_of(card)) is not None]
        alike = [(fid["value"], card) for fid, card in scored if how_measured(fid) == how_measured(scored[-1][0])]
        return min(alike, key=lambda pair: pair[0])[1] if alike else (self.cards[-1] if self.cards else None)

    def setting(self, *keys: str) -> Any:
        """What the configuration says there; None if it says nothing."""
        value: Any = self.config
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    @staticmethod
    def _read(records: Records) -> list[Record]:
        try:
            return records.read()
        except json.JSONDecodeError as error:
            raise ValueError(f"{records.path} is damaged ({error}); mend that line, or take it away") from error

    def _cards(self) -> Iterable[Record]:
        """What stands beside the snapshots, the oldest first; `name` is the snapshot's."""
        for key, _ in self.snapshots.list():
            if re.fullmatch(r"\d+\.\d+\.json", key):
                yield {**json.loads(self.snapshots.read(key)), "name": key.removesuffix(".json")}

    def _sweep(self, scores: str | None) -> list[Record]:
        path = Path(scores) if scores else self.path / self.TRUNCATION
        if scores is None and not path.exists():
            return []
        try:
            read = json.loads(path.read_text(encoding="utf-8"))
            ours = [one for one in read if "source" not in one or Path(one["source"]).name == self.name]
            return [one for one in ours if {"metric", "value", "truncation", "protocol"} <= one.keys()]
        except (TypeError, AttributeError, json.JSONDecodeError) as error:
            raise ValueError(f"{str(path)!r} is not what `bigtrain evaluate --json` writes ({error})") from error


def fid_of(card: Record) -> Record | None:
    """The FID that was measured of a snapshot, if it was."""
    return next((score for score in card["scores"] if FID.match(score["metric"])), None)


def _facts(storage: Storage) -> Record:
    """Of the newest checkpoint; nothing if there is none, or it has just been taken away by a training that goes on."""
    folders = Folders(storage, 1)  # not `Checkpoints`, which all ranks make: one of them writes a report
    for name in reversed(folders.complete()):
        try:
            return folders.facts(name)
        except (ValueError, KeyError, FileNotFoundError):
            continue
    return {}
