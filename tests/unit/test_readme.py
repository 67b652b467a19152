"""README.md and CONTRIBUTING.md say what is so: their commands parse, their links lead somewhere, their code runs."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from bigtrain.cli import convert, dashboard, evaluate, report, sample, shards, status, submit, train_extractor
from bigtrain.cli.checks.plan import Plan
from bigtrain.cli.configuration import make_parser, parse
from bigtrain.cli.main import VERBS
from tests.runs import ENVIRONMENT, ROOT

PAGES = ["README.md", "CONTRIBUTING.md"]


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(text: str, program: str) -> list[list[str]]:
    """The arguments of every call of a program in the bash blocks; a backslash continues a line, # begins a comment."""
    lines = "\n".join(blocks(text, "bash")).replace("\\\n", " ").splitlines()
    words = [shlex.split(line, comments=True) for line in lines]
    return [arguments for name, *arguments in filter(None, words) if name == program]


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def recipe(target: str) -> list[str]:
    """The calls of bigtrain by which make makes a target."""
    text = page("Makefile").split(f"\n{target}:")[1].split("\n\n")[0].replace("\\\n", " ")
    return re.findall(r"\$\(BIN\)/bigtrain ([^;]+?)(?:\)?;|\)$)", text)


class ParsedError(Exception):
    """The arguments were understood; what they ask for is not done."""


