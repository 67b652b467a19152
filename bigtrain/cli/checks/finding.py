"""What a check finds."""

from __future__ import annotations

from typing import Literal, NamedTuple

Level = Literal["ok", "warning", "error"]


class Finding(NamedTuple):
    """What was found, and what to do about it."""

    level: Level
    found: str
    remedy: str = ""


def ok(found: str) -> Finding:
    return Finding("ok", found)


def warning(found: str, remedy: str) -> Finding:
    return Finding("warning", found, remedy)


def error(found: str, remedy: str) -> Finding:
    return Finding("error", found, remedy)


class Line(NamedTuple):
    """A finding and the check that it is of, as the report has them."""

    level: Level
    check: str
    found: str
    remedy: str
