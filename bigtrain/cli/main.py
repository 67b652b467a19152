"""`bigtrain VERB …`: imports a verb's module only when that verb is called, so that `--help` answers at once."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from bigtrain import __version__

#: verb: (module with `run(arguments) -> exit code`, what it does)
VERBS = {
    "shards": ("bigtrain.cli.shards", "build, index and verify the shards that training reads"),
    "fit": ("bigtrain.cli.fit", "train by a configuration; the same command resumes"),
    "sample": ("bigtrain.cli.sample", "make images with a run or a snapshot"),
    "convert": ("bigtrain.cli.convert", "weights of other trainers into snapshots, snapshots into other formats"),
    "dashboard": ("bigtrain.cli.dashboard", "a Weights & Biases workspace with the panels of a run"),
    "evaluate": ("bigtrain.cli.evaluate", "score a run, a snapshot or a folder of images"),
    "submit": ("bigtrain.cli.submit", "let SLURM train, evaluate, build shards, or train for each value of an option"),
    "status": ("bigtrain.cli.status", "how far a run is, its job, speed, last score and checkpoint"),
    "report": ("bigtrain.cli.report", "one HTML page of a run: samples, scores, curves, events"),
    "doctor": ("bigtrain.cli.doctor", "look whether the machine, and all that a run needs, is in order"),
}
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb. A user's mistake is one line on stderr and exit code 2; `BIGTRAIN_TRACEBACK=1` shows where."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    if arguments[0] == "--version":
        print(f"bigtrain {__version__}")
        return 0
    try:
        if arguments[0] not in VERBS:
            raise ValueError(f"there is no verb {arguments[0]!r}; valid verbs: {', '.join(VERBS)}")
        return importlib.import_module(VERBS[arguments[0]][0]).run(arguments[1:])
    except KeyboardInterrupt:
        print("bigtrain: interrupted", file=sys.stderr)
        return INTERRUPTED
    except (ValueError, OSError) as error:
        if os.environ.get("BIGTRAIN_TRACEBACK"):
            raise
        from bigtrain.storage.secrets import redacted  # noqa: PLC0415 (obstore: only when there is something to hide)

        print(f"bigtrain: error: {redacted(' '.join(str(error).split()))}", file=sys.stderr)
        return getattr(error, "exit_code", 2)


def _help() -> str:
    lines = [f"  {verb:<10} {text}" for verb, (_, text) in VERBS.items()]
    return "\n".join(
        [
            "usage: bigtrain VERB ...",
            "",
            "Trains generative adversarial networks at any scale, and never loses its place.",
            "",
            *lines,
            "",
            "`bigtrain VERB --help` tells a verb's arguments.",
        ]
    )
