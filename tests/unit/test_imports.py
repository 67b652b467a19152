"""The import table of CONTRIBUTING.md: six floors, every arrow down, what no room imports, no circle, no `utils.py`."""

from __future__ import annotations

import ast
import re
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it

ROOT = Path(__file__).parents[2]

#: The rooms, from the ground floor up. A room imports only from lower floors.
FLOORS = (
    ("clock", "randomness", "storage", "networks", "objectives", "regularizers", "runtime"),
    ("schedules", "sampling", "interop", "checkpoints"),
    ("data", "games"),
    ("evaluation",),
    ("callbacks",),
    ("cli",),
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS, start=1) for room in rooms}
#: Modules that belong to a room of another name.
LODGERS = {"snapshots": "checkpoints"}
#: Rooms and packages that a room does not import, not even through a module that it imports.
_PLAIN = ("lightning", "wandb", "webdataset", "torch.distributed")
NEVER = {
    "networks": _PLAIN,
    "objectives": _PLAIN,
    "regularizers": _PLAIN,
    "clock": ("torch",),
    "schedules": ("torch",),
    "storage": ("torch",),
    "data": ("networks", "games"),
    "games": ("wandb", "webdataset", "pathlib", "os.path", "os.environ", "os.getenv"),
    "evaluation": ("games", "data", "checkpoints"),
    "interop": ("games", "data"),
}
#: Of these a room is free if its own files are: what it imports may well know files and the environment.
OWN_FILES_ONLY = ("pathlib", "os.path", "os.environ", "os.getenv")
#: Names by which a package is imported without being named.
ALIASES = {"lightning.pytorch.loggers.WandbLogger": "wandb", "lightning.pytorch.loggers.wandb": "wandb"}
#: What a requirement is imported as, where that is not its name. An extra is there for a package of its own.
PROVIDES = {
    "Pillow": {"PIL"},
    "PyYAML": {"yaml"},
    "scikit-learn": {"sklearn"},
    "torchmetrics[image]": {"torchmetrics", "torch_fidelity"},
}
DUMPING_GROUNDS = ("utils", "util", "helpers", "misc")


class Use(NamedTuple):
    """A dotted name that a module imports, or reaches as an attribute of what it imports: `os.environ`."""

    line: int
    name: str


class Package:
    """The modules of a package by name, and what each of them uses, read without importing any of it.

    Args:
        root: of the repository; the package is its folder `bigtrain`.
    """

    def __init__(self, root: Path) -> None:
        paths = [path.relative_to(root) for path in sorted((root / "bigtrain").rglob("*.py"))]
        self.paths = {".".join(path.with_suffix("").parts).removesuffix(".__init__"): path for path in paths}
        self.uses = {
            name: sorted(set(_uses((root / path).read_text(encoding="utf-8"), _parent(name, path))))
            for name, path in self.paths.items()
        }

    def at(self, module: str, line: int) -> str:
        return f"{self.paths[module].as_posix()}:{line}"

    def module(self, name: str) -> str | None:
        """The module of this package that a dotted name is, or is in; None for other packages."""
        while name and name not in self.paths:
            name = name.rpartition(".")[0]
        return name or None

    def arrows(self, module: str) -> list[tuple[int, str]]:
        """The lines of a module that import from this package, with the module that they import."""
        found = ((line, self.module(name)) for line, name in self.uses[module])
        return list(dict.fromkeys((line, target) for line, target in found if target))

    def chains(self, start: str) -> Iterator[list[str]]:
        """The module itself and every module that importing it brings in, each by its shortest chain of imports."""
        pending, seen = deque([[start]]), {start, "bigtrain"}
        while pending:
            chain = pending.popleft()
            yield chain
            for _, target in self.arrows(chain[-1]):
                for module in (target, *_packages_around(target)):
                    if module not in seen:
                        seen.add(module)
                        pending.append([*chain, module])


