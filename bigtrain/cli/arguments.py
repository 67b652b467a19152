"""The parser of the verbs that take plain arguments."""

from __future__ import annotations

import argparse
import difflib
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
