"""What a machine may not have: tests of it skip with the reason; in CI, which installs it, they fail."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def need_file(path: Path, how: str) -> None:
    """Skips (or in CI fails) the test if there is no such file; `how` says how to get it."""
    if path.exists():
        return
    reason = f"{path} is not there: {how}"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
