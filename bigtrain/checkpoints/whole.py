"""Whole tensors out of the pieces that the ranks wrote."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import load
from torch import Tensor

from bigtrain.checkpoints.layout import pieces_file, tensors_file
from bigtrain.storage import Storage

CHUNK = 16 << 20


class Rows(NamedTuple):
    """Rows of a tensor in a file.

    Args:
        start: the first of them.
        number: of rows here.
        type: of the elements, as safetensors names it.
        shape: of the whole tensor.
        read: gives the rows.
    """

    start: int
    number: int
    type: str
    shape: tuple[int, ...]
    read: Callable[[], Tensor]

    @property
    def total(self) -> int:
        """Rows of the whole; a scalar is one row."""
        return self.shape[0] if self.shape else 1


class WholeTensors(Mapping[str, Tensor]):
    """Tensors by name; each is put together when it is asked for, and not kept.

    One that lies in a file as a whole is not copied: it is the file's memory, so it is for reading.

    Args:
        parts: what each rank wrote, by the names of the tensors.

    Raises:
        ValueError: if the parts of a tensor are not all its rows, each once.
    """

    def __init__(self, parts: list[dict[str, Rows]]) -> None:
        found: dict[str, list[Rows]] = {}
        for part in parts:
            for name, rows in part.items():
                found.setdefault(name, []).append(rows)
        self._rows = {name: _in_order(name, pieces) for name, pieces in found.items()}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the whole tensors, without reading them."""
        return {name: rows[0].shape for name, rows in self._rows.items()}

    def __getitem__(self, name: str) -> Tensor:
        parts = self._rows[name]
        first = parts[0].read()
        if len(parts) == 1:
            return first
        whole = torch.empty(parts[0].shape, dtype=first.dtype)
        for rows in parts:
            whole[rows.start : rows.start + rows.number] = rows.read()
        return whole

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


def _in_order(name: str, parts: list[Rows]) -> list[Rows]:
    """The parts in the order of the rows, without empty ones (but for a tensor that is empty)."""
    if len({(rows.shape, rows.type) for rows in parts}) > 1:
        raise ValueError(f"the pieces of {name} are of different shapes or types")
    parts = sorted((rows for rows in parts if rows.number), key=lambda rows: rows.start) or parts[:1]
    at = 0
    for rows in parts:
        if rows.start != at:
            what = f"lacks rows {at} to {rows.start}" if rows.start > at else f"holds row {rows.start} more than once"
            raise ValueError(f"it {what} of {name}")
        at += rows.number
    if at != parts[0].total:
        raise ValueError(f"it has {at} of the {parts[0].total} rows of {name}")
    return parts


class Files:
    """The files of one checkpoint, each read only if it has its checksum.

    Args:
        storage: of the checkpoints.
        name: of this one.
        checksums: by file.

    Raises:
        ValueError: by the methods, naming the file, if it is missing or damaged.
    """

    def __init__(self, storage: Storage, name: str, checksums: Mapping[str, str]) -> None:
        self.storage, self.name, self.checksums = storage, name, checksums

    def json(self, file: str) -> Any:
        return json.loads(self._content(file))

    def rows(self, rank: int) -> dict[str, Rows]:
        """The pieces that a rank wrote. On this machine the tensors stay in their file."""
        pieces, file = self.json(pieces_file(rank))["pieces"], tensors_file(rank)
        if not pieces:
            return {}
        if self.storage.is_local:
            read = safe_open(self._checked(file), framework="pt").get_tensor
        else:
            read = load(self._content(file)).__getitem__
        return {
            name: Rows(said["start"], said["rows"], said["type"], tuple(said["shape"]), partial(read, name))
            for name, said in pieces.items()
        }

    def _content(self, file: str) -> bytes:
        try:
            content = self.storage.read(f"{self.name}/{file}")
        except FileNotFoundError as error:
            raise ValueError(f"{file} is missing") from error
        self._compare(file, hashlib.sha256(content).hexdigest())
        return content

    def _checked(self, file: str) -> Path:
        path, found = Path(self.storage.url) / self.name / file, hashlib.sha256()
        try:
            with path.open("rb") as opened:
                while chunk := opened.read(CHUNK):
                    found.update(chunk)
        except FileNotFoundError as error:
            raise ValueError(f"{file} is missing") from error
        self._compare(file, found.hexdigest())
        return path

    def _compare(self, file: str, checksum: str) -> None:
        if self.checksums.get(file) != checksum:
            raise ValueError(f"{file} does not have its checksum")
