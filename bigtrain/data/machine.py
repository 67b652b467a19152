"""What this machine has."""

from __future__ import annotations

import os


def cpus() -> int:
    """CPUs that this process may use, which on a shared machine are fewer than it has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
