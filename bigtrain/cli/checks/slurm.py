"""The scheduler, and the job that this is."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from datetime import datetime

from bigtrain.cli.checks.finding import Finding, ok, warning
from bigtrain.cli.checks.plan import Plan

#: Less than this is hardly worth to begin with.
SHORT = 600.0
_REQUEUE = "sbatch --requeue --signal=SIGUSR1@120"


def slurm(plan: Plan) -> list[Finding]:
    """Its version; inside of a job the time left, and whether it goes on after its time limit."""
    if shutil.which("scontrol") is None:
        return [ok("not here")]
    job = os.environ.get("SLURM_JOB_ID")
    try:
        version = _ask("scontrol", "--version")
        if job is not None:
            return [*_time(version, job), *_again(job)]
        _ask("scontrol", "ping")
    except OSError as problem:
        return [warning(f"it does not answer: {problem}", "where there is a cluster: SLURM_CONF, sinfo")]
    return [ok(f"{version}, outside of a job")]


def _time(version: str, job: str) -> list[Finding]:
    fields = _fields(job)
    end = fields.get("EndTime", "Unknown")
    if fields.get("TimeLimit") == "UNLIMITED" or not end[:4].isdigit():
        return [ok(f"{version}, job {job} without a time limit")]
    left = datetime.fromisoformat(end).timestamp() - time.time()  # (both in this machine's time zone)
    said = f"{version}, job {job} has {left / 60:.0f} minutes left of {fields['TimeLimit']}"
    return [ok(said) if left > SHORT else warning(said, "submit it with more --time")]


def _again(job: str) -> list[Finding]:
    """Whether it is put back into the queue, and told in time."""
    found = []
    if _fields(job).get("Requeue") != "1":
        found.append(warning(f"job {job} is not put back into the queue when it is ended", _REQUEUE))
    else:
        found.append(ok("it may be put back into the queue"))
    try:
        script = _ask("scontrol", "write", "batch_script", job, "-")
    except OSError:
        return [*found, ok("it has no batch script, so that whether it asks for a signal is not known")]
    asked = re.search(r"^#SBATCH\s.*?--signal[= ](\S+)", script, re.MULTILINE)
    if asked is None:
        found.append(warning("its script asks for no signal before the time limit", _REQUEUE))
    elif not re.search(r"(^|:)(SIG)?USR1(@|$)|(^|:)10(@|$)", asked[1]):
        found.append(warning(f"its script asks for the signal {asked[1]}, not for SIGUSR1", _REQUEUE))
    else:
        found.append(ok(f"its script asks for {asked[1]}"))
    return found


def _fields(job: str) -> dict[str, str]:
    text = _ask("scontrol", "--oneliner", "show", "job", job)
    return {name: value for name, _, value in (one.partition("=") for one in text.split())}


def _ask(*command: str) -> str:
    """What a client says.

    Raises:
        OSError: with what it complains of.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except subprocess.TimeoutExpired:
        raise OSError(f"no answer to {' '.join(command)}") from None
    if done.returncode:
        raise OSError(" ".join((done.stderr or done.stdout).split())[:200])
    return done.stdout.strip()
