"""What is installed, against what bigtrain declares that it needs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import metadata

from bigtrain.cli.checks.finding import Finding, error, ok, warning
from bigtrain.cli.checks.plan import Plan
from bigtrain.runtime.environment import versions

#: Releases that were taken back after a compromise.
WITHDRAWN = {"lightning": ("2.6.2", "2.6.3"), "pytorch-lightning": ("2.6.2", "2.6.3")}
_FLOOR = re.compile(r"^([\w.-]+)(?:\[[^]]*\])?[^;]*?>=\s*([\w.]+)[^;]*$")  # not of an extra


def software(plan: Plan) -> list[Finding]:
    """Versions, as a run records them; packages that are missing, too old or withdrawn."""
    faults = [*_withdrawn(), *_too_old()]
    return faults or [ok(", ".join(f"{name} {version}" for name, version in versions().items()))]


def _withdrawn() -> Iterator[Finding]:
    for package, releases in WITHDRAWN.items():
        if (found := _version(package)) in releases:
            yield error(
                f"{package} {found} was withdrawn after a compromise",
                f"pip install -U '{package}>=2.6.4', and renew the credentials that this machine has seen",
            )


def _too_old() -> Iterator[Finding]:
    try:
        needed = metadata.requires("bigtrain") or []
    except metadata.PackageNotFoundError:
        yield warning("bigtrain is not installed, so that what it needs is not known", "pip install .")
        return
    for requirement in filter(None, map(_FLOOR.match, needed)):
        package, floor = requirement.groups()
        found = _version(package)
        if found is None or _numbers(found) < _numbers(floor):
            here = "is not installed" if found is None else f"{found} is too old"
            yield error(f"{package} {here}", f"pip install '{package}>={floor}'")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> tuple[int, ...]:
    """Those of the release: (2, 9, 1) of `2.9.1+cu128`."""
    return tuple(map(int, re.findall(r"\d+", version.partition("+")[0])[:3]))
