"""The package as a whole: a command that answers at once, and a repository that stays small and easy to read."""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bigtrain import __version__
from bigtrain.cli.main import VERBS
from tests.runs import ROOT, bigtrain

TOP_LEVEL = {
    ".ci",
    ".dockerignore",
    ".github",
    ".gitignore",
    ".pre-commit-config.yaml",
    "CONTRIBUTING.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "bigtrain",
    "configs",
    "docker",
    "pyproject.toml",
    "slurm",
    "tests",
}
LARGEST_FILE = 300_000  # bytes
LONGEST_FILE, LONGEST_FUNCTION = 350, 60  # lines; what reaches them is to be split
#: Runs the command, then says which of the slow packages it has imported.
_RUN = """
import sys
from bigtrain.cli.main import main
try:
    code = main(sys.argv[1:])
except SystemExit as stop:  # argparse, after --help
    code = stop.code
print(*sorted({"torch", "lightning", "numpy", "jsonargparse", "rich"} & sys.modules.keys()), sep=",", file=sys.stderr)
raise SystemExit(code)
"""


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--help"],
        ["--version"],
        ["shards", "build", "--help"],
        ["sample", "-h"],
        ["evaluate", "-h"],
        ["convert", "-h"],
        ["submit", "-h"],
        ["status", "-h"],
        ["report", "-h"],
        ["doctor", "-h"],
    ],
)
def test_help_answers_without_importing_torch(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _RUN, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr.strip()) == (0, "")
    assert "bigtrain" in done.stdout


def test_help_names_every_verb_and_every_verb_runs() -> None:
    said = bigtrain("--help").stdout
    for verb, (module, what) in VERBS.items():
        assert f"  {verb} " in said
        assert what in said
        assert callable(importlib.import_module(module).run)


def test_version() -> None:
    done = bigtrain("--version")
    assert (done.returncode, done.stdout) == (0, f"bigtrain {__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tran"], f"'tran'; valid verbs: {', '.join(VERBS)}"),
        (["shards", "build", "digits:"], "DEST"),
        (["sample", "runs/none", "--out", "a.png", "--truncaton", "1"], "did you mean --truncation?"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments: list[str], said: str) -> None:
    done = bigtrain(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("bigtrain: error: ")
    assert said in line


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    """The files that git tracks, relative to the repository's root."""
    listed = subprocess.run(
        ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False
    )
    if listed.returncode:
        pytest.skip(f"not a git checkout: {listed.stderr.decode().strip()}")
    return [Path(os.fsdecode(name)) for name in listed.stdout.split(b"\0") if name]


def test_the_top_level_holds_nothing_else(tracked: list[Path]) -> None:
    assert {path.parts[0] for path in tracked} - TOP_LEVEL == set()


def test_no_file_is_large(tracked: list[Path]) -> None:
    sizes = {str(path): (ROOT / path).stat().st_size for path in tracked if (ROOT / path).is_file()}
    assert {name: size for name, size in sizes.items() if size > LARGEST_FILE} == {}


def too_long(source: str, name: str) -> list[str]:
    """The file and those of its functions that reach the limits."""
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    lengths = {f"{name}:{node.lineno} {node.name}": node.end_lineno - node.lineno + 1 for node in functions}  # type: ignore[operator]
    found = [f"{where}: {length} lines" for where, length in lengths.items() if length >= LONGEST_FUNCTION]
    count = len(source.splitlines())
    return found + ([f"{name}: {count} lines"] if count >= LONGEST_FILE else [])


def test_files_and_functions_fit_on_a_few_screens() -> None:
    files = sorted((ROOT / "bigtrain").rglob("*.py"))
    assert files
    names = {file: file.relative_to(ROOT).as_posix() for file in files}
    assert [fault for file in files for fault in too_long(file.read_text(encoding="utf-8"), names[file])] == []


def test_what_is_too_long_is_named() -> None:
    source = "class A:\n    def f(self):\n" + "        x = 1\n" * (LONGEST_FUNCTION - 2)
    assert too_long(source, "a.py") == []
    assert too_long(source + "        x = 1\n", "a.py") == ["a.py:2 f: 60 lines"]
    assert too_long("x = 1\n" * LONGEST_FILE, "a.py") == ["a.py: 350 lines"]
