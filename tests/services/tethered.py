"""Processes that end with the one that started them, even if that is killed: no server outlives its tests."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

#: Waits for a program while beside it a pipe is read, which ends when its writer does: then the program is killed.
_TETHER = 'exec 3<&0; "$@" 3<&- </dev/null & child=$!; (read _ <&3; kill -9 $child) 2>/dev/null & wait $child'


class Tethered:
    """A running program.

    Args:
        command: the program and its arguments.
        folder: in which it runs and has its `log`.
        variables: for its environment, beside this process's own.
    """

    def __init__(self, command: Sequence[str | Path], folder: Path, variables: Mapping[str, str] | None = None) -> None:
        self._log = folder / "log"
        with self._log.open("ab") as log:
            self._shell = subprocess.Popen(
                ["sh", "-c", _TETHER, "sh", *map(str, command)],
                cwd=folder,
                env={**os.environ, **(variables or {})},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,  # so that Ctrl-C does not end it before the tests
            )

    def runs(self) -> bool:
        return self._shell.poll() is None

    def kill(self) -> None:
        """Ends it at once, as a power cut does."""
        assert self._shell.stdin is not None
        self._shell.stdin.close()
        self._shell.wait()

    def log(self) -> str:
        """The end of what it has said."""
        return self._log.read_text(errors="replace")[-3000:]
