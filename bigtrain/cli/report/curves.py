"""From records to curves: which belong into one figure, and as many points of them as can be seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from bigtrain.cli.report.run_records import Record

Point = tuple[float, float]
#: Stretches of a curve, each of which shows its lowest and its highest point.
STRETCHES: Final = 120


@dataclass(frozen=True)
class Series:
    """One curve: points (kimg, value), all that were recorded."""

    name: str
    points: Sequence[Point]

    @property
    def values(self) -> list[float]:
        return [value for _, value in self.points]


@dataclass(frozen=True)
class Figure:
    """Curves that share an axis.

    Args:
        title: what they are.
        series: of them.
        note: what a reader should know, in a sentence.
        ticks: names of the points 0, 1, … of the horizontal axis; None: it is kimg.
        linear: whether the vertical axis is, whatever the values are.
    """

    title: str
    series: Sequence[Series]
    note: str = ""
    ticks: Sequence[str] | None = None
    linear: bool = False


class Kind(NamedTuple):
    """Which numbers of a record belong into a figure."""

    title: str
    belongs: Callable[[str], bool]
    note: str = ""
    linear: bool = False


def _begins(*prefixes: str) -> Callable[[str], bool]:
    return lambda name: name.startswith(prefixes)


METRICS: Final = (
    Kind("Losses", lambda name: name.startswith("loss_") and "/" not in name, "Of discriminator and generator."),
    Kind("What the losses are made of", _begins("loss_"), "The adversarial part, and each regularizer's."),
    Kind("The discriminator's outputs", _begins("logit/"), "Means over a batch, before any activation."),
    Kind("Gradient norms", _begins("grad_norm"), "Of each network, before the update."),
    Kind("Learning rates", _begins("lr/")),
    Kind("Fading in: alpha", lambda name: name == "alpha", "The weight of the new resolution's branch."),
)
THROUGHPUT: Final = (
    Kind("Images per second", lambda name: name == "images_per_second"),
    Kind("Where the time goes", _begins("step_share", "data_wait_share"), "As shares of the time.", linear=True),
    Kind("Seconds per kimg", lambda name: name == "seconds_per_kimg"),
    Kind("Memory", lambda name: "memory" in name),
)
#: Of throughput.jsonl: lengths of its own lines, and what counts from the start of a process.
_NO_CURVES: Final = ("seconds", "cpu_seconds", "time")
_CLOCK: Final = ("images_seen", "kimg", "resolution")


def figures_of(records: Sequence[Record], kinds: Iterable[Kind]) -> list[Figure]:
    """Every number of the records that changes: the known kinds first, then the others by the first part of a name."""
    left = {one.name: one for one in changing(records)}
    found = []
    for kind in kinds:
        series = [left.pop(name) for name in list(left) if kind.belongs(name)]
        if series:
            found.append(Figure(kind.title, series, kind.note, linear=kind.linear))
    others = dict.fromkeys(name.partition("/")[0] for name in left)
    return found + [Figure(o, [left[name] for name in left if name.partition("/")[0] == o]) for o in others]


def changing(records: Sequence[Record]) -> list[Series]:
    """Those numbers of the records that are not always the same."""
    return [one for one in _all_series(records) if len(set(one.values)) > 1]


def constant(records: Sequence[Record]) -> dict[str, float]:
    """The numbers that are the same in all records: a curve of them would say no more."""
    return {one.name: one.values[0] for one in _all_series(records) if len(set(one.values)) == 1}


def _all_series(records: Sequence[Record]) -> list[Series]:
    names = dict.fromkeys(name for record in records for name, value in record.items() if _is_curve(name, value))
    return [
        Series(name, [(r["kimg"], float(r[name])) for r in records if _is_curve(name, r.get(name))]) for name in names
    ]


def _is_curve(name: str, value: object) -> bool:
    known = name in (*_CLOCK, *_NO_CURVES) or name.startswith("data/")
    return not known and type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]


_DIVERSITY: Final = ("diversity", "diversity/real")


def guard_figures(looks: Sequence[Record]) -> list[Figure]:
    """σ₀, the largest over each network's weights, and the diversity of fixed samples."""
    largest: dict[str, list[Point]] = {}
    for look in looks:
        for name in dict.fromkeys(name.partition(".")[0] for name in look["singular_values"]):
            values = [v for layer, v in look["singular_values"].items() if layer.startswith(f"{name}.")]
            largest.setdefault(name, []).append((look["kimg"], max(values)))
    spread = [Series(name, [(k["kimg"], k[name]) for k in looks if k.get(name)]) for name in _DIVERSITY]
    found = [
        Figure(
            "σ₀, the largest singular value",
            [Series(name, points) for name, points in largest.items()],
            "The largest of any weight of each network; it explodes before a collapse.",
        ),
        Figure(
            "Diversity", [s for s in spread if s.points], "Of fixed samples within a class; of the real images too."
        ),
    ]
    return [figure for figure in found if figure.series]


def layers(looks: Sequence[Record]) -> list[Series]:
    """σ₀ of each weight by itself."""
    names = dict.fromkeys(name for look in looks for name in look["singular_values"])
    return [
        Series(name, [(k["kimg"], k["singular_values"][name]) for k in looks if name in k["singular_values"]])
        for name in names
    ]


def thinned(points: Sequence[Point], stretches: int = STRETCHES) -> list[Point]:
    """The first and last point, and of each of so many equal stretches the lowest and the highest: no peak is lost."""
    if len(points) <= 2 * stretches:
        return list(points)
    start, width = points[0][0], (points[-1][0] - points[0][0]) / stretches or 1.0
    members: dict[int, list[int]] = {}
    for i, (at, _) in enumerate(points):
        members.setdefault(int((at - start) / width), []).append(i)
    kept = {0, len(points) - 1}
    for indices in members.values():
        kept |= {min(indices, key=lambda i: points[i][1]), max(indices, key=lambda i: points[i][1])}
    return [points[i] for i in sorted(kept)]