def check(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Parses the arguments of `bigtrain`.

    Raises:
        ValueError: as the command would.
    """

    def parsed(*_: object, **__: object) -> NoReturn:
        raise ParsedError

    verb, *rest = arguments
    if verb in ("--help", "--version"):
        assert not rest
    elif verb == "shards":
        monkeypatch.setattr(shards, "_build", parsed)
        monkeypatch.setattr(shards, "_verify", parsed)
        monkeypatch.setattr(shards, "_index", parsed)
        with pytest.raises(ParsedError):
            shards.run(rest)
    elif verb == "fit":
        # jsonargparse prints the configuration where it meets --print_config, and exits.
        assert parse(make_parser(), [word for word in rest if word != "--print_config"]).config
    elif verb == "sample":
        sample._settle(sample._parser().parse_args(rest))
    elif verb == "doctor":
        Plan(rest)
    elif verb == "convert":
        convert.check(convert._parser().parse_args(rest))
    elif verb == "dashboard":
        dashboard._parser().parse_args(rest)
    elif verb == "report":
        report._parser().parse_args(rest)
    elif verb == "submit":
        assert submit.run([*rest, "--dry-run"]) == 0
    elif verb == "status":
        status._parser().parse_args(rest)
    elif rest[0] == "train-extractor":
        train_extractor._parser().parse_args(rest[1:])
    else:
        assert verb == "evaluate"
        evaluate.parse(rest)


@pytest.mark.parametrize("arguments", commands(page("README.md"), "bigtrain"), ids=" ".join)
def test_the_command_parses(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    check(arguments, monkeypatch)


def test_every_verb_is_shown() -> None:
    assert {arguments[0] for arguments in commands(page("README.md"), "bigtrain")} >= VERBS.keys()


@pytest.mark.parametrize(
    "line",
    [
        "bigtrain shards build digits:",
        "bigtrain shards bild digits: data",
        "bigtrain fit --config configs/none.yaml",
        "bigtrain fit --config configs/quickstart.yaml \\\n  --schedule.total_king 5",
        "bigtrain sample runs/a --num 100  # without --out",
        "bigtrain sample runs/a --out a.png --kind walk",
        "bigtrain convert runs/a a.png --to onnx",
        "bigtrain evaluate runs/a --metric fid --numb 3",
        "bigtrain submit --config configs/quickstart.yaml --time 12h",
    ],
)
def test_a_wrong_command_would_be_found(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    (arguments,) = commands(f"```bash\n{line}\n```\n", "bigtrain")
    with pytest.raises(ValueError, match=r"."):
        check(arguments, monkeypatch)


@pytest.mark.parametrize("name", PAGES)
def test_make_has_the_targets(name: str) -> None:
    named = {arguments[0] for arguments in commands(page(name), "make")} | set(
        re.findall(r"`make ([\w-]+)`", page(name))
    )
    assert named
    assert named <= set(re.findall(r"^([\w-]+):", page("Makefile"), re.MULTILINE))


def test_make_quickstart_runs_what_parses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    lines = recipe("quickstart")
    assert [line.split()[0] for line in lines] == ["shards", "fit", "sample"]
    for line in lines:
        check(shlex.split(line), monkeypatch)


def test_make_fashion_trains_and_compares_all_of_its_configurations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    build, fit, evaluate = recipe("fashion")
    check(shlex.split(build), monkeypatch)
    check(shlex.split(evaluate), monkeypatch)
    found = {path.stem.removesuffix("_fashion32") for path in (ROOT / "configs").glob("*_fashion32.yaml")}
    assert found == set(re.findall(r"^FASHION := (.*)$", page("Makefile"), re.MULTILINE)[0].split())
    for name in found:
        check(shlex.split(fit.replace("NAME", name)), monkeypatch)


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", page(name)) if "://" not in link]
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_files_that_contributing_names_exist() -> None:
    named = set(re.findall(r"`((?:[\w.]+/)*(?:test_)?\w+\.(?:py|yaml))`", page("CONTRIBUTING.md"))) - {"utils.py"}
    places = [ROOT, ROOT / "bigtrain", ROOT / "tests/unit"]
    assert named
    assert [name for name in named if not any((place / name).is_file() for place in places)] == []


#: Plays CONTRIBUTING.md's networks, objective, regularizer and game, builds its source, and parses its configurations.
_PLAY = """
import sys
from functools import partial

import examples
import numpy as np

from bigtrain.cli.checks.plan import Plan
from bigtrain.cli.configuration import make_parser, parse
from bigtrain.games import Player
from bigtrain.schedules import Constant
from tests.unit.tiny import CLASSES, adam, play

networks = {"resolution": 8, "image_channels": 1, "num_classes": CLASSES}
game = play(
    examples.TopKGame(
        Player(partial(examples.DenseGenerator, **networks), adam),
        Player(partial(examples.DenseDiscriminator, **networks), adam),
        examples.LeastSquares(),
        Constant(8, 8, 0.1),
        [examples.FlipConsistency(10)],
        accumulation=2,
    ),
    3,
)
assert {"loss_g", "grad_norm_g", "loss_d/FlipConsistency"} <= game.measured.keys()
assert all(value.isfinite() for value in game.measured.values())

np.savez("images.npz", images=np.full((3, 8, 8), 7, np.uint8), labels=np.array([4, 5, 5]))
source = examples.npz("images.npz", None, False)
assert (len(source), source.classes, source.label(2), source.load(0).getpixel((1, 1))) == (3, ["4", "5"], 1, 7)

recipe, *fragments = sys.argv[1:]
for fragment in fragments:
    parse(make_parser(), ["--config", recipe, "--config", fragment])
"""


def test_what_contributing_adds_works(tmp_path: Path) -> None:
    """In a process of its own, where the classes that are added disturb no other test."""
    text = page("CONTRIBUTING.md")
    (tmp_path / "examples.py").write_text("\n".join(blocks(text, "python")), encoding="utf-8")
    fragments = [tmp_path / f"{number}.yaml" for number, _ in enumerate(blocks(text, "yaml"))]
    assert len(fragments) == 3
    for path, fragment in zip(fragments, blocks(text, "yaml"), strict=True):
        path.write_text(fragment, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", _PLAY, str(ROOT / "configs/quickstart.yaml"), *map(str, fragments)],
        env={**ENVIRONMENT, "PYTHONPATH": f"{ROOT}:{tmp_path}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
