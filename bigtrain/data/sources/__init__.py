"""Where the images of `bigtrain shards build SOURCE` come from."""

from __future__ import annotations

from pathlib import Path

from bigtrain.data.kinds import KINDS
from bigtrain.data.sources.archive import Zip
from bigtrain.data.sources.arrays import digits, idx
from bigtrain.data.sources.base import Skip, Source
from bigtrain.data.sources.folder import Folder

__all__ = ["Skip", "Source", "open_source"]


def open_source(
    name: str, channels: int | None = None, subfolder: str | None = None, unlabelled: bool = False
) -> Source:
    """The source of that name.

    Args:
        name: one of `KINDS`.
        channels: of the images in the shards, 1 or 3; without it 1 for digits and idx, 3 for files.
        subfolder: of a folder or zip, to begin with.
        unlabelled: drop the labels.

    Raises:
        ValueError: if there is no such source, or it cannot be what it says; it names what, and the remedy.
    """
    scheme, colon, rest = name.partition(":")
    if scheme in ("digits", "idx") and colon and not Path(name).exists():
        if subfolder:
            raise ValueError(f"--subfolder (={subfolder!r}) is for folders and zips, not for {name}")
        return _arrays(name, scheme, rest, channels, unlabelled)
    path = Path(name)
    if path.is_dir():
        return Folder(path, subfolder, channels, unlabelled)
    if path.suffix.lower() == ".zip" and path.is_file():
        return Zip(path, subfolder, channels, unlabelled)
    problem = "is not a kind of source" if path.exists() else "does not exist"
    raise ValueError(f"SOURCE {name!r} {problem}; a source is {KINDS}")


def _arrays(name: str, scheme: str, rest: str, channels: int | None, unlabelled: bool) -> Source:
    if scheme == "digits":
        if rest:
            raise ValueError(f"SOURCE {name!r} must be `digits:`, with nothing after the colon")
        return digits(channels, unlabelled)
    folder = Path(rest)
    if not rest or not folder.is_dir():
        raise ValueError(f"SOURCE {name!r}: there is no folder {rest!r}; a source is {KINDS}")
    return idx(folder, channels, unlabelled)
