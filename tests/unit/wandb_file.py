"""Reads what Weights & Biases keeps of a run: LevelDB's log format, with a protobuf `Record` in each entry."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

BLOCK, HEADER = 32 * 1024, 7
_FULL, _LAST = 1, 4


def records(path: Path) -> list[Record]:
    return [Record.FromString(entry) for entry in _entries(path.read_bytes())]


def _entries(content: bytes) -> Iterator[bytes]:
    assert content[:4] == b":W&B"
    place, parts = HEADER, b""
    while place + HEADER <= len(content):
        if BLOCK - place % BLOCK < HEADER:
            place += BLOCK - place % BLOCK
            continue
        length, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        place += HEADER
        parts += content[place : place + length]
        place += length
        if kind in (_FULL, _LAST):
            yield parts
            parts = b""


def rows(found: list[Record]) -> list[dict[str, Any]]:
    """The history: what was logged at each step, by name; what pictures consist of is a dict."""
    shown = []
    for record in found:
        if record.WhichOneof("record_type") == "history":
            row: dict[str, Any] = {}
            for item in record.history.item:
                *parents, name = item.nested_key or [item.key]
                place = row
                for parent in parents:
                    place = place.setdefault(parent, {})
                place[name] = json.loads(item.value_json)
            shown.append(row)
    return shown


def config(found: list[Record]) -> dict[str, Any]:
    """The top of the configuration, as it was told last."""
    told = [record.run.config for record in found if record.WhichOneof("record_type") == "run"]
    told += [record.config for record in found if record.WhichOneof("record_type") == "config"]
    return {item.key or item.nested_key[0]: json.loads(item.value_json) for part in told for item in part.update}
