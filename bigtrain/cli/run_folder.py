"""The folder of a run: config.yaml, checkpoints/, snapshots/, samples/, metrics.jsonl, evaluation.jsonl …"""

from __future__ import annotations

import fcntl
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from bigtrain.callbacks.records import Records
from bigtrain.cli.jobs import Jobs
from bigtrain.clock import moment_name
from bigtrain.storage import Storage, is_remote

#: What may differ between a run's configuration and the one that resumes it: it does not touch the steps already made.
#: (Where a learning rate decays towards the end, another `total_kimg` changes the steps that follow.)
FREE = (
    "cadences",
    "compute",
    "evaluation",
    "guard",
    "wandb",
    "tensorboard",
    "data.url",
    "data.storage",
    "data.decode_threads",
    "data.decode_processes",
    "data.decoded_mib",
    "data.batches_ahead",
    "data.cache_gib",
    "data.cache_folder",
    "data.prefetch_gib",
    "data.max_bad",
    "schedule.init_args.total_kimg",
)


class RunFolder:
    """One run's folder, held by one process at a time (inside `with`).

    Args:
        path: of it.
        keeper: whether this process holds it and writes into it; of many ranks, the first.

    Raises:
        ValueError: if another process holds it, or the path is a URL or a file.
    """

    def __init__(self, path: str | Path, keeper: bool = True) -> None:
        self.keeper = keeper
        if is_remote(str(path)):
            raise ValueError(f"--run (={str(path)!r}) must be a folder on this machine")
        self.path = Path(path)
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"--run (={str(path)!r}) is a file; give a folder")
        self.config_path = self.path / "config.yaml"
        self.metrics = Records(self.path / "metrics.jsonl")
        self.throughput = Records(self.path / "throughput.jsonl")
        self.evaluation = Records(self.path / "evaluation.jsonl")
        self.guard = Records(self.path / "guard.jsonl")
        self.jobs = Jobs(self.path / "jobs.jsonl")

    def storage(self, name: str) -> Storage:
        """One of its sub-folders."""
        return Storage(self.path / name)

    def check(self, config: dict[str, Any]) -> None:
        """Refuses a configuration that would train on as something else than was begun.

        Raises:
            ValueError: naming the first value that differs, and both its values.
        """
        if not (self.keeper and self.config_path.exists()):
            return
        before = _flat(yaml.safe_load(self.config_path.read_text(encoding="utf-8")))
        now = _flat(config)
        for name in sorted(before.keys() | now.keys()):
            if before.get(name) != now.get(name) and not name.startswith(FREE):
                raise ValueError(
                    f"{name} is {now.get(name)!r}, but the run in {self.path} was begun with {before.get(name)!r}: "
                    f"give that value to go on, or another --run folder to begin anew"
                )

    def write_config(self, config: dict[str, Any]) -> None:
        temporary = self.config_path.with_suffix(".tmp")
        temporary.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
        temporary.replace(self.config_path)

    def go_back(self, images_seen: int) -> None:
        """Forgets what was recorded after that moment: it will be recorded again."""
        assert self.keeper
        for records in (self.metrics, self.throughput, self.evaluation, self.guard):
            records.go_back(images_seen)

    def remove_after(self, images_seen: int) -> None:
        """Removes the pictures and snapshots of moments after that one, which will not be made again."""
        last = moment_name(images_seen)
        for storage in (self.storage("samples"), self.storage("snapshots")):
            storage.delete([key for key, _ in storage.list() if _is_later(key, last)])

    def __enter__(self) -> RunFolder:
        if not self.keeper:
            return self
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = (self.path / ".lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise ValueError(f"the run in {self.path} is in use by another process; wait for it, or stop it") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.keeper:
            self._lock.close()


def _is_later(key: str, last: str) -> bool:
    """Whether a file's name begins with a moment's, and a later one than that."""
    begins = key[: len(last)]
    return begins.replace(".", "").isdigit() and begins > last


def _flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """Nested keys joined by dots, down to values and lists."""
    if not isinstance(config, dict):
        return {prefix: config}
    pairs = [_flat(value, f"{prefix}.{key}" if prefix else str(key)) for key, value in config.items()]
    return {key: value for part in pairs for key, value in part.items()}
