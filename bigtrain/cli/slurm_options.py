"""What `bigtrain submit` lets a user say to SLURM: each value by its grammar, each an argument of sbatch of its own.

No value ever becomes a part of a script: `sbatch` is started without a shell, and hands the arguments on as they are.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple


class Grammar(NamedTuple):
    """Of an option's values: a pattern, and its description in an error."""

    pattern: str
    means: str


_COUNT = Grammar(r"[1-9]\d{0,6}", "a number from 1 on")
_NAME = Grammar(r"\w[\w.@+-]*", "a name of letters, digits and . _ @ + -")
_NAMES = Grammar(r"\w[\w.@+,-]*", "names of letters, digits and . _ @ + - with commas")
#: Those that are handed to sbatch by their own names.
OPTIONS: dict[str, tuple[Grammar, str]] = {
    "nodes": (_COUNT, "(default: 1)"),
    "gpus-per-node": (
        Grammar(r"(\w[\w.-]*:)?[1-9]\d{0,3}", "a number, or type:number such as a100:8"),
        "and as many processes (default: no GPU, one process a node)",
    ),
    "cpus-per-task": (_COUNT, "of each process, for decoding"),
    "mem": (Grammar(r"\d+[KMGT]?", "a size such as 64G"), "of a node, such as 200G"),
    "time": (
        Grammar(
            r"\d+(:\d{2}){0,2}|\d+-\d+(:\d{2}){0,2}", "a time such as 90 (minutes), 12:00:00 or 2-12:00:00 (days-hours)"
        ),
        "limit, such as 12:00:00; a training that reaches it goes back into the queue",
    ),
    "partition": (_NAMES, ""),
    "account": (_NAME, ""),
    "qos": (_NAME, ""),
    "job-name": (_NAME, "(default: the run's)"),
}
_FLAG = Grammar(r"--[a-z][a-z0-9-]*(=[\w.,:=/@%+*&|!()\[\]~-]+)?", "a flag such as --exclusive or --constraint=a100")
_IMAGE = Grammar(r"[\w./][\w.:/@+#-]*", "an image such as docker://me/bigtrain:1 or /images/bigtrain.sif")
_PATH = Grammar(r"[^\s,:'\"\\$`%]+", "a path without spaces, quotes, commas, colons, $ and %")
#: By which Lightning takes a job for one in which somebody tries something by hand.
_BY_HAND = ("bash", "interactive")
#: What sbatch is told already.
_TAKEN = ("array", "output", "error", "open-mode", "requeue", "no-requeue", "signal", "export", "export-file")
_NOT_OURS = ("wrap", "parsable", "test-only", "ntasks", "ntasks-per-node", "gres", "gpus", "wait", "help", "version")


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that are the same for all kinds of jobs."""
    for name, (grammar, text) in OPTIONS.items():
        parser.add_argument(f"--{name}", metavar="N" if grammar is _COUNT else name.upper(), help=text)
    add = parser.add_argument
    add("--container", metavar="IMAGE", help="to run in")
    add("--container-runtime", choices=("pyxis", "apptainer"), default="pyxis", help="(default: pyxis)")
    add("--mount", metavar="FOLDER", action="append", default=[], help="that the container sees; may be repeated")
    add("--sbatch", metavar="FLAG", action="append", default=[], help="another flag of sbatch, such as '--exclusive'")
    add("--dry-run", action="store_true", help="print what would be submitted")


def joined(arguments: Sequence[str]) -> list[str]:
    """`--sbatch --flag` as one word, so that the flag is taken for a value."""
    words: list[str] = []
    for word in arguments:
        if words and words[-1] == "--sbatch":
            words[-1] = f"--sbatch={word}"
        else:
            words.append(word)
    return words


def check_words(words: Sequence[str]) -> None:
    """What is handed on may be anything but lines of its own.

    Raises:
        ValueError: naming the word.
    """
    for word in words:
        if any(not character.isprintable() for character in word):
            raise ValueError(f"{word!r} must not hold line breaks or other control characters")


def sbatch_options(options: argparse.Namespace) -> list[str]:
    """The arguments of sbatch.

    Raises:
        ValueError: naming the option and its value, if that is not of its grammar.
    """
    found = []
    for name, (grammar, _) in OPTIONS.items():
        value = getattr(options, name.replace("-", "_"))
        if value is not None:
            found.append(f"--{name}={_checked(f'--{name}', value, grammar)}")
    if options.job_name in _BY_HAND:
        raise ValueError(f"--job-name (={options.job_name}) must not be one of {', '.join(_BY_HAND)}")
    for flag in options.sbatch:
        name = _checked("--sbatch", flag, _FLAG)[2:].partition("=")[0]
        if name in OPTIONS:
            raise ValueError(f"--sbatch (={flag}) has an option of its own: --{name}")
        if name in (*_TAKEN, *_NOT_OURS):
            raise ValueError(
                f"--sbatch (={flag}) is decided by bigtrain submit; see slurm/ for scripts to submit yourself"
            )
        found.append(flag)
    return found


def layout(options: argparse.Namespace) -> tuple[int, int]:
    """Nodes, and processes on each: one a GPU."""
    return int(options.nodes or 1), int((options.gpus_per_node or "1").rpartition(":")[2])


def container_variables(options: argparse.Namespace, folders: Sequence[Path]) -> Mapping[str, str]:
    """What the scripts are told of a container by the environment; it sees the folders under their own names.

    Raises:
        ValueError: naming what is not of its grammar.
    """
    if options.container is None:
        if options.mount:
            raise ValueError(f"--mount (={options.mount[0]}) is for a --container")
        return {}
    given = [Path(_checked("--mount", folder, _PATH)) for folder in options.mount]
    whole = sorted({folder.resolve() for folder in (*folders, *given)})
    seen = [str(folder) for folder in whole if not set(folder.parents) & set(whole)]
    return {
        "BIGTRAIN_CONTAINER": _checked("--container", options.container, _IMAGE),
        "BIGTRAIN_CONTAINER_RUNTIME": options.container_runtime,
        "BIGTRAIN_MOUNTS": ",".join(f"{_checked('--mount', folder, _PATH)}:{folder}" for folder in seen),
    }


def pattern_of(path: Path) -> str:
    """A path for --output, in which SLURM replaces what follows a per cent sign.

    Raises:
        ValueError: for a backslash, which SLURM takes for something else.
    """
    if "\\" in str(path):
        raise ValueError(f"the folder {str(path)!r} must not have a backslash in its name: SLURM could not write there")
    return str(path).replace("%", "%%")


def _checked(option: str, value: str, grammar: Grammar) -> str:
    if re.fullmatch(grammar.pattern, value, re.ASCII) is None:
        raise ValueError(f"{option} (={value!r}) must be {grammar.means}")
    return value
