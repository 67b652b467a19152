"""Keeps other libraries from unpickling, which would run whatever a file says."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Iterator
from typing import NoReturn

_READERS = ("load", "loads", "Unpickler", "_load", "_loads", "_Unpickler")


class PickleError(Exception):
    """Something was about to be unpickled."""


def _refuse(*arguments: object, **options: object) -> NoReturn:
    raise PickleError


@contextlib.contextmanager
def no_pickles() -> Iterator[None]:
    """Inside the block everything of `pickle` that reads raises `PickleError`."""
    before = {name: getattr(pickle, name) for name in _READERS}
    try:
        for name in _READERS:
            setattr(pickle, name, _refuse)
        yield
    finally:
        for name, reader in before.items():
            setattr(pickle, name, reader)
