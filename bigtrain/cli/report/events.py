"""What happened to a run on its way: starts and stops, alerts, rollbacks, and what was wrong with its data."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from bigtrain.cli.report.run_records import Record, RunRecords

#: Seconds between what one process records and where the next one begins to count, above which it was another one.
PAUSE: Final = 1.0
#: What throughput.jsonl counts, from the start of a process, that should not happen; the others are ordinary.
TROUBLES: Final = {
    "retries": "requests repeated after a failure",
    "read_again": "samples read again",
    "substitutions": "damaged samples replaced",
    "fetch_failures": "shards that could not be fetched",
}


class Event(NamedTuple):
    """Something that happened.

    Args:
        kimg: when.
        kind: start, stop, alert, collapse, well, rollback or data: how it is marked.
        title: in a word or two.
        text: in a sentence.
        time: on the clock on the wall, if it is known.
    """

    kimg: float
    kind: str
    title: str
    text: str
    time: float | None = None

    @property
    def clock(self) -> str:
        return "" if self.time is None else time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(self.time))


def events_of(run: RunRecords) -> list[Event]:
    """All of them by kimg."""
    found = [
        *(_of_jobs(run.jobs) if any("event" in job for job in run.jobs) else _of_pauses(run.throughput)),
        *_of_guard(run.guard),
        *_of_rollbacks(run.guard),
        *_of_data(run.throughput),
        *_of_quarantine(run),
    ]
    return sorted(found, key=lambda event: event.kimg)


def _of_jobs(jobs: Sequence[Record]) -> Iterator[Event]:
    begun = 0
    for job in jobs:
        name = f"job {job['job']}" + (f" on {job['nodes']}" if job.get("nodes") else "") if "job" in job else ""
        if job.get("event") == "started":
            begun += 1
            restart = job.get("slurm_restart")
            title = "started" if begun == 1 else "requeued" if restart else "resumed"
            text = f"{name}, {job['processes']} processes".removeprefix(", ")
            yield Event(job["images_seen"] / 1000, "start", title, text, job["time"])
        elif job.get("event") == "stopped" and job["exit_code"]:
            code = job["exit_code"]
            text = f"by signal {code - 128}, with a checkpoint" if code > 128 else f"with exit code {code}"
            yield Event(job["images_seen"] / 1000, "stop", "stopped", text, job["time"])


def _of_pauses(throughput: Sequence[Record]) -> Iterator[Event]:
    """Where no job was noted, starts show as gaps between what was measured: a line tells its length and its end."""
    before = None
    for record in throughput:
        begun = record["time"] - record["seconds"]
        at = max(0, round(record["images_seen"] - record["images_per_second"] * record["seconds"])) / 1000
        if before is None:
            yield Event(at, "start", "started", "", begun)
        elif begun - before > PAUSE:
            yield Event(at, "start", "resumed", f"{span(begun - before)} after what is kept from before", begun)
        before = record["time"]


def _of_guard(guard: Sequence[Record]) -> Iterator[Event]:
    """Findings as they come, and when none is left."""
    before: dict[str, str] = {}
    for look in guard:
        findings = {sign: (level, reason) for sign, (level, reason) in look.get("findings", {}).items()}
        for sign, (level, reason) in findings.items():
            if before.get(sign) != level:
                kind = "collapse" if level == "collapsed" else "alert"
                yield Event(look["kimg"], kind, "guard: collapse" if kind == "collapse" else "guard: warning", reason)
        if before and not findings and "verdict" in look:
            yield Event(look["kimg"], "well", "guard: all well", "nothing is found any more")
        before = {sign: level for sign, (level, _) in findings.items()}


def _of_rollbacks(guard: Sequence[Record]) -> Iterator[Event]:
    for rollback in next((look["rollbacks"] for look in reversed(guard) if "rollbacks" in look), []):
        how = (
            "other random numbers" if rollback["action"] == "reseed" else f"learning rates times {rollback['factor']:g}"
        )
        text = f"from {rollback['at'] / 1000:g} kimg, to go on with {how}: {rollback['reason']}"
        yield Event(rollback["to"] / 1000, "rollback", "rolled back", text)


def _of_data(throughput: Sequence[Record]) -> Iterator[Event]:
    """A line for each kind of trouble, where it began."""
    for name, what in TROUBLES.items():
        total, last, first, until = 0, 0, 0.0, 0.0
        for record in throughput:
            count = record.get(f"data/{name}", 0)
            more = count - last if count >= last else count  # another process counts from 0
            if more and not total:
                first = record["kimg"]
            total, last, until = total + more, count, record["kimg"] if more else until
        if total:
            yield Event(first, "data", what, f"{total:,}, the last by {until:g} kimg")


def _of_quarantine(run: RunRecords) -> Iterator[Event]:
    shards, samples = (run.facts.get("quarantine", {}).get(name, []) for name in ("shards", "samples"))
    if shards or samples:
        text = f"{len(shards):,} shards and {len(samples):,} samples, by the newest checkpoint"
        yield Event(run.kimg, "data", "set aside as damaged", text)


def span(seconds: float) -> str:
    """A length of time as one says it: 45 s, 12 min, 3 h 20 min, 2 d 4 h."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes:02d} min"
    return f"{hours // 24} d {hours % 24} h"
