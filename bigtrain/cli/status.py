"""`bigtrain status RUN`: one screen of how a run is, from its folder's records, and from SLURM if it is there."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from bigtrain.cli.arguments import Parser
from bigtrain.cli.jobs import ask
from bigtrain.cli.run_folder import RunFolder

#: Records of throughput over which the speed is taken.
RECENT = 10


def run(arguments: Sequence[str]) -> int:
    """Prints what is known."""
    options = _parser().parse_args(arguments)
    found = status(RunFolder(options.run))
    print(json.dumps(found, indent=1) if options.json else "\n".join(_lines(found, time.time())))
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="bigtrain status",
        description="Tells how far a run is: its job, kimg, speed, time left, last score and last checkpoint.",
    )
    parser.add_argument("run", metavar="RUN", help="the run's folder")
    parser.add_argument("--json", action="store_true", help="print it as json")
    return parser


def status(folder: RunFolder) -> dict[str, Any]:
    """What is known of a run; None where nothing is.

    Raises:
        ValueError: if the folder is not one of a run.
    """
    events = folder.jobs.read()
    if not (folder.config_path.exists() or events):
        raise ValueError(f"{str(folder.path)!r} is no run: there is neither a config.yaml nor a jobs.jsonl in it")
    starts = [event for event in events if event["event"] == "started"]
    metrics, throughput, scores = folder.metrics.read(), folder.throughput.read(), folder.evaluation.read()
    checkpoint = _checkpoint(folder)
    marks = [record["images_seen"] for record in (*metrics[-1:], *throughput[-1:])]
    seen = max([*marks, *([] if checkpoint is None else [round(checkpoint["kimg"] * 1000)])], default=0)
    total = starts[-1]["total_images"] if starts else None
    speed = _speed(throughput)
    job = _job(folder)
    return {
        "run": str(folder.path),
        "state": _state(events, job, None if total is None else total - seen),
        "job": job,
        "restarts": max(0, len(starts) - 1),
        "kimg": seen / 1000,
        "total_kimg": None if total is None else total / 1000,
        "images_per_second": speed,
        "seconds_left": None if not speed or total is None else max(0, total - seen) / speed,
        "last_sign": max(
            [event["time"] for event in events] + [record["time"] for record in throughput[-1:]], default=None
        ),
        "place": {name: metrics[-1][name] for name in ("resolution", "phase", "alpha")} if metrics else None,
        "scores": _newest(scores),
        "checkpoint": checkpoint,
        "log": None if job is None else next((event["log"] for event in reversed(events) if "log" in event), None),
    }


def _state(events: Sequence[dict[str, Any]], job: dict[str, Any] | None, left: int | None) -> str:
    """finished, stopped, or what SLURM says, or what was told last."""
    last = events[-1] if events else {"event": "unknown"}
    if last["event"] == "stopped" and last["exit_code"] == 0 and left == 0:
        return "finished"
    if job is not None and job["state"] is not None:
        return str(job["state"]).lower()
    return str(last["event"])


def _job(folder: RunFolder) -> dict[str, Any] | None:
    number = folder.jobs.newest
    return None if number is None else {"id": number, **ask(number)._asdict()}


def _speed(throughput: Sequence[dict[str, Any]]) -> float | None:
    """Images per second, with all that comes between the steps."""
    recent = [record for record in throughput[-RECENT:] if "seconds" in record]  # older runs do not tell
    seconds = sum(record["seconds"] for record in recent)
    return sum(record["images_per_second"] * record["seconds"] for record in recent) / seconds if seconds else None


def _newest(scores: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {name: score[name] for name in ("metric", "value", "kimg")} | {"extractor": score["protocol"]["extractor"]}
        for score in scores
        if score["images_seen"] == scores[-1]["images_seen"]
    ]


def _checkpoint(folder: RunFolder) -> dict[str, Any] | None:
    from bigtrain.checkpoints.layout import MARKER, Folders  # noqa: PLC0415 (torch: `--help` answers without it)

    names = Folders(folder.storage("checkpoints"), 1).complete()
    if not names:
        return None
    marker = folder.path / "checkpoints" / names[-1] / MARKER
    return {"kimg": float(names[-1]), "time": marker.stat().st_mtime}


def _lines(found: dict[str, Any], now: float) -> list[str]:
    def ago(then: float) -> str:
        return f"{_clock(now - then)} ago"

    lines = [
        f"{found['run']}: {found['state']}"
        + ("" if found["last_sign"] is None else f", last sign {ago(found['last_sign'])}")
    ]
    if (job := found["job"]) is not None:
        known = [job["state"] or "no longer known to SLURM", job["nodes"] and f"on {job['nodes']}", job["reason"]]
        lines.append(f"job         {job['id']}  {'  '.join(part for part in known if part)}")
    lines.append(f"restarts    {found['restarts']}")
    total = found["total_kimg"]
    lines.append(f"kimg        {found['kimg']:g}" + (f" of {total:g} ({found['kimg'] / total:.1%})" if total else ""))
    if (place := found["place"]) is not None:
        fading = f" alpha {place['alpha']:.2f}" if place["phase"] == "transition" else ""
        lines.append(f"phase       {place['resolution']}x{place['resolution']} {place['phase']}{fading}")
    if found["images_per_second"]:
        left = found["seconds_left"]
        lines.append(
            f"speed       {found['images_per_second']:.1f} images/s" + (f", {_clock(left)} left" if left else "")
        )
    for score in found["scores"]:
        lines.append(f"{score['metric']:<11} {score['value']:.4f} at {score['kimg']:g} kimg (by {score['extractor']})")
    if (checkpoint := found["checkpoint"]) is not None:
        lines.append(f"checkpoint  {checkpoint['kimg']:g} kimg, {ago(checkpoint['time'])}")
    if found["log"] is not None:
        lines.append(f"log         {found['log']}")
    return lines


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(max(0.0, seconds))))
