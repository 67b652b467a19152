"""The rules of imports between the rooms, as functions from a package's source to what breaks them."""

from __future__ import annotations

import ast
import re
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

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
_NOT_PLAIN = ("lightning", "wandb", "webdataset", "torch.distributed")
#: Rooms and packages that a room does not import, not even through a module that it imports.
NEVER: dict[str, tuple[str, ...]] = {
    "networks": _NOT_PLAIN,
    "objectives": _NOT_PLAIN,
    "regularizers": _NOT_PLAIN,
    "clock": ("torch",),
    "schedules": ("torch",),
    "storage": ("torch",),
    "data": ("networks", "games"),
    "games": ("wandb", "webdataset", "pathlib", "os.path", "os.environ", "os.getenv"),
    "evaluation": ("games", "data", "checkpoints"),
    "interop": ("games", "data"),
}
#: Of these only the room's own files are free: what it imports may well know files and the environment.
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
CATCH_ALLS = ("utils", "util", "helpers", "misc")


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
        found = [path.relative_to(root) for path in sorted((root / "bigtrain").rglob("*.py"))]
        self.paths = {".".join(path.with_suffix("").parts).removesuffix(".__init__"): path for path in found}
        self.uses = {
            module: sorted(set(_uses((root / path).read_text(encoding="utf-8"), ".".join(path.parent.parts))))
            for module, path in self.paths.items()
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
    part = [*module.split("."), ""][1]
    return None if part in ("", "__main__") else LODGERS.get(part, part)


def _packages_around(module: str) -> list[str]:
    """The packages whose `__init__.py` runs before the module, `bigtrain` itself excepted."""
    parts = module.split(".")
    return [".".join(parts[:length]) for length in range(2, len(parts))]


def _uses(source: str, package: str) -> Iterator[Use]:
    """Every import, wherever it stands (also in functions and for types only), and the attributes of what it binds.

    Args:
        source: of a module.
        package: that the module is in, or is: where its relative imports start.
    """
    nodes = list(ast.walk(ast.parse(source)))
    bound: dict[str, str] = {}
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _named(node.lineno, alias.name)
                first = alias.name.split(".")[0]
                bound[alias.asname or first] = alias.name if alias.asname else first
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, package)
            for alias in node.names:
                name = base if alias.name == "*" else f"{base}.{alias.name}"
                yield from _named(alias.lineno, name)
                bound[alias.asname or alias.name] = name
    attributes = [node for node in nodes if isinstance(node, ast.Attribute)]
    inner = {id(node.value) for node in attributes}
    for node in attributes:
        first, _, rest = ast.unparse(node).partition(".")
        if id(node) not in inner and first in bound and re.fullmatch(r"[\w.]+", rest):
            yield from _named(node.lineno, f"{bound[first]}.{rest}")


def _absolute(node: ast.ImportFrom, package: str) -> str:
    """The module that `from … import` names: one dot is the package, each further one the package around it."""
    parts = package.split(".")
    above = parts[: len(parts) - node.level + 1] if node.level else []
    return ".".join([*above, *([node.module] if node.module else [])])


def _named(line: int, name: str) -> Iterator[Use]:
    yield Use(line, name)
    yield from (Use(line, package) for alias, package in ALIASES.items() if _within(name, alias))


def _within(name: str, outer: str) -> bool:
    return name == outer or name.startswith(f"{outer}.")


def unplaced(package: Package) -> list[str]:
    """Rooms that have no floor, and modules that are a place for anything."""
    rooms = {room: path for module, path in package.paths.items() if (room := room_of(module)) not in FLOOR_OF}
    anything = [path for module, path in package.paths.items() if module.rpartition(".")[2] in CATCH_ALLS]
    return [
        *(f"{path.as_posix()}: room {room!r} has no floor: give it one" for room, path in rooms.items() if room),
        *(f"{path.as_posix()}: is a place for anything: name it by what it does" for path in anything),
    ]


def upward(package: Package) -> list[str]:
    """Imports from the same floor or a higher one. `bigtrain` itself imports nothing, `bigtrain.__main__` the cli."""
    faults = []
    for module in package.paths:
        room = room_of(module)
        for line, target in package.arrows(module):
            other = room_of(target)
            if other in (None, room) or (module == "bigtrain.__main__" and other == "cli"):
                continue
            if room is None or FLOOR_OF.get(other, len(FLOORS)) >= FLOOR_OF.get(room, 0):
                faults.append(f"{package.at(module, line)}: {room or module} is not above {other}: it imports {target}")
    return faults


def forbidden(package: Package) -> list[str]:
    """What `NEVER` says, in a room's own files or in those that they import."""
    faults = []
    for module in package.paths:
        for name in NEVER.get(room_of(module) or "", ()):
            for chain in package.chains(module):
                line = _first_use(package, chain[-1], name)
                if line and (len(chain) == 1 or name not in OWN_FILES_ONLY):
                    through = f" ({' → '.join(chain)})" if len(chain) > 1 else ""
                    faults.append(f"{package.at(chain[-1], line)}: {room_of(module)} never imports {name}{through}")
                    break
    return faults


def _first_use(package: Package, module: str, name: str) -> int | None:
    """The first line of a module that uses a room of this package, or a name of another."""
    if name in FLOOR_OF:
        return next((line for line, target in package.arrows(module) if room_of(target) == name), None)
    return next((line for line, used in package.uses[module] if _within(used, name)), None)


def circles(package: Package) -> list[str]:
    """Modules that import each other, on whatever way."""
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
    """Packages that are imported without being required, and those that are required without being imported."""
    provided = {requirement: _provides(requirement) for requirement in requirements}
    used: dict[str, str] = {}
    for module, uses in package.uses.items():
        for line, name in uses:
            used.setdefault(name.split(".")[0], package.at(module, line))
    foreign = used.keys() - sys.stdlib_module_names - {"bigtrain"}
    missing = sorted(foreign - set().union(*provided.values()))
    faults = [f"{used[name]}: {name} is imported, but not declared in pyproject.toml" for name in missing]
    for requirement, names in provided.items():
        idle = sorted(names - foreign)
        faults += [f"pyproject.toml: {requirement} is declared, but {name} is not imported" for name in idle]
    return faults


def _provides(requirement: str) -> set[str]:
    """What a requirement such as `torchmetrics[image]>=1.8` is imported as."""
    found = re.match(r"([\w.-]+)(\[[\w,-]+\])?", requirement)
    assert found is not None
    name, extras = found.groups(default="")
    return PROVIDES.get(name + extras) or PROVIDES.get(name) or {name.lower().replace("-", "_")}
