"""Where a sample's label stands in a shard, and what it may be. Read without torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bigtrain.data.archives import Archive

LABELS = "cls, json:FIELD or none"
_LARGEST = {"cls": 2**10, "json": 2**24}  # bytes of a member
_MOST_DIGITS = 18  # an int64 has room for them


@dataclass(frozen=True)
class LabelRule:
    """How samples are labelled.

    Args:
        member: extension of the member that has the label; `None` without labels.
        field: of a `json` member.
        needed: every sample must have a label; else all or none.
        names: of the classes; an integer is a class id, a text one of these names.
    """

    member: Literal["cls", "json"] | None = "cls"
    field: str = ""
    needed: bool = False
    names: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str | None, names: tuple[str, ...] = ()) -> LabelRule:
        """The rule that `str` made; `None` is that of shards that we write: `cls` where there is one.

        Raises:
            ValueError: if it is no rule.
        """
        if text in (None, "auto"):
            return cls(names=names)
        if text == "none":
            return cls(None)
        if text == "cls":
            return cls("cls", needed=True, names=names)
        kind, _, field = str(text).partition(":")
        if kind == "json" and field:
            return cls("json", field, needed=True, names=names)
        raise ValueError(f"label (={text!r}) must be {LABELS}")

    def __str__(self) -> str:
        if self.member is None:
            return "none"
        return f"json:{self.field}" if self.field else "cls" if self.needed else "auto"

    def read(self, archive: Archive, offset: int, size: int) -> int:
        """The class id in that payload.

        Raises:
            ValueError: saying what is wrong with it.
        """
        assert self.member is not None
        if size > _LARGEST[self.member]:
            raise ValueError(f"its {self.member} has {size} bytes, more than {_LARGEST[self.member]}")
        content = bytes(archive.read(offset, size))
        return self._class_id(_field(content, self.field) if self.member == "json" else content)

    def missing(self) -> str:
        """What a sample without a label does not have."""
        return f"no .{self.member}" + (f" with the field {self.field!r}" if self.field else "")

    def _class_id(self, value: Any) -> int:
        found = None
        if isinstance(value, bytes):  # of a .cls: first of all a number
            text = value.decode("utf-8", "replace").strip()
            found = _integer(text)
            found = self._named(text) if found is None else found
        elif isinstance(value, str):
            found = self._named(value)
            found = _integer(value) if found is None else found
        elif isinstance(value, int) and not isinstance(value, bool):
            found = value
        if found is None or not 0 <= found < 10**_MOST_DIGITS:
            names = f" or one of the {len(self.names)} names" if self.names else "; names need --classes FILE"
            raise ValueError(f"({str(value)[:60]}) must be a class id{names}")
        if self.names and found >= len(self.names):
            raise ValueError(f"({found}) is none of the {len(self.names)} classes")
        return found

    def _named(self, text: str) -> int | None:
        return self.names.index(text) if text in self.names else None


def class_names(text: str | None) -> list[str] | None:
    """The names of the classes: a number of them, or a file with one a line; `None` if nothing is given.

    Raises:
        ValueError: if it is neither.
    """
    if text is None:
        return None
    if text.isascii() and text.isdigit() and not Path(text).exists():
        names = [str(label) for label in range(int(text))]
    else:
        try:
            names = Path(text).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"classes (={text!r}) must be a number, or a file with a name a line ({error})") from None
    if not names or not all(names) or len(set(names)) < len(names):
        raise ValueError(f"classes (={text!r}) must have at least one name, none of them empty or twice")
    return names


def _integer(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS else None


def _field(content: bytes, field: str) -> Any:
    try:
        data = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is no JSON ({type(error).__name__})") from None
    if not isinstance(data, dict) or field not in data:
        known = f"; it has {', '.join(list(data)[:10])}" if isinstance(data, dict) else ""
        raise ValueError(f"has no field {field!r}{known}")
    return data[field]
