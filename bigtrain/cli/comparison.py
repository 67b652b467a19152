"""Scores of several generators set beside each other: a table, and curves over the truncation."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bigtrain.callbacks.records import Records
from bigtrain.storage import is_remote

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bigtrain.evaluation.protocol import Score

#: Of a plot's file.
ENDINGS = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class Entry:
    """What was measured of one source.

    Args:
        name: of the source.
        scores: of all metrics at all truncations.
        classes: their names; empty without any.
        minutes: of training, and of CPU time in it, as the run's record says; None if there is none.
    """

    name: str
    scores: Sequence[Score]
    classes: Sequence[str]
    minutes: tuple[float, float] | None

    def of(self, kind: str) -> list[Score]:
        """The scores of a metric, such as `fid`: by truncation, the one without it last."""
        found = [score for score in self.scores if kind_of(score.metric) == kind]
        return sorted(found, key=lambda score: float("inf") if score.truncation is None else score.truncation)

    @property
    def kinds(self) -> list[str]:
        return list(dict.fromkeys(kind_of(score.metric) for score in self.scores))


def kind_of(metric: str) -> str:
    """A metric without its number of samples: `fid` for `fid50k_full`."""
    return metric.removesuffix("_full").removesuffix("k").rstrip("0123456789")


def minutes_of(run: str) -> tuple[float, float] | None:
    """How long a run trained, evaluations not counted, and the CPU time of its first process; None if that is unknown.

    (Of a run that was killed, without what had to be done twice.)
    """
    if is_remote(run):
        return None
    records = [record for record in Records(Path(run) / "throughput.jsonl").read() if "cpu_seconds" in record]
    if not records:
        return None
    return sum(record["seconds"] for record in records) / 60, sum(record["cpu_seconds"] for record in records) / 60


def table(entries: Sequence[Entry]) -> str:
    """Markdown: a row a source, with its scores at the largest truncation, and what a sweep found."""
    rows = [_row(entry) for entry in entries]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [columns, ["---"] * len(columns), *([row.get(column, "") for column in columns] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _row(entry: Entry) -> dict[str, str]:
    row = {"": entry.name}
    if entry.scores[0].kimg is not None:
        row["kimg"] = f"{entry.scores[0].kimg:g}"
    if entry.minutes is not None:
        row["minutes (CPU)"] = f"{entry.minutes[0]:.1f} ({entry.minutes[1]:.1f})"
    for kind in entry.kinds:
        last = entry.of(kind)[-1]
        row[last.metric] = f"{last.value:.3f}" + ("" if last.std is None else f" ± {last.std:.3f}")
        if last.per_class:
            worst, label = min((value, i) for i, value in enumerate(last.per_class) if value is not None)
            row["worst class"] = f"{entry.classes[label]} {worst:.3f}"
    for kind, best, name in (("fid", min, "lowest FID"), ("is", max, "highest IS")):
        scores = entry.of(kind)
        if len(scores) > 1:
            found = best(scores, key=lambda score: score.value)
            row[f"{name} (truncation)"] = f"{found.value:.3f} ({_threshold(found)})"
    return row


def _threshold(score: Score) -> str:
    return "none" if score.truncation is None else f"{score.truncation:g}"


def plot(entries: Sequence[Entry], ending: str) -> bytes:
    """The file of curves over the truncation: FID and IS, and the one against the other (arXiv 1809.11096, figure 17).

    Raises:
        ValueError: if there is nothing to draw: curves need FID and IS at two truncations or more.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 (only to draw)
    from matplotlib.figure import Figure  # noqa: PLC0415

    drawn = [entry for entry in entries if len(entry.of("fid")) > 1 and len(entry.of("is")) > 1]
    if not drawn:
        raise ValueError("curves need fid and is of a source, at two thresholds of the truncation")
    figure = Figure(figsize=(15, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    of_fid, of_is, trade = figure.subplots(1, 3)
    for entry in drawn:
        fid, inception = entry.of("fid"), entry.of("is")
        _over_truncation(of_fid, entry.name, fid)
        _over_truncation(of_is, entry.name, inception)
        trade.plot([score.value for score in inception], [score.value for score in fid], marker="o", label=entry.name)
        for x, y in zip(inception, fid, strict=True):
            trade.annotate(_threshold(x), (x.value, y.value), fontsize=7, xytext=(3, 3), textcoords="offset points")
    of_fid.set_ylabel(drawn[0].of("fid")[0].metric)
    of_is.set_ylabel(drawn[0].of("is")[0].metric)
    trade.set(xlabel=drawn[0].of("is")[0].metric, ylabel=drawn[0].of("fid")[0].metric)
    of_fid.set_yscale("log")
    trade.set_yscale("log")
    trade.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format=ending.removeprefix("."), dpi=100)
    return buffer.getvalue()


def _over_truncation(axes: Axes, name: str, scores: Sequence[Score]) -> None:
    """A curve over the thresholds, equally far from each other, the absence of one on the right."""
    names = [_threshold(score) for score in scores]
    axes.plot(names, [score.value for score in scores], marker="o", label=name)
    axes.set_xlabel("truncation")
