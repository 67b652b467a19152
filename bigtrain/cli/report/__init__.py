"""`bigtrain report`: what became of a run, as one HTML page that needs nothing beside it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from bigtrain.cli.arguments import Parser


def run(arguments: Sequence[str]) -> int:
    """Writes the page of a run and says where, and how large it is."""
    options = _parser().parse_args(arguments)

    from bigtrain.cli import evaluate  # noqa: PLC0415 (torch, by way of these: only when there is something to do)
    from bigtrain.cli.report.page import write  # noqa: PLC0415
    from bigtrain.cli.report.run_records import RunRecords, check_run  # noqa: PLC0415

    check_run(options.run)
    out = Path(options.out or Path(options.run) / "report.html")
    if out.is_dir() or not out.parent.is_dir():
        raise ValueError(f"--out (={str(out)!r}) must be a file in a folder that is there, such as report.html")
    if options.scores is not None and options.truncation is not None:
        raise ValueError(
            f"--scores (={options.scores}) are shown instead of those that --truncation measures: name one"
        )
    if options.truncation is not None:
        measured = ["--truncation", options.truncation, "--metrics", "fid,is", "--num", str(options.num)]
        best, kept = RunRecords(options.run).best_card, Path(options.run) / RunRecords.TRUNCATION
        if best is None:
            raise ValueError(f"{options.run!r} has no snapshot yet, whose samples could be measured by --truncation")
        snapshot = Path(options.run) / "snapshots" / f"{best['name']}.safetensors"
        if code := evaluate.run([str(snapshot), *measured, "--json", str(kept)]):
            return code
    size = write(RunRecords(options.run, options.scores), out, sample=not options.records_only)
    print(f"{out}: {size / 1000:.0f} kB")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="bigtrain report",
        description="One HTML page of a run, finished or not: samples, scores, curves, events, configuration. Nothing "
        "in it is loaded from elsewhere.",
    )
    parser.add_argument("run", metavar="RUN", help="the run's folder")
    parser.add_argument("--out", metavar="FILE.html", help="where the page goes (default RUN/report.html)")
    parser.add_argument(
        "--scores", metavar="FILE.json", help="scores at several truncations, as `bigtrain evaluate --json` wrote them"
    )
    parser.add_argument(
        "--truncation",
        help="measure FID and IS of the best snapshot at these thresholds, such as 0.3,0.5,1,none, and keep "
        "them in the run",
    )
    parser.add_argument("--num", type=int, default=10000, help="samples at each of them (default %(default)s)")
    parser.add_argument(
        "--records-only", action="store_true", help="make no samples with the generator; show those that are kept"
    )
    return parser
