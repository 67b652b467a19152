"""Weights & Biases, from a thread of its own: whatever the service does, the training neither waits nor stops.

One run there is one run folder, however often it is resumed: its id is in the folder, and so is the moment up to which
it has been shown. What is played again after a checkpoint was gone back to is not shown twice; what was recorded and
not shown (because a process was killed, or nothing was shown at that time) is shown first.
"""

from __future__ import annotations

import logging
import queue
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import wandb
from PIL.Image import Image

from bigtrain.callbacks.loggers import RunLogger
from bigtrain.storage.secrets import redacted

_log = logging.getLogger(__name__)
#: Rows with pictures that may wait for the service.
MOST_PICTURES = 16
#: For which the service is waited for at the end of a training that goes on later.
MOST_SECONDS = 10.0


@dataclass(frozen=True)
class Account:
    """Where the run is kept.

    Args:
        project: of it.
        name: of the run.
        entity: a user or a team; None for the user's own.
        online: False keeps it in the run's folder, for `wandb sync`.
        timeout_seconds: for which the service is waited for, while the training goes on, and at its end.
    """

    project: str
    name: str
    entity: str | None = None
    online: bool = False
    timeout_seconds: float = 60.0


class WandbRun(RunLogger):
    """One run there.

    Args:
        folder: of the run.
        account: where it is kept.
        data: what stands for the training data: `manifest`, its hash, and what else is to be told of them.
        recorded: records of the run so far, the oldest first; those that have not been shown are shown now.
        most_bytes: a larger snapshot is no artifact.
    """

    def __init__(
        self,
        folder: Path,
        account: Account,
        data: Mapping[str, Any],
        recorded: Iterable[tuple[int, Mapping[str, float]]] = (),
        most_bytes: float = 0,
    ) -> None:
        super().__init__()
        self.folder, self.account, self.data, self.most_bytes = folder, account, data, most_bytes
        self.id = _kept(folder / "wandb-id", secrets.token_hex(4))
        self._mark = folder / "wandb-logged"
        #: The moment up to which all has been shown.
        self.shown = _number(_kept(self._mark, "-1"))
        self._room = threading.Semaphore(MOST_PICTURES)
        self._moment, self._row = self.shown, {}  # type: int, dict[str, Any]
        self._told: dict[str, Any] = {}
        self._tasks: queue.SimpleQueue[Callable[[Any], None] | None] = queue.SimpleQueue()
        self._code, self._preempted, self._deadline = 0, False, float("inf")
        for moment, numbers in recorded:
            self.log_metrics(numbers, moment)
        self._thread = threading.Thread(target=self._work, name="wandb", daemon=True)
        self._thread.start()

    @property
    def name(self) -> str:
        return redacted(self.account.name)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        assert step is not None
        if step > self._moment:
            self._send()
            self._moment = step
        if step == self._moment and step > self.shown:
            self._row.update(metrics)

    def log_image(self, key: str, images: Sequence[Image], step: int) -> None:
        if step <= self.shown or step < self._moment:
            return
        if self._room.acquire(blocking=False):  # otherwise the service does not answer, and pictures are large
            self.log_metrics({key: list(images), "kimg": step / 1000}, step)  # type: ignore[dict-item]

    def tell(self, facts: Mapping[str, Any]) -> None:
        merged = _merged(self._told, redacted(dict(facts)))
        if merged != self._told:
            self._told = merged
            self._tasks.put(lambda run: run.config.update(merged, allow_val_change=True))

    def alert(self, title: str, text: str) -> None:
        self._tasks.put(lambda run: run.alert(title=title, text=redacted(text)))

    def log_snapshot(self, path: Path, facts: Mapping[str, Any]) -> None:
        if not path.exists() or path.stat().st_size > self.most_bytes:
            return

        def send(run: Any) -> None:
            artifact = wandb.Artifact(f"snapshot-{self.id}", type="model", metadata=redacted(dict(facts)))
            for file in (path, path.with_suffix(".json")):
                artifact.add_file(str(file), policy="immutable", skip_cache=True)
            run.log_artifact(artifact, aliases=["latest", path.stem])

        self._send()
        self._tasks.put(send)

    def close(self, code: int = 0, preempted: bool = False) -> None:
        self._send()
        self._code, self._preempted = code, preempted
        # A scheduler that preempts or requeues gives little time, and more important things are to be done in it.
        seconds = min(self.account.timeout_seconds, MOST_SECONDS if preempted else float("inf"))
        self._deadline = time.monotonic() + seconds
        self._tasks.put(None)
        self._thread.join(seconds)
        if self._thread.is_alive():
            self._warn("does not answer, and was not waited for")

    def _send(self) -> None:
        """The row of the moment that has passed."""
        if self._row:
            moment, row, self._row = self._moment, self._row, {}
            self._tasks.put(lambda run: self._show(run, moment, row))

    def _show(self, run: Any, moment: int, row: dict[str, Any]) -> None:
        caption = f"{moment / 1000:g} kimg"
        shown = {
            name: [wandb.Image(picture, caption=caption) for picture in value] if isinstance(value, list) else value
            for name, value in row.items()
        }
        try:
            run.log(shown, step=moment)
        finally:
            for value in row.values():
                if isinstance(value, list):
                    self._room.release()
        _write(self._mark, str(moment))

    def _work(self) -> None:
        """What the thread does."""
        try:
            run = self._begin()
        except Exception as error:
            self._warn(f"is not available ({_line(error)})")
            return
        while (task := self._tasks.get()) is not None:
            try:
                if time.monotonic() < self._deadline:
                    task(run)
            except Exception as error:
                self._warn(f"did not take something ({_line(error)})")
        try:
            if self._preempted:
                run.mark_preempting()
            run.finish(exit_code=self._code)
            wandb.teardown()  # returns when all is written, before whatever ends this process
        except Exception as error:
            self._warn(f"could not be told of the end ({_line(error)})")

    def _begin(self) -> Any:
        if self.account.online:
            try:
                return self._prepared(self._open("online"))
            except Exception as error:
                self._warn(f"cannot be reached ({_line(error)}): the run is kept offline")
                wandb.teardown()  # its service still tries, and would refuse a run of the same id
        return self._prepared(self._open("offline"))

    def _open(self, mode: str) -> Any:
        seconds = self.account.timeout_seconds
        settings = wandb.Settings(
            console="off",  # what is printed, the command and the machine may tell secrets
            disable_git=True,
            x_disable_meta=True,
            x_save_requirements=False,
            save_code=False,
            silent=True,
            login_timeout=1,  # nobody is asked for a key while the training goes on
            init_timeout=min(15.0, seconds / 2),  # of what is left, the run is kept offline
            finish_timeout=seconds,
            x_graphql_timeout_seconds=seconds,
        )
        return wandb.init(
            entity=self.account.entity,
            project=self.account.project,
            name=self.name,
            id=self.id,
            dir=self.folder,
            resume="allow",
            reinit="create_new",
            mode=mode,  # type: ignore[arg-type]
            settings=settings,
        )

    def _prepared(self, run: Any) -> Any:
        """With kimg as the axis of all, and the data as what the run was made from."""
        run.define_metric("kimg", hidden=True)
        run.define_metric("*", step_metric="kimg")
        if self.most_bytes:
            manifest = wandb.Artifact(f"data-{self.data['manifest'][:16]}", "dataset", metadata=redacted(self.data))
            # `use_artifact` refuses to work offline, where this leaves the record that `wandb sync` makes the same of
            run._log_artifact(manifest, aliases=["latest"], is_user_created=True, use_after_commit=True)
        return run

    def _warn(self, what: str) -> None:
        _log.warning("Weights & Biases %s; later: wandb sync %s/wandb/*run-*%s", what, self.folder, self.id)


def _kept(path: Path, first: str) -> str:
    """What is in a file, which is made with `first` in it if it is not there, or empty."""
    if not (path.exists() and path.read_text(encoding="utf-8").strip()):
        _write(path, first)
    return path.read_text(encoding="utf-8").strip()


def _write(path: Path, text: str) -> None:
    """All of it or nothing: a kill must not leave half a file."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def _number(text: str) -> int:
    """-1 for what is none: all that was recorded is shown then, of which the service drops what it has."""
    return int(text) if text.isdecimal() else -1


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dicts laid over others."""
    both = {key: _merged(old[key], new[key]) for key in old.keys() & new.keys() if isinstance(new[key], dict)}
    return {**old, **new, **both}


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())[:200]
    return redacted(f"{type(error).__name__}: {text}")
