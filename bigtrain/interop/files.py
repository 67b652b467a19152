"""The files of the foreign formats, wherever they are."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import torch

from bigtrain.interop.formats import Format
from bigtrain.interop.unpickle import check_kind, load_file
from bigtrain.storage import Storage

#: What names of files end in; another name is a folder's.
ENDINGS = (".pth", ".pt", ".bin", ".safetensors", ".tar", ".pkl", ".ckpt")


def gather(storage: Storage, file: str | None, known: Format, suffix: str = "") -> Any:
    """What a format's files hold.

    Args:
        storage: the folder.
        file: the one that is given, or None for those of the format that are there.
        known: the format.
        suffix: of the files' names, such as `best0` of G_ema_best0.pth.

    Raises:
        FileNotFoundError, ValueError: if there are none of them, or one is damaged or refused.
    """
    if not known.files:
        return _load(storage, file or "")
    wanted = _names(known, suffix)
    if file is not None:
        wanted = {known.single: file} | {key: _beside(file, wanted[key]) for key in known.companions}
    there = {key: found for key, name in wanted.items() if (found := _there(storage, name)) is not None}
    if not there:
        raise FileNotFoundError(
            f"{storage.locate('')} has none of {', '.join(wanted.values())}, nor one of these as .safetensors; "
            "of names with a suffix, such as G_ema_best0.pth, give --suffix best0"
        )
    return {key: _load(storage, name) for key, name in there.items()}


def scatter(storage: Storage, file: str | None, known: Format, content: Mapping[str, Any]) -> list[str]:
    """Writes what `write` of a format gives. Returns the names of the files.

    Args:
        storage: the folder.
        file: the one that is wanted, or None for all of the format's.
        known: the format.
        content: of its files, or of the one.
    """
    if not known.files:
        files = {file or "": content}
    elif file is not None:
        files = {file: content[known.single]}
    else:
        names = _names(known, "")
        files = {names[key]: value for key, value in content.items()}
    for name, value in files.items():
        buffer = io.BytesIO()
        torch.save(value, buffer)
        storage.write(name, buffer.getvalue())
    return list(files)


def _names(known: Format, suffix: str) -> dict[str, str]:
    return {key: pattern.format(suffix and f"_{suffix.lstrip('_')}") for key, pattern in known.files.items()}


def _beside(file: str, name: str) -> str:
    """The companion of a file, whose name may have something before it: biggan-deep-128-config.json."""
    return file.rpartition("pytorch_model.")[0] + name


def _there(storage: Storage, name: str) -> str | None:
    """The name under which a file is there: its own, or as safetensors."""
    names = (name, name.rpartition(".")[0] + ".safetensors")
    return next((one for one in names if storage.exists(one)), None)


def _load(storage: Storage, name: str) -> Any:
    shown = storage.locate(name)
    if storage.is_local:  # however large, it is not read for nothing; a web server may not know ranges
        check_kind(bytes(storage.read_range(name, 0, min(2, storage.size(name)))), shown)
    return load_file(storage.read(name), shown)
