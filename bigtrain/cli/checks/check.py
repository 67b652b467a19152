"""A check, and how it is run: for a limited time, and without bringing down the others."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import NamedTuple

from bigtrain.cli.checks.finding import Finding, Line, error
from bigtrain.cli.checks.plan import Plan
from bigtrain.storage.secrets import redacted


class Check(NamedTuple):
    """One check.

    Args:
        name: in the report.
        run: looks, and changes nothing.
        seconds: after which it is not waited for any longer.
        of_node: whether another node may give another answer, so that each is asked.
        of_run: whether it is about the run of a configuration.
    """

    name: str
    run: Callable[[Plan], list[Finding]]
    seconds: float = 60.0
    of_node: bool = False
    of_run: bool = False


def examine(check: Check, plan: Plan) -> list[Line]:
    """Runs a check in a thread of its own. What it raises is an error that it found."""
    answers: queue.SimpleQueue[list[Finding]] = queue.SimpleQueue()

    def run() -> None:
        try:
            answers.put(check.run(plan))
        except BaseException as problem:
            answers.put([_raised(problem)])

    threading.Thread(target=run, name=check.name, daemon=True).start()
    try:
        found = answers.get(timeout=check.seconds)
    except queue.Empty:
        found = [error(f"no answer in {check.seconds:g} s", "look for a disk, network or device that hangs")]
    before = {line.found: line.check for line in plan.lines if line.level == "error"}
    lines = []
    for level, text, remedy in found:
        said = redacted(" ".join(text.split()))
        lines.append(Line(level, check.name, f"as {before[said]} says" if said in before else said, redacted(remedy)))
    return lines


def _raised(problem: BaseException) -> Finding:
    """Errors that are meant for users say themselves what to do."""
    text = str(problem)
    if text and isinstance(problem, (ValueError, OSError)):
        return error(text, "")
    return error(f"{type(problem).__name__}: {text}", "")
