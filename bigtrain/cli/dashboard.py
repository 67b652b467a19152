"""`bigtrain dashboard`: a Weights & Biases workspace, made of what a run shows there."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bigtrain.cli.arguments import Parser

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace


class Panel(NamedTuple):
    """A plot by kimg, or pictures.

    Args:
        title: of it.
        names: a pattern of the names in it.
        media: whether these are pictures.
        log: whether the axis is logarithmic.
    """

    title: str
    names: str
    media: bool = False
    log: bool = False


#: Sections and their panels; a name belongs to the first panel whose pattern it is.
SECTIONS = {
    "Scores": (
        Panel("FID", r"fid\w*"),
        Panel("Inception Score", r"is\d\w*"),
        Panel("recognition", r"recognition\w*"),
        Panel("other scores", r"[a-z]\w*\d+k?(_full)?"),
        Panel("samples", "samples", media=True),
        Panel("truncation", "truncation", media=True),
    ),
    "Losses": (
        Panel("losses", "loss_[dg]"),
        Panel("parts of the losses", "loss_[dg]/.+"),
        Panel("logits", "logit/.+"),
        Panel("accuracy", "accuracy/.+"),
        Panel("gradient norms", "grad_norm.*", log=True),
        Panel("loss scale", "(loss_scale|skipped)_[dg]"),
    ),
    "Phase": (
        Panel("resolution", "resolution", log=True),
        Panel("alpha", "alpha|transition"),
        Panel("batch size", "batch_size"),
        Panel("learning rates", "lr/.+", log=True),
    ),
    "Guard": (
        Panel("verdict", "guard/verdict"),
        Panel("σ₀", "guard/singular_value/[^/]+", log=True),
        Panel("further singular values", "guard/singular_value/.+/.+", log=True),
        Panel("diversity", "guard/diversity.*"),
    ),
    "Speed": (
        Panel("images/s", "images_per_second"),
        Panel("s/kimg", "seconds_per_kimg"),
        Panel("shares of the time", "(step|data_wait)_share"),
        Panel("seconds", "(cpu_)?seconds"),
        Panel("model FLOPs utilisation", "mfu"),
        Panel("memory (GiB)", "memory/.+"),
        Panel("data", "data/.+"),
    ),
}


def run(arguments: Sequence[str]) -> int:
    """Makes the workspace and prints its address, or its panels with --dry-run."""
    options = _parser().parse_args(arguments)
    entity, project, sections = _plan(options.source)
    if options.dry_run:
        told = {name: {panel.title: names for panel, names in panels} for name, panels in sections}
        print(json.dumps({"entity": entity, "project": project, "sections": told}, indent=1, ensure_ascii=False))
        return 0
    print(_save(entity, project, options, sections))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="bigtrain dashboard",
        description="Makes a Weights & Biases workspace by kimg: of a run's folder with the panels of what it has "
        "recorded, in its project; of a project with all panels there may be.",
    )
    parser.add_argument("source", metavar="RUN_OR_PROJECT", help="a run's folder, or PROJECT or ENTITY/PROJECT")
    parser.add_argument("--name", default="bigtrain", help="of the workspace (default %(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="print what would be in it, as json")
    return parser


Sections = list[tuple[str, list[tuple[Panel, list[str]]]]]


def _plan(source: str) -> tuple[str | None, str, Sections]:
    """Entity, project and panels, each panel with its names, or none if these are not known."""
    if not (Path(source) / "config.yaml").exists():
        entity, _, project = source.rpartition("/")
        if Path(source).is_dir() or "/" in entity or source.startswith((".", "/")) or not project:
            raise ValueError(f"RUN_OR_PROJECT (={source!r}) must be a run's folder, or PROJECT or ENTITY/PROJECT")
        return entity or None, project, [(name, [(p, []) for p in panels]) for name, panels in SECTIONS.items()]
    return _plan_of_run(source)


def _plan_of_run(source: str) -> tuple[str | None, str, Sections]:
    import yaml  # noqa: PLC0415

    from bigtrain.cli.loggers import TRUNCATION, recorded  # noqa: PLC0415 (torch: only when there is a run)
    from bigtrain.cli.run_folder import RunFolder  # noqa: PLC0415

    folder = RunFolder(source)
    settings = yaml.safe_load(folder.config_path.read_text(encoding="utf-8")).get("wandb")
    if settings is None:
        raise ValueError(f"the run in {source} is not shown by Weights & Biases: train it with --wandb.mode")
    names = {name for _, numbers in recorded(folder) for name in numbers}
    if any((folder.path / "samples").glob("*.png")):
        names.add("samples")
    if (folder.path / TRUNCATION).exists():
        names.add("truncation")
    return settings.get("entity"), settings["project"], panels_of(names)


def panels_of(names: Iterable[str]) -> Sections:
    """The panels that have something to show, and what."""
    left, found = set(names) - {"kimg"}, []
    for section, panels in SECTIONS.items():
        kept = []
        for panel in panels:
            shown = sorted(name for name in left if re.fullmatch(panel.names, name))
            left -= set(shown)
            if shown:
                kept.append((panel, shown))
        if kept:
            found.append((section, kept))
    if left:  # of a game or callback of the user's own
        found.append(("Other", [(Panel("other measurements", ".+"), sorted(left))]))
    return found


def workspace(entity: str | None, project: str, name: str, sections: Sections) -> Workspace:
    """The workspace, of which the service knows nothing yet."""
    try:
        from wandb_workspaces.workspaces import Section, Workspace, WorkspaceSettings  # noqa: PLC0415 (an extra)
    except ImportError:
        raise ValueError("bigtrain dashboard needs `pip install 'bigtrain[dashboard]'`") from None
    made = [
        Section(name=section, panels=[_panel(panel, names) for panel, names in panels], is_open=True)
        for section, panels in sections
    ]
    return Workspace(
        entity=entity or "", project=project, name=name, sections=made, settings=WorkspaceSettings(x_axis="kimg")
    )


def _panel(panel: Panel, names: list[str]) -> Any:
    from wandb_workspaces.reports.v2 import LinePlot, MediaBrowser  # noqa: PLC0415

    if panel.media:
        return MediaBrowser(title=panel.title, media_keys=names or [panel.names], mode="gallery")
    known = {"y": names} if names else {"metric_regex": f"^({panel.names})$"}
    return LinePlot(title=panel.title, x="kimg", log_y=panel.log or None, **known)


def _save(entity: str | None, project: str, options: argparse.Namespace, sections: Sections) -> str:
    import wandb  # noqa: PLC0415

    made = workspace(entity, project, options.name, sections)
    try:
        made.entity = entity or wandb.Api(timeout=30).default_entity or ""
        made.save()
    except Exception as error:  # the service's own, of many kinds
        raise ValueError(f"Weights & Biases took no workspace for {options.source!r}: {error}") from error
    return made.url
