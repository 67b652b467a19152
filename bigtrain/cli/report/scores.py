"""Scores beside each other: only those that were measured in the same way, the best marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from bigtrain.callbacks.records import how_measured
from bigtrain.cli.comparison import kind_of
from bigtrain.cli.report.curves import Figure, Series
from bigtrain.cli.report.pictures import threshold_name
from bigtrain.cli.report.run_records import Record

#: Metrics of which less is better, and more; of others (c2st is best at a half) none is.
LESS = {"fid", "sfid", "kid", "kid_all", "cmmd", "mifid", "intra_fid", "fid_infinity", "swd", "ms_ssim", "am"}
LESS |= {"modes_kl", "ndb", "retrieval", "ppl", "ppl_end", "ppl_linear"}
MORE = {"is", "mis", "precision", "recall", "density", "coverage", "vendi", "mode_score", "modes", "recognition"}
MORE |= {"cas", "support"}
#: What is said of a protocol, in this order: its name in the records, and in words.
PROVENANCE: Final = {
    "extractor": "extractor",
    "weight_hash": "weights",
    "holdout_accuracy": "right on held-out images",
    "num_fake": "samples",
    "num_real": "real images",
    "reference": "reference",
    "truncation": "truncation",
    "standing_stats": "standing statistics",
    "label_distribution": "labels",
    "resize": "resize",
    "quantisation": "pixels",
    "splits": "splits",
    "seed": "seed",
    "name": "protocol",
    "settings": "settings",
}


@dataclass(frozen=True)
class Measured:
    """A metric by one protocol, in the course of training.

    Args:
        scores: the records, the oldest first.
        aim: "lowest" or "highest"; empty where none is better than another.
    """

    scores: Sequence[Record]
    aim: str

    @property
    def metric(self) -> str:
        return self.scores[0]["metric"]

    @property
    def newest(self) -> Record:
        return self.scores[-1]

    @property
    def best(self) -> Record | None:
        if not self.aim:
            return None
        return (min if self.aim == "lowest" else max)(self.scores, key=lambda score: score["value"])

    @property
    def provenance(self) -> list[tuple[str, str]]:
        """What the protocol says, in words."""
        protocol = self.newest["protocol"]
        known = {name: protocol[name] for name in PROVENANCE if protocol.get(name) is not None}
        return [(PROVENANCE[name], _told(value)) for name, value in known.items() if value is not False]


def _told(value: Any) -> str:
    if isinstance(value, str) and len(value) == 64:  # a hash
        return value[:12]
    return (
        f"{value:,}" if type(value) is int and value > 9999 else f"{value:.4g}" if type(value) is float else str(value)
    )


def aim_of(metric: str) -> str:
    kind = kind_of(metric)
    return "lowest" if kind in LESS else "highest" if kind in MORE else ""


def measured(evaluation: Sequence[Record]) -> list[Measured]:
    """The records of evaluation.jsonl, by metric and protocol."""
    groups: dict[str, list[Record]] = {}
    for score in evaluation:
        groups.setdefault(how_measured(score), []).append(score)
    return [Measured(scores, aim_of(scores[0]["metric"])) for scores in groups.values()]


def score_figures(groups: Sequence[Measured]) -> list[Figure]:
    """A curve of each metric that was measured more than once."""
    return [
        Figure(one.metric, [Series(one.metric, [(s["kimg"], s["value"]) for s in one.scores])], _note(one))
        for one in groups
        if len({score["kimg"] for score in one.scores}) > 1
    ]


def _note(one: Measured) -> str:
    return f"By {one.newest['protocol']['extractor']}" + (f"; the {one.aim} is best." if one.aim else ".")


def truncation_figures(sweep: Sequence[Record]) -> list[Figure]:
    """Each metric over the thresholds, equally far from each other, their absence on the right."""
    found = []
    for metric in dict.fromkeys(score["metric"] for score in sweep):
        scores = sorted((s for s in sweep if s["metric"] == metric), key=_by_threshold)
        names = [threshold_name(score["truncation"]) for score in scores]
        if len(scores) > 1:
            points = [(float(i), score["value"]) for i, score in enumerate(scores)]
            found.append(Figure(metric, [Series(metric, points)], _of_sweep(scores[-1]), names))
    return found


def _of_sweep(score: Record) -> str:
    at = "" if score.get("kimg") is None else f", at {score['kimg']:g} kimg"
    return f"Over the truncation threshold. By {score['protocol']['extractor']}{at}."


def thresholds(sweep: Sequence[Record]) -> list[float | None]:
    """Those of a sweep, their absence last."""
    return list(dict.fromkeys(score["truncation"] for score in sorted(sweep, key=_by_threshold)))


def _by_threshold(score: Record) -> float:
    return float("inf") if score["truncation"] is None else score["truncation"]
