"""Figures as SVG: where everything lies. The template draws what is computed here, and colours it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final, NamedTuple

from bigtrain.cli.report.curves import Figure, Point, Series, thinned
from bigtrain.cli.report.events import Event
from bigtrain.cli.report.run_records import Band

WIDTH, HEIGHT = 420, 230
LEFT, RIGHT, TOP, BOTTOM = 46, 8, 18, 24
COLOURS: Final = 8
#: Beyond which factor between its extremes an axis is logarithmic.
DECADES: Final = 50.0
NARROWEST: Final = 16  # pixels, of a resolution that is named


class Axis:
    """From values to pixels, linear or logarithmic.

    Args:
        low, high: the values at its ends.
        start, end: their pixels.
        logarithmic: whether equal ratios are equally far.
    """

    def __init__(self, low: float, high: float, start: float, end: float, logarithmic: bool = False) -> None:
        self.logarithmic = logarithmic
        self.offset, top = self._scaled(low), self._scaled(high)
        self.start, self.factor = start, (end - start) / ((top - self.offset) or 1.0)
        self.low, self.high = low, high

    def __call__(self, value: float) -> float:
        return round(self.start + (self._scaled(value) - self.offset) * self.factor, 1)

    def _scaled(self, value: float) -> float:
        return math.log10(value) if self.logarithmic else value

    @property
    def ticks(self) -> list[float]:
        if not self.logarithmic:
            return linear_ticks(self.low, self.high)
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        step = max(1, len(decades) // 5)
        return [
            10.0**n for n in decades if n % step == 0 and self.low <= 10.0**n * (1 + 1e-9) <= self.high * (1 + 2e-9)
        ]

    @property
    def facts(self) -> dict[str, Any]:
        """For the script, which goes from pixels back to values."""
        return {"start": self.start, "offset": self.offset, "factor": self.factor, "log": self.logarithmic}


class Line(NamedTuple):
    """A curve as it is drawn, and what the table below says of it."""

    name: str
    colour: int
    path: str
    dots: list[tuple[float, float]]  # where there are few points
    first: float
    last: float
    low: float
    high: float


@dataclass(frozen=True)
class Chart:
    """A figure, laid out."""

    title: str
    note: str
    said: str  # to those who do not see it
    lines: list[Line]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    bands: list[dict[str, Any]]
    names: list[tuple[float, str]]
    marks: list[dict[str, Any]]
    facts: dict[str, Any]


def linear_ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round numbers from low to high."""
    rough = (high - low) / about
    if rough <= 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(rough))
    step = min((m * power for m in (1, 2, 2.5, 5, 10)), key=lambda s: abs(s - rough))
    return [round(n * step, 12) for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def number(value: float) -> str:
    """As it stands in a table: four digits that count."""
    if value and not 1e-3 <= abs(value) < 1e5:
        return f"{value:.3g}"
    return f"{value:.4g}"


def lay_out(figure: Figure, bands: Sequence[Band] = (), events: Sequence[Event] = ()) -> Chart:
    """Where everything of a figure lies."""
    kept = [(series, thinned(series.points)) for series in figure.series]
    x, y = _axes(figure, [point for _, points in kept for point in points])
    lines = [_line(series, points, index % COLOURS, x, y) for index, (series, points) in enumerate(kept)]
    data = [
        {"name": series.name, "points": [[round(k, 3), float(f"{v:.6g}")] for k, v in points]}
        for series, points in kept
    ]
    on_kimg = figure.ticks is None
    shaded = [band for band in bands if band.start < x.high] if on_kimg and len(bands) > 1 else []
    return Chart(
        figure.title,
        figure.note,
        _said(figure, lines, x),
        lines,
        [(x(t), number(t)) for t in x.ticks] if on_kimg else [(x(i), t) for i, t in enumerate(figure.ticks or ())],
        [(y(t), number(t)) for t in y.ticks],
        [_band(band, x) for band in shaded],
        _names(shaded, x),
        [_mark(event, x) for event in events if 0 < event.kimg <= x.high] if on_kimg else [],
        {"x": x.facts, "y": y.facts, "series": data, "ticks": figure.ticks},
    )


def _axes(figure: Figure, points: Sequence[Point]) -> tuple[Axis, Axis]:
    values = [value for _, value in points] or [0.0, 1.0]
    low, high = min(values), max(values)
    logarithmic = not figure.linear and low > 0 and high / low > DECADES
    if not logarithmic:
        margin = (high - low or abs(high) or 1.0) * 0.05
        low, high = (0.0 if 0 <= low < (high - low) / 2 else low - margin), high + margin
    else:
        low, high = low / 1.2, high * 1.2
    first = 0.0 if figure.ticks is None else -0.3
    last = max((at for at, _ in points), default=1.0) + (0.0 if figure.ticks is None else 0.3)
    return Axis(first, last, LEFT, WIDTH - RIGHT), Axis(low, high, HEIGHT - BOTTOM, TOP, logarithmic)


def _line(series: Series, points: Sequence[Point], colour: int, x: Axis, y: Axis) -> Line:
    values = series.values
    places = [(x(at), y(value)) for at, value in points]
    path = "M" + "L".join(f"{a:g},{b:g}" for a, b in places)
    dots = places if len(places) < 24 else []
    return Line(series.name, colour, path, dots, values[0], values[-1], min(values), max(values))


def _said(figure: Figure, lines: Sequence[Line], x: Axis) -> str:
    over = f"over {number(x.high)} kimg" if figure.ticks is None else f"at {', '.join(figure.ticks)}"
    each = [f"{one.name} from {number(one.first)} to {number(one.last)}" for one in lines]
    return f"{figure.title} {over}: {'; '.join(each)}"


def _band(band: Band, x: Axis) -> dict[str, Any]:
    start, end = x(band.start), x(min(band.end, x.high))
    return {"x": start, "width": round(end - start, 1), "fades": band.phase == "transition"}


def _names(bands: Sequence[Band], x: Axis) -> list[tuple[float, str]]:
    """Of the resolutions, each over the middle of its stretch, where there is room."""
    found = []
    for resolution, own in groupby(bands, lambda band: band.resolution):
        stretch = list(own)
        start, end = x(stretch[0].start), x(min(stretch[-1].end, x.high))
        if end - start >= NARROWEST:
            found.append((round((start + end) / 2, 1), f"{resolution}²"))
    return found


def _mark(event: Event, x: Axis) -> dict[str, Any]:
    return {"x": x(event.kimg), "kind": event.kind, "title": f"{event.title} at {number(event.kimg)} kimg"}


def sparkline(series: Series, width: int = 120, height: int = 22) -> str:
    """A path without axes."""
    points = thinned(series.points, 20)
    values = [value for _, value in points]
    x = Axis(points[0][0], points[-1][0], 1, width - 1)
    y = Axis(min(values), max(values), height - 2, 2)
    return "M" + "L".join(f"{x(at):g},{y(value):g}" for at, value in points)
