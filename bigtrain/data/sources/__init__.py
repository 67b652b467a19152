"""Where the images of `bigtrain shards build SOURCE` come from."""

from __future__ import annotations

from pathlib import Path

from bigtrain.data.kinds import KINDS
from bigtrain.data.sources.archive import Zip
from bigtrain.data.sources.arrays import digits, idx
from bigtrain.data.sources.base import Skip, Source
from bigtrain.data.sources.folder import Folder
from bigtrain.data.sources.huggingface import huggingface
from bigtrain.data.sources.shards import Shards, is_shards
from bigtrain.data.sources.torchvision import torchvision
from bigtrain.storage import is_remote

__all__ = ["Skip", "Source", "open_source"]
_SCHEMES = ("digits", "idx", "torchvision", "hf", "shards")


def open_source(
    name: str,
    channels: int | None = None,
    subfolder: str | None = None,
    unlabelled: bool = False,
    split: str | None = None,
    download: bool = False,
) -> Source:
    """The source of that name.

    Args:
        name: one of `KINDS`.
        channels: of the images in the shards, 1 or 3; without it 1 for digits and idx, 3 for files.
        subfolder: of a folder or zip, to begin with.
        unlabelled: drop the labels.
        split: of a data set of torchvision.
        download: let torchvision download what is not there.

    Raises:
        ValueError: if there is no such source, or it cannot be what it says; it names what, and the remedy.
    """
    scheme, rest = _scheme(name)
    if subfolder and scheme:
        raise ValueError(f"--subfolder (={subfolder!r}) is for folders and zips, not for {name}")
    if (split or download) and scheme != "torchvision":
        option = f"--split (={split!r})" if split else "--download"
        raise ValueError(f"{option} is for torchvision:NAME, not for {name}")
    if scheme == "torchvision":
        return torchvision(rest, channels, unlabelled, split, download)
    if scheme == "hf":
        return huggingface(rest, channels, unlabelled)
    if scheme == "shards":
        return Shards(rest, channels, unlabelled)
    if scheme:
        return _arrays(name, scheme, rest, channels, unlabelled)
    return _files(name, channels, subfolder, unlabelled)


def _scheme(name: str) -> tuple[str, str]:
    """What kind of source is named, and what follows; an empty kind for files."""
    scheme, colon, rest = name.partition(":")
    if scheme in _SCHEMES and colon and not Path(name).exists():
        return scheme, rest
    if is_remote(name) and name.lower().endswith(".zip"):
        return "", name
    if is_remote(name) or name.endswith(".tar") or "{" in name:
        return ("", name) if Path(name).is_dir() else ("shards", name)
    return ("shards", name) if Path(name).is_dir() and is_shards(Path(name)) else ("", name)


def _files(name: str, channels: int | None, subfolder: str | None, unlabelled: bool) -> Source:
    if is_remote(name):
        return Zip(name, subfolder, channels, unlabelled)
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
