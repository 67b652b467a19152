"""Files of a json object a line, each with its `images_seen`, that go back to a checkpoint with the training."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any


def how_measured(score: dict[str, Any]) -> str:
    """The name of a score and a hash of its protocol: only where they are the same, scores are to be compared."""
    digest = hashlib.sha256(json.dumps(score["protocol"], sort_keys=True).encode()).hexdigest()
    return f"{score['metric']} {digest[:8]}"


class Records:
    """One such file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, record: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def read(self) -> list[dict[str, Any]]:
        """All records; a last line that a kill cut short is left out."""
        if not self.path.exists():
            return []
        lines = self.path.read_text(encoding="utf-8").split("\n")
        return [json.loads(line) for line in lines[:-1]]

    def go_back(self, images_seen: int) -> None:
        """Removes what was recorded after that moment: it will be recorded again."""
        kept = [record for record in self.read() if record["images_seen"] <= images_seen]
        if not self.path.exists():
            return
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8")
        temporary.replace(self.path)
