"""jobs.jsonl: when a run was submitted, started and stopped, by which job; and what SLURM says of that job."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, NamedTuple

from bigtrain.callbacks.records import Records
from bigtrain.runtime.compute import slurm_job, under_slurm

SECONDS_TO_ANSWER = 20.0
#: Of a job that is to run or runs.
ALIVE = ("PENDING", "CONFIGURING", "RUNNING", "SUSPENDED", "COMPLETING", "REQUEUED", "REQUEUE_HOLD")


class Jobs:
    """The jobs of one run. Unlike other records they do not go back with the training: what happened has happened.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self._records = Records(path)

    def submitted(self, job: str, log: str) -> None:
        """Tells of a job that is in the queue now, and where it writes what it says."""
        self._append("submitted", job=job, log=log)

    def started(self, images_seen: int, total_images: int, processes: int) -> None:
        """Tells that the training begins or goes on from there."""
        slurm: dict[str, Any] = {}
        if under_slurm():
            slurm = {"job": slurm_job(), "nodes": os.environ.get("SLURM_JOB_NODELIST")}
            slurm["slurm_restart"] = int(os.environ.get("SLURM_RESTART_COUNT", "0"))  # unset the first time
        self._append("started", images_seen=images_seen, total_images=total_images, processes=processes, **slurm)

    def stopped(self, images_seen: int, exit_code: int) -> None:
        """Tells that it has ended there by itself, or was asked to (128 + the signal)."""
        self._append("stopped", images_seen=images_seen, exit_code=exit_code)

    def read(self) -> list[dict[str, Any]]:
        return self._records.read()

    @property
    def newest(self) -> str | None:
        """The job that is to train the run, or did so last; None if it was trained without SLURM since."""
        begun = [event for event in self.read() if event["event"] in ("submitted", "started")]
        return begun[-1].get("job") if begun else None

    def _append(self, event: str, **facts: Any) -> None:
        self._records.append({"event": event, "time": time.time(), **facts})


class Answer(NamedTuple):
    """What SLURM knows of a job: its state, its nodes, and why it waits. Nothing, if it has forgotten it."""

    state: str | None = None
    nodes: str | None = None
    reason: str | None = None

    @property
    def alive(self) -> bool:
        return self.state in ALIVE


def ask(job: str) -> Answer:
    """Asks SLURM, if there is one here that answers."""
    if shutil.which("squeue") is None:
        return Answer()
    command = ["squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%T|%N|%r"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_TO_ANSWER, check=False)
    except subprocess.TimeoutExpired:
        return Answer()
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        return Answer()
    state, nodes, reason = lines[-1].strip().split("|")
    return Answer(state, nodes or None, reason if state == "PENDING" else None)
