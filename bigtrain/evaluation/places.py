"""Where what was measured of real images is kept for those who need it next."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

from bigtrain.storage import Storage

_log = logging.getLogger(__name__)


class Places:
    """The place beside the shards, and others for the case that it cannot be written.

    Args:
        storages: in the order in which they are looked into, and written.
    """

    def __init__(self, *storages: Storage) -> None:
        self.storages = storages

    def holding(self, key: str) -> Iterator[Storage]:
        """Those that have something of that name."""
        return (storage for storage in self.storages if storage.exists(key))

    def keep(self, what: str, write: Callable[[Storage], None]) -> Storage | None:
        """Writes to the first that can be written, and gives it; None if there is none.

        That costs the next run the same work, and this one a warning.
        """
        failures = []
        for storage in self.storages:
            try:
                write(storage)
            except OSError as error:
                failures.append(str(error))
            else:
                if failures:
                    _log.warning("%s cannot be stored beside the shards, but in %s: %s", what, storage.url, failures[0])
                return storage
        _log.warning("%s cannot be stored, the next run computes it again: %s", what, failures[0])
        return None
