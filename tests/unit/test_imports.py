"""The import table: six floors, every arrow down, what each room never imports, no circle, no place for anything."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.import_rules import (
    FLOORS,
    LODGERS,
    NEVER,
    Package,
    circles,
    forbidden,
    room_of,
    undeclared,
    unplaced,
    upward,
)

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it

ROOT = Path(__file__).parents[2]
Rule = Callable[[Package], list[str]]


@pytest.fixture(scope="module")
def bigtrain() -> Package:
    return Package(ROOT)


def test_the_walk_sees_the_package(bigtrain: Package) -> None:
    assert {room_of(module) for module in bigtrain.paths} >= {"clock", "networks", "data", "games", "callbacks", "cli"}
    assert "bigtrain.networks.base" in [target for _, target in bigtrain.arrows("bigtrain.networks.progressive")]
    assert "bigtrain.storage" in [chain[-1] for chain in bigtrain.chains("bigtrain.data.batches") if len(chain) > 2]
    assert "os.environ.get" in [name for _, name in bigtrain.uses["bigtrain.cli.main"]]


@pytest.mark.parametrize("rule", [unplaced, upward, forbidden, circles])
def test_the_package_keeps_the_rule(rule: Rule, bigtrain: Package) -> None:
    assert rule(bigtrain) == []


def test_what_is_imported_is_declared_and_what_is_declared_is_imported(bigtrain: Package) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [one for name, some in project["optional-dependencies"].items() if name != "dev" for one in some]
    assert undeclared(bigtrain, [*project["dependencies"], *extras]) == []


def test_contributing_shows_this_table() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = {int(number): _code(rooms) for number, rooms in re.findall(r"^\| (\d) \| (.+) \|$", text, re.MULTILINE)}
    assert {n: rooms - LODGERS.keys() for n, rooms in rows.items()} == {n: set(f) for n, f in enumerate(FLOORS, 1)}
    never = re.findall(r"^\| (`.+`) \| (`.+`) \|$", text, re.MULTILINE)
    shown = {room: _code(names) for rooms, names in never for room in _code(rooms)}
    assert shown == {room: set(names) for room, names in NEVER.items()}


def _code(text: str) -> set[str]:
    return set(re.findall(r"`([^`]+)`", text))


def made(root: Path, files: dict[str, str]) -> Package:
    """A package of these files, with an empty `__init__.py` wherever there is none."""
    for name, source in files.items():
        path = root / "bigtrain" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")
        (path.parent / "__init__.py").touch()
    return Package(root)


def requiring(*requirements: str) -> Rule:
    return lambda package: undeclared(package, requirements)


#: A rule, files that break it once, and what it says.
BROKEN: list[tuple[Rule, dict[str, str], str]] = [
    (unplaced, {"plugins/a.py": ""}, "room 'plugins' has no floor"),
    (unplaced, {"data/utils.py": ""}, "data/utils.py: is a place for anything"),
    (upward, {"storage.py": "import bigtrain.data.b", "data/b.py": ""}, "storage.py:1: storage is not above data"),
    (
        upward,
        {"objectives.py": "\nimport bigtrain.networks.b as b", "networks/b.py": ""},
        "objectives.py:2: objectives",
    ),
    (upward, {"games/a.py": "def f():\n    from bigtrain.data import b", "data/b.py": ""}, "games/a.py:2: games"),
    (upward, {"games/a.py": "if TYPE_CHECKING:\n    import bigtrain.data", "data/b.py": ""}, "games/a.py:2: games"),
    (upward, {"games/a.py": "from ..data.b import c", "data/b.py": ""}, "games/a.py:1: games is not above data"),
    (upward, {"games/__init__.py": "from ..data import b", "data/b.py": ""}, "games/__init__.py:1: games"),
    (upward, {"schedules.py": "from . import checkpoints", "checkpoints.py": ""}, "schedules.py:1: schedules"),
    (upward, {"schedules.py": "import bigtrain\nbigtrain.cli.b()", "cli/b.py": ""}, "schedules.py:2: schedules"),
    (upward, {"callbacks/a.py": "from bigtrain.cli import b", "cli/b.py": ""}, "a.py:1: callbacks is not above cli"),
    (upward, {"__init__.py": "from bigtrain.cli import b", "cli/b.py": ""}, "__init__.py:1: bigtrain is not above"),
    (upward, {"__main__.py": "from bigtrain import clock", "clock.py": ""}, "__main__.py:1: bigtrain.__main__"),
    (
        forbidden,
        {"networks/a.py": "import torch\ntorch.distributed.barrier()"},
        "a.py:2: networks never imports torch.",
    ),
    (forbidden, {"networks/a.py": "import torch.distributed as dist"}, "a.py:1: networks never imports torch.dist"),
    (forbidden, {"objectives.py": "from lightning.pytorch import Trainer"}, "objectives.py:1: objectives never"),
    (forbidden, {"regularizers.py": "def f():\n    import webdataset"}, "regularizers.py:2: regularizers never"),
    (forbidden, {"clock.py": "from torch import Tensor"}, "clock.py:1: clock never imports torch"),
    (
        forbidden,
        {"schedules.py": "from bigtrain.randomness import a", "randomness.py": "import torch"},
        "randomness.py:1: schedules never imports torch (bigtrain.schedules → bigtrain.randomness)",
    ),
    (
        forbidden,
        {"data/a.py": "import bigtrain.sampling.b", "sampling/b.py": "import bigtrain.networks", "networks/c.py": ""},
        "sampling/b.py:1: data never imports networks (bigtrain.data.a → bigtrain.sampling.b)",
    ),
    (
        forbidden,
        {
            "data/a.py": "import bigtrain.sampling.b",
            "sampling/b.py": "",
            "sampling/__init__.py": "import bigtrain.networks",
            "networks/c.py": "",
        },
        "sampling/__init__.py:1: data never imports networks (bigtrain.data.a → bigtrain.sampling)",
    ),
    (forbidden, {"games/a.py": "import os\nos.environ['A']"}, "games/a.py:2: games never imports os.environ"),
    (forbidden, {"games/a.py": "from os import getenv as g"}, "games/a.py:1: games never imports os.getenv"),
    (forbidden, {"games/a.py": "from pathlib import Path"}, "games/a.py:1: games never imports pathlib"),
    (forbidden, {"games/a.py": "from lightning.pytorch.loggers import WandbLogger"}, "games never imports wandb"),
    (forbidden, {"evaluation/a.py": "from bigtrain import snapshots", "snapshots.py": ""}, "a.py:1: evaluation never"),
    (forbidden, {"evaluation/a.py": "from bigtrain.data import b", "data/b.py": ""}, "a.py:1: evaluation never"),
    (forbidden, {"interop/a.py": "from bigtrain import games", "games/b.py": ""}, "interop/a.py:1: interop never"),
    (circles, {"data/a.py": "from . import b", "data/b.py": "def f():\n    from . import a"}, "bigtrain.data.a → "),
    (circles, {"data/a.py": "from bigtrain.data import c", "data/__init__.py": "from .a import b"}, "bigtrain.data → "),
    (requiring(), {"clock.py": "\nimport numpy.random"}, "clock.py:2: numpy is imported, but not declared"),
    (requiring("scikit-learn>=1.4"), {"clock.py": "import os"}, "scikit-learn>=1.4 is declared, but sklearn is not"),
    (requiring("torchmetrics>=1"), {"clock.py": "import torchmetrics, torch_fidelity"}, "torch_fidelity is imported"),
]


@pytest.mark.parametrize(("rule", "files", "said"), BROKEN)
def test_the_rule_names_what_breaks_it(rule: Rule, files: dict[str, str], said: str, tmp_path: Path) -> None:
    (fault,) = rule(made(tmp_path, files))
    assert said in fault


def test_what_is_allowed_breaks_nothing(tmp_path: Path) -> None:
    files = {
        "__main__.py": "from bigtrain.cli.main import main",
        "cli/main.py": "import os\nfrom bigtrain import __version__\nfrom . import fit\nos.environ.get('A')",
        "cli/fit.py": "from bigtrain.games import player, base",
        "games/base.py": "import os, torch.distributed\nfrom bigtrain.games.player import Player\nos.fspath('a')",
        "games/player.py": "import lightning, numpy as np\nfrom bigtrain import storage",
        "storage.py": "from pathlib import Path\nimport os\nos.environ['A']",
        "snapshots.py": "import bigtrain.checkpoints",
        "checkpoints.py": "from yaml import safe_load",
    }
    package = made(tmp_path, files)
    assert [fault for rule in (unplaced, upward, forbidden, circles) for fault in rule(package)] == []
    assert undeclared(package, ["torch>=2", "lightning", "numpy>=1", "PyYAML"]) == []
