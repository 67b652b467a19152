"""The parser of the verbs that take plain arguments."""

from __future__ import annotations

import argparse
import difflib
import math
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """An `argparse` parser without abbreviations, whose errors are `ValueError`s of one line, which `main` prints."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{**options, "allow_abbrev": False})

    def error(self, message: str) -> NoReturn:
        words = message.removeprefix("unrecognized arguments: ").split()
        if message.startswith("unrecognized arguments: ") and words:
            close = difflib.get_close_matches(words[0].split("=")[0], self._option_string_actions, n=1)
            message += f"; did you mean {close[0]}?" if close else ""
        raise ValueError(f"{message} (see {self.prog} --help)")


def thresholds(option: str, text: str) -> list[float | None]:
    """The truncations in `0.2,0.5,none`; None for none.

    Raises:
        ValueError: naming the option.
    """
    wanted = "must be numbers of at least 0.02 such as 0.2,0.5,1, or none, each once"
    try:
        found = [None if part.strip() == "none" else float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"{option} (={text}) {wanted}") from None
    numbers = [number for number in found if number is not None]
    if len(set(found)) < len(found) or not all(0.02 <= number < math.inf for number in numbers):
        raise ValueError(f"{option} (={text}) {wanted}")
    return found