def room_of(module: str) -> str | None:
    """The room that a module is in; None for `bigtrain` itself and `bigtrain.__main__`."""
    part = (module.split(".") + [""])[1]
    return None if part in ("", "__main__") else LODGERS.get(part, part)


def _parent(module: str, path: Path) -> str:
    """What a relative import of one dot starts from."""
    return module if path.name == "__init__.py" else module.rpartition(".")[0]


def _packages_around(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:length]) for length in range(2, len(parts))]


def _uses(source: str, package: str) -> Iterator[Use]:
    """Every import, wherever it stands (also in functions and for types only), and the attributes of what it binds."""
    nodes = list(ast.walk(ast.parse(source)))
    bound: dict[str, str] = {}
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _named(node.lineno, alias.name)
                bound[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                name = base if alias.name == "*" else f"{base}.{alias.name}"
                yield from _named(alias.lineno, name)
                bound[alias.asname or alias.name] = name
    for node in nodes:
        if isinstance(node, ast.Attribute):
            first, dot, rest = ast.unparse(node).partition(".")
            if first in bound and re.fullmatch(r"[\w.]+", rest):
                yield from _named(node.lineno, bound[first] + dot + rest)


def _named(line: int, name: str) -> Iterator[Use]:
    yield Use(line, name)
    yield from (Use(line, other) for alias, other in ALIASES.items() if _within(name, alias))


def _within(name: str, outer: str) -> bool:
    return name == outer or name.startswith(f"{outer}.")


# ------------------------------------------------------------------------- the rules: each lists what breaks it


def unplaced(package: Package) -> list[str]:
    """Rooms that no floor has, and modules that are a place for anything."""
    faults = []
    for module, path in package.paths.items():
        if (room := room_of(module)) is not None and room not in FLOOR_OF:
            faults.append(f"{path.as_posix()}: the room {room!r} has no floor; place it in FLOORS and CONTRIBUTING.md")
        if module.rpartition(".")[2] in DUMPING_GROUNDS:
            faults.append(f"{path.as_posix()}: name it by what it does")
    return faults


def upward(package: Package) -> list[str]:
    """Imports from the same floor or a higher one. `bigtrain` itself imports nothing, `bigtrain.__main__` the cli."""
    faults = []
    for module in package.paths:
        room = room_of(module)
        for line, target in package.arrows(module):
            other = room_of(target)
            if other in (None, room) or (module == "bigtrain.__main__" and other == "cli"):
                continue
            if room is None or FLOOR_OF.get(other, 99) >= FLOOR_OF.get(room, 0):
                faults.append(f"{package.at(module, line)}: {room or module} is not above {other}: it imports {target}")
    return faults


def forbidden(package: Package) -> list[str]:
    """What `NEVER` says, directly or through others."""
    faults = {}
    for module in package.paths:
        for name in NEVER.get(room_of(module) or "", ()):
            for chain in package.chains(module):
                line = _line_of(package, chain[-1], name)
                if line and (len(chain) == 1 or name not in OWN_FILES_ONLY):
                    through = f" ({' → '.join(chain)})" if len(chain) > 1 else ""
                    faults[module, name] = (
                        f"{package.at(chain[-1], line)}: {room_of(module)} never imports {name}{through}"
                    )
                    break
    return list(faults.values())


def _line_of(package: Package, module: str, name: str) -> int | None:
    """The first line of a module that uses a name: a room of this package or a package's."""
    if name in FLOOR_OF:
        return next((line for line, target in package.arrows(module) if room_of(target) == name), None)
    return next((line for line, used in package.uses[module] if _within(used, name)), None)


def circles(package: Package) -> list[str]:
    """Modules that import each other, by whatever way."""
    faults: list[str] = []
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> None:
        if module in path:
            faults.append(" → ".join([*path[path.index(module) :], module]))
        elif module not in done:
            for target in sorted({target for _, target in package.arrows(module)}):
                visit(target, [*path, module])
            done.add(module)

    for module in package.paths:
        visit(module, [])
    return faults


def undeclared(package: Package, requirements: Iterable[str]) -> list[str]:
    """Packages that are imported without being required, and the reverse."""
    provided = {requirement: _provides(requirement) for requirement in requirements}
    declared = set().union(*provided.values())
    used: dict[str, str] = {}
    for module, uses in package.uses.items():
        for line, name in uses:
            used.setdefault(name.split(".")[0], package.at(module, line))
    foreign = {
        name: where for name, where in used.items() if name not in sys.stdlib_module_names and name != "bigtrain"
    }
    faults = [
        f"{foreign[name]}: {name} is not declared in pyproject.toml" for name in sorted(foreign.keys() - declared)
    ]
    for requirement, names in provided.items():
        faults += [
            f"pyproject.toml: {requirement} is declared, {name} not used" for name in sorted(names - foreign.keys())
        ]
    return faults


def _provides(requirement: str) -> set[str]:
    """What a requirement such as `torchmetrics[image]>=1.8` can be imported as."""
    name, extras = re.match(r"([\w.-]+)(\[[\w,-]+\])?", requirement).groups(default="")  # type: ignore[union-attr]
    return PROVIDES.get(name + extras) or PROVIDES.get(name) or {name.lower().replace("-", "_")}


# ------------------------------------------------------------------------- the package keeps them


@pytest.fixture(scope="module")
def bigtrain() -> Package:
    return Package(ROOT)


def test_the_walk_sees_the_package(bigtrain: Package) -> None:
    assert {room_of(module) for module in bigtrain.paths} >= {"clock", "networks", "data", "games", "callbacks", "cli"}
    assert "bigtrain.networks.base" in dict(map(reversed, bigtrain.arrows("bigtrain.networks.progressive")))  # type: ignore[arg-type]
    assert ["bigtrain.data.batches", "bigtrain.data.reader", "bigtrain.storage"] in list(
        bigtrain.chains("bigtrain.data.batches")
    )


@pytest.mark.parametrize("rule", [unplaced, upward, forbidden, circles])
def test_the_package_keeps_the_rule(rule: Callable[[Package], list[str]], bigtrain: Package) -> None:
    assert rule(bigtrain) == []


def test_what_is_imported_is_declared_and_what_is_declared_is_imported(bigtrain: Package) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [one for name, some in project["optional-dependencies"].items() if name != "dev" for one in some]
    assert undeclared(bigtrain, [*project["dependencies"], *extras]) == []


def test_contributing_shows_these_tables() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    floors = {int(number): _code(rooms) for number, rooms in re.findall(r"^\| (\d) \| (.+) \|$", text, re.MULTILINE)}
    lodgers = set(LODGERS)
    assert {n: names - lodgers for n, names in floors.items()} == {n: set(f) for n, f in enumerate(FLOORS, start=1)}
    rows = re.findall(r"^\| (`.+`) \| (`.+`) \|$", text, re.MULTILINE)
    assert {room: _code(names) for rooms, names in rows for room in _code(rooms)} == {
        room: set(names) for room, names in NEVER.items()
    }


def _code(text: str) -> set[str]:
    return set(re.findall(r"`([^`]+)`", text))


# ------------------------------------------------------------------------- and each can be broken


def made(root: Path, files: dict[str, str]) -> Package:
    """A package of these files, with an empty `__init__.py` wherever there is none."""
    for name, source in files.items():
        path = root / "bigtrain" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")
    for path in list(root.rglob("*.py")):
        (path.parent / "__init__.py").touch()
    return Package(root)


BROKEN = [
    (unplaced, {"plugins/a.py": ""}, "bigtrain/plugins/a.py: the room 'plugins'"),
    (unplaced, {"data/utils.py": ""}, "bigtrain/data/utils.py: name it"),
    (
        upward,
        {"storage.py": "import bigtrain.data.order", "data/order.py": ""},
        "storage.py:1: storage is not above data",
    ),
    (
        upward,
        {"objectives.py": "\nfrom bigtrain.networks.base import Network", "networks/base.py": ""},
        "objectives.py:2",
    ),
    (upward, {"games/a.py": "def f():\n    from bigtrain.data import b", "data/b.py": ""}, "games/a.py:2: games"),
    (upward, {"games/a.py": "from ..data.b import c", "data/b.py": ""}, "games/a.py:1: games is not above data"),
    (upward, {"games/__init__.py": "from ..data import b", "data/b.py": ""}, "games/__init__.py:1: games"),
    (upward, {"schedules.py": "from . import checkpoints", "checkpoints.py": ""}, "schedules.py:1: schedules"),
    (upward, {"schedules.py": "import bigtrain\nbigtrain.cli.x()", "cli/x.py": ""}, "schedules.py:2: schedules"),
    (upward, {"callbacks/a.py": "from bigtrain.cli import main", "cli/main.py": ""}, "callbacks/a.py:1: callbacks"),
    (upward, {"__init__.py": "from bigtrain.cli import main", "cli/main.py": ""}, "bigtrain/__init__.py:1: bigtrain"),
    (
        upward,
        {"__main__.py": "from bigtrain import clock", "clock.py": ""},
        "bigtrain/__main__.py:1: bigtrain.__main__",
    ),
    (forbidden, {"networks/a.py": "import torch\ntorch.distributed.barrier()"}, "networks/a.py:2: networks never"),
    (forbidden, {"networks/a.py": "import torch.distributed as dist"}, "networks/a.py:1: networks never"),
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
        {
            "data/a.py": "from bigtrain.sampling import b",
            "sampling/b.py": "import bigtrain.networks",
            "networks/c.py": "",
        },
        "sampling/b.py:1: data never imports networks (bigtrain.data.a → bigtrain.sampling.b)",
    ),
    (
        forbidden,
        {
            "data/a.py": "import bigtrain.schedules.b",
            "schedules/__init__.py": "import bigtrain.networks",
            "networks/c.py": "",
        },
        "schedules/__init__.py:1: data never imports networks",
    ),
    (forbidden, {"games/a.py": "import os\nos.environ['A']"}, "games/a.py:2: games never imports os.environ"),
    (forbidden, {"games/a.py": "from os import getenv as g"}, "games/a.py:1: games never imports os.getenv"),
    (forbidden, {"games/a.py": "from pathlib import Path"}, "games/a.py:1: games never imports pathlib"),
    (forbidden, {"games/a.py": "from lightning.pytorch.loggers import WandbLogger"}, "games/a.py:1: games never"),
    (
        forbidden,
        {"evaluation/a.py": "from bigtrain import snapshots", "snapshots.py": ""},
        "evaluation/a.py:1: evaluation",
    ),
    (forbidden, {"evaluation/a.py": "from bigtrain.data import b", "data/b.py": ""}, "evaluation/a.py:1: evaluation"),
    (forbidden, {"interop/a.py": "from bigtrain import games", "games/b.py": ""}, "interop/a.py:1: interop never"),
    (circles, {"data/a.py": "from . import b", "data/b.py": "def f():\n    from . import a"}, "bigtrain.data.a → "),
    (circles, {"data/a.py": "from bigtrain.data import c", "data/__init__.py": "from .a import b"}, "bigtrain.data → "),
    (lambda package: undeclared(package, []), {"clock.py": "import numpy.random"}, "clock.py:1: numpy is not declared"),
    (lambda package: undeclared(package, ["scikit-learn>=1.4"]), {"clock.py": ""}, "sklearn not used"),
    (
        lambda package: undeclared(package, ["torchmetrics>=1.8"]),
        {"clock.py": "import torchmetrics, torch_fidelity"},
        "clock.py:1: torch_fidelity is not declared",
    ),
]


@pytest.mark.parametrize(("rule", "files", "named"), BROKEN)
def test_the_rule_names_what_breaks_it(
    rule: Callable[[Package], list[str]], files: dict[str, str], named: str, tmp_path: Path
) -> None:
    (fault,) = rule(made(tmp_path, files))
    assert named in fault


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
