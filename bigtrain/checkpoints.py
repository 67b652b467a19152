"""Checkpoints: the full state of a training, by which it goes on as if nothing had happened.

A checkpoint is a folder named by its moment, with the tensors as safetensors (so nothing is ever unpickled), everything
else as json, and, written last, a COMPLETE marker with the checksums of both. A folder without the marker does not
count. The format does not depend on the strategy: each rank writes a file of its own.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

from bigtrain.clock import moment_name
from bigtrain.storage import Storage

FORMAT = 1
TENSORS, FACTS, MARKER = "rank-00000.safetensors", "state.json", "COMPLETE"


@dataclass(frozen=True)
class Checkpoint:
    """What `Checkpoints.load` gives back."""

    images_seen: int
    tensors: dict[str, Tensor]
    facts: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run.

    Args:
        storage: their folder.
        keep: how many of the newest are kept.
    """

    def __init__(self, storage: Storage, keep: int = 3) -> None:
        if keep < 1:
            raise ValueError(f"keep (={keep}) checkpoints must be at least 1")
        self.storage, self.keep = storage, keep

    def names(self) -> list[str]:
        """The complete ones, oldest first."""
        return sorted({key.split("/")[0] for key, _ in self.storage.list() if key.endswith(f"/{MARKER}")})

    def save(self, images_seen: int, tensors: dict[str, Tensor], facts: dict[str, Any]) -> str:
        """Writes a checkpoint, then removes what is more than `keep` back, and what a kill left unfinished."""
        name = moment_name(images_seen)
        files = {
            TENSORS: save({key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}),
            FACTS: json.dumps({"format": FORMAT, "images_seen": images_seen, **facts}, indent=1).encode(),
        }
        self._remove(name)
        for file, content in files.items():
            self.storage.write(f"{name}/{file}", content)
        self.storage.write(f"{name}/{MARKER}", json.dumps(_hashes(files)).encode())
        kept = self.names()[-self.keep :]
        for old in {key.split("/")[0] for key, _ in self.storage.list()} - set(kept):
            self._remove(old)
        return name

    def load(self, name: str | None = None) -> Checkpoint | None:
        """The checkpoint of that name, or the newest; None if there is none.

        Raises:
            ValueError: if it is damaged or of another version; the message names the one before it.
        """
        names = self.names()
        if name is None and not names:
            return None
        name = name or names[-1]
        try:
            files = {file: self.storage.read(f"{name}/{file}") for file in (TENSORS, FACTS)}
            if json.loads(self.storage.read(f"{name}/{MARKER}")) != _hashes(files):
                raise ValueError("its files do not have their checksums")
        except (ValueError, FileNotFoundError) as error:
            raise ValueError(self._damaged(name, names, error)) from error
        facts = json.loads(files[FACTS])
        if facts["format"] != FORMAT:
            raise ValueError(f"{self.storage.locate(name)} has format {facts['format']}; this bigtrain reads {FORMAT}")
        return Checkpoint(facts["images_seen"], load(files[TENSORS]), facts)

    def _damaged(self, name: str, names: list[str], error: Exception) -> str:
        before = names[: names.index(name)]
        remedy = f"remove it to go on from {before[-1]}" if before else "there is no earlier one"
        return f"checkpoint {self.storage.locate(name)} is damaged ({error}); {remedy}"

    def _remove(self, name: str) -> None:
        """The marker goes first, so that half a checkpoint never counts."""
        keys = [key for key, _ in self.storage.list(name)]
        self.storage.delete([key for key in keys if key.endswith(f"/{MARKER}")])
        self.storage.delete([key for key in keys if not key.endswith(f"/{MARKER}")])


def _hashes(files: dict[str, bytes]) -> dict[str, str]:
    return {file: hashlib.sha256(content).hexdigest() for file, content in files.items()}
