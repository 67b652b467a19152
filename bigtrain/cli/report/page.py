"""The page: what its sections say, put into the templates."""

from __future__ import annotations

import base64
import hashlib
import logging
import shlex
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Final, TypeVar

from jinja2 import Environment, PackageLoader, StrictUndefined

from bigtrain.cli.comparison import kind_of
from bigtrain.cli.report import charts, curves, pictures, scores
from bigtrain.cli.report.curves import Figure
from bigtrain.cli.report.events import events_of, span
from bigtrain.cli.report.run_records import Record, RunRecords, fid_of

T = TypeVar("T")
_log = logging.getLogger(__name__)
#: Scores, the newest, in the list of all.
MOST_SCORES: Final = 300


def write(run: RunRecords, out: Path, sample: bool) -> int:
    """Writes the page, all of it or nothing, and returns its size in bytes.

    Args:
        run: what it tells of.
        out: the file.
        sample: whether pictures are made with the generator, beside those that the training has kept.
    """
    content = render(run, sample).encode()
    temporary = out.with_name(f".{out.name}.tmp")
    temporary.write_bytes(content)
    temporary.replace(out)
    return len(content)


def render(run: RunRecords, sample: bool) -> str:
    """The page as HTML. Whatever the records say is text in it, never markup."""
    environment = Environment(
        loader=PackageLoader("bigtrain.cli.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = charts.number
    source, style = (environment.loader.get_source(environment, n)[0] for n in ("report.js", "report.css"))  # type: ignore[union-attr]
    digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
    return environment.get_template("report.html").render(
        page=Page(run, sample), script=source, script_hash=f"sha256-{digest}", style=style
    )


class Page:
    """What the sections of the page say. Each is made when the template asks for it.

    Args:
        run: what it tells of.
        sample: whether pictures are made with the generator.
    """

    def __init__(self, run: RunRecords, sample: bool) -> None:
        self.run, self.sample = run, sample
        self.events = events_of(run)
        self.bands = run.bands
        self.card: Record = run.best_card or {}
        self.made = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
        self.measured = scores.measured(run.evaluation)

    @property
    def status(self) -> str:
        if self.run.finished:
            return "finished"
        return f"{self.run.kimg / self.run.total_kimg:.0%} of the way" if self.run.total_kimg else "unfinished"

    @property
    def tiles(self) -> list[tuple[str, str, str]]:
        """Name, value and what else there is to say, of the numbers that matter most."""
        total = self.run.total_kimg
        found = [("kimg", charts.number(self.run.kimg), f"of {total:g}" if total else "real images, in thousands")]
        for one in self.measured[:3]:
            score = one.best or one.newest
            best = f"{one.aim}, " if one.best and len(one.scores) > 1 else ""
            found.append((one.metric, charts.number(score["value"]), f"{best}at {score['kimg']:g} kimg"))
        if self.run.throughput:
            seconds = sum(record["seconds"] for record in self.run.throughput)
            found.append(("time trained", span(seconds), self._ended))
            speed = sum(record["images_per_second"] * record["seconds"] for record in self.run.throughput) / seconds
            found.append(("images per second", charts.number(speed), f"{1000 / speed:.3g} s a kimg"))
        return found

    @property
    def _ended(self) -> str:
        return time.strftime("until %Y-%m-%d %H:%M", time.gmtime(self.run.throughput[-1]["time"]))

    @property
    def facts(self) -> list[tuple[str, str]]:
        """What was trained, on what, with what."""
        setting, run = self.run.setting, self.run
        player = ("init_args", "network", "class_path")
        networks = [str(setting("game", "init_args", name, *player)) for name in ("generator", "discriminator")]
        manifest = self.card.get("manifest") or run.facts.get("manifest")
        versions: dict[str, str] = self.card.get("versions") or run.facts.get("versions") or {}
        processes = next((str(job["processes"]) for job in reversed(run.jobs) if "processes" in job), None)
        devices = processes or setting("compute", "devices") or "all that were there"
        accelerator, strategy = (setting("compute", name) for name in ("accelerator", "strategy"))
        found = [
            ("networks", ", ".join(name.rpartition(".")[2] for name in networks) if run.config else ""),
            ("devices", f"{devices} (accelerator {accelerator}, strategy {strategy})" if run.config else ""),
            ("data", f"manifest {manifest}" if manifest else ""),
            ("classes", _some(self.card.get("classes", []))),
            ("resolutions", ", ".join(dict.fromkeys(f"{band.resolution}²" for band in self.bands))),
            ("versions", ", ".join(f"{name} {version}" for name, version in versions.items())),
            ("seed", str(setting("seed")) if run.config else ""),
            ("constant", ", ".join(f"{k} {v:g}" for k, v in curves.constant(run.metrics).items())),
        ]
        return [(name, text) for name, text in found if text]

    @property
    def command(self) -> str:
        """What makes the same run, and goes on with one that is not finished."""
        return shlex.join(
            ["bigtrain", "fit", "--config", str(self.run.path / "config.yaml"), "--run", str(self.run.path)]
        )

    @cached_property
    def gallery(self) -> pictures.Gallery | None:
        """None if no pictures are to be made, or cannot be."""
        if not (self.sample and self.card):
            return None
        return self._tried(lambda: pictures.Gallery(self.run, self.card), None)

    def _tried(self, make: Callable[[], T], instead: T) -> T:
        """What the generator makes. Without it (a damaged file, a GPU that is full) there is a page all the same."""
        try:
            return make()
        except (ValueError, OSError, RuntimeError) as error:
            _log.warning("no samples can be made for the report: %s", error)
            self.sample = False
            return instead

    @cached_property
    def best(self) -> pictures.Shown | None:
        gallery = self.gallery
        made = None if gallery is None else self._tried(gallery.best, None)
        return made or pictures.newest(self.run)

    @property
    def best_from(self) -> str:
        if not (self.best and self.sample and self.gallery):
            return "The newest of the grids that the training has drawn."
        chosen = "the snapshot with the lowest FID" if fid_of(self.card) else "the newest snapshot"
        return f"Made with {chosen}, at {self.card['images_seen'] / 1000:g} kimg."

    @cached_property
    def film(self) -> list[pictures.Frame]:
        possible = self.gallery is not None and self.sample  # (the first decides the second)
        return self._tried(lambda: pictures.film(self.run, possible), [])

    @cached_property
    def class_rows(self) -> list[tuple[pictures.Row, float | None]]:
        """With the share of each class that is recognised, if that was measured."""
        none: list[pictures.Row] = []
        rows = self._tried(self.gallery.by_class, none) if self.gallery else none
        recognised = (s for s in self.card.get("scores", []) if kind_of(s["metric"]) == "recognition")
        told: list[float | None] = next((s["per_class"] for s in recognised if "per_class" in s), [])
        shares = dict(zip(self.card.get("classes", []), told, strict=False))
        return [(row, shares.get(row.name)) for row in rows]

    @cached_property
    def truncation_rows(self) -> list[pictures.Row]:
        found = scores.thresholds(self.run.sweep)
        gallery = self.gallery
        return self._tried(lambda: gallery.by_truncation(found), []) if gallery and found else []

    @property
    def truncation(self) -> list[charts.Chart]:
        return [charts.lay_out(figure) for figure in scores.truncation_figures(self.run.sweep)]

    @property
    def all_scores(self) -> list[Record]:
        return self.run.evaluation[-MOST_SCORES:]

    @property
    def score_charts(self) -> list[charts.Chart]:
        return self._charts(scores.score_figures(self.measured))

    @property
    def metric_charts(self) -> list[charts.Chart]:
        return self._charts(curves.figures_of(self.run.metrics, curves.METRICS))

    @property
    def guard_charts(self) -> list[charts.Chart]:
        return self._charts(curves.guard_figures(self._looks))

    @property
    def layers(self) -> list[tuple[curves.Series, str]]:
        """σ₀ of each weight, and its curve without axes."""
        return [(series, charts.sparkline(series)) for series in curves.layers(self._looks)]

    @property
    def throughput_charts(self) -> list[charts.Chart]:
        return self._charts(curves.figures_of(self.run.throughput, curves.THROUGHPUT))

    @property
    def _looks(self) -> Sequence[Record]:
        return [look for look in self.run.guard if "verdict" in look]

    def _charts(self, figures: Sequence[Figure]) -> list[charts.Chart]:
        return [charts.lay_out(figure, self.bands, self.events) for figure in figures]


def _some(names: Sequence[str], most: int = 20) -> str:
    return ", ".join(names[:most]) + (f" … ({len(names)})" if len(names) > most else "")
