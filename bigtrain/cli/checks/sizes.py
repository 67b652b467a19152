"""Bytes for people."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

MIB, GIB = 1 << 20, 1 << 30


def shown(count: float) -> str:
    """Three digits and a unit: `1.46 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.3g} TiB" if count < 1000 else f"{count:.0f} TiB"


def existing(path: Path) -> Path:
    """The folder itself, or the nearest one around it that is there."""
    return next(one for one in (path, *path.absolute().parents) if one.is_dir())


def stored(folders: Iterable[Path]) -> int:
    """Bytes of all files below the folders."""
    return sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())
