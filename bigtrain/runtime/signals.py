"""Signals that ask a training to stop: the handler only notes them, so that a step is never cut in two."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from types import FrameType

from bigtrain.runtime.compute import slurm_job
from bigtrain.runtime.world import World

SECONDS_BETWEEN_AGREEMENTS, MOST_STEPS = 1.0, 64
SECONDS_TO_BE_ENDED = 600.0


class StopRequest:
    """Notes SIGTERM, SIGINT and SIGUSR1 (SLURM's warning of the time limit) inside `with`.

    A second SIGINT interrupts at once.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        self._before = {number: signal.getsignal(number) for number in self.SIGNALS}
        self.arm()
        return self

    def arm(self) -> None:
        """Puts the handlers in place, again where somebody else has put his."""
        for number in self.SIGNALS:
            signal.signal(number, self._note)

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number


class Agreement:
    """Whether all ranks stop after this step, because one of them was asked to.

    They talk about once a second: how many steps that is, they find from the slowest one's pace, so that all of them
    count the same.
    """

    def __init__(self, world: World, stop: StopRequest) -> None:
        self.world, self.stop = world, stop
        self._steps = self._left = 1
        self._since = time.perf_counter()

    def signal(self) -> int | None:
        """To be called by all ranks after each step: the signal that ends the training, if there is one."""
        if self.world.size == 1:
            return self.stop.signal
        self._left -= 1
        if self._left:
            return None
        now = time.perf_counter()
        told = self.world.gather([self.stop.signal or 0, (now - self._since) / self._steps])
        pace = max(seconds for _, seconds in told)
        self._steps = self._left = max(1, min(MOST_STEPS, int(SECONDS_BETWEEN_AGREEMENTS / max(pace, 1e-3))))
        self._since = now
        return int(max(number for number, _ in told)) or None


def leave(number: int, world: World) -> None:
    """What a scheduler wants to see after the checkpoint of a training that it stopped.

    Before the time limit (SIGUSR1) the job is put back into the queue. A job that SLURM preempts (SIGTERM) is put back
    by SLURM only if it does not end by itself. In both cases it waits for its end: a rank that ends by itself would
    take the others with it. Others than SLURM are content with an end; so is, before the time limit, a job's script
    (slurm/train.sbatch) whose container knows nothing of SLURM's commands.
    """
    job = slurm_job()
    if job is None or number not in (signal.SIGUSR1, signal.SIGTERM):
        return
    if number == signal.SIGUSR1 and shutil.which("scontrol") is None:
        return
    if world.is_first:  # said before SLURM ends this process, which it may do within the requeueing
        print("bigtrain: saved; waiting to be ended by SLURM", file=sys.stderr, flush=True)
    if number == signal.SIGUSR1 and world.is_first and not _requeued(job):
        print("bigtrain: scontrol did not requeue the job; its script tries it again", file=sys.stderr, flush=True)
        return
    time.sleep(SECONDS_TO_BE_ENDED)


def _requeued(job: str) -> bool:
    try:
        # Below 0: it was ended together with this job, which is on its way.
        return subprocess.run(["scontrol", "requeue", job], check=False, timeout=60).returncode <= 0
    except subprocess.TimeoutExpired:
        return False
