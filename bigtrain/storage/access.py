"""Every request to a store: made in the right process, counted, repeated, and its failures told in one line."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import ClassVar, TypeVar

import obstore
from obstore.store import ObjectStore

from bigtrain.storage.errors import FAILURES, ForkedError, Place, TransportError, TruncatedError, clear_error
from bigtrain.storage.options import StorageOptions, scheme_of
from bigtrain.storage.secrets import without_secrets
from bigtrain.storage.stores import open_store

T = TypeVar("T")


class Counts:
    """What a storage has read so far; many threads may add to it.

    Attributes:
        reads: calls that have read content.
        bytes_read: by them, as they came: also those between neighbouring ranges.
        retries: fresh attempts of our own, after obstore's had failed.
    """

    def __init__(self) -> None:
        self.reads, self.bytes_read, self.retries = 0, 0, 0
        self._lock = threading.Lock()

    def add(self, reads: int = 0, bytes_read: int = 0, retries: int = 0) -> None:
        with self._lock:
            self.reads += reads
            self.bytes_read += bytes_read
            self.retries += retries


class Access:
    """A store that is opened by its first request.

    Args:
        url: of the storage.
        options: how it is spoken to.
    """

    _user: ClassVar[int | None] = None  # the process that runs obstore's threads: a forked child does not get them

    def __init__(self, url: str, options: StorageOptions) -> None:
        self.url, self.options, self.scheme, self.counts = url, options, scheme_of(url), Counts()

    @cached_property
    def _store(self) -> ObjectStore:
        try:
            return open_store(self.url, self.options)
        except (obstore.exceptions.BaseError, ValueError) as error:
            raise self._clear(error, self.shown) from None

    @property
    def shown(self) -> str:
        """The URL for messages: without the password and the query that it may have."""
        return self.url if self.scheme == "file" else without_secrets(self.url)

    def run(self, name: str, action: Callable[[ObjectStore], T]) -> T:
        """What the action returns; it is done again if it fails in transport, and there is time.

        Args:
            name: of the object, for messages.
            action: makes the requests; may be called twice.
        """
        self._guard(name)
        store, started = self._store, time.monotonic()
        try:
            return action(store)
        except FAILURES as error:
            fault = self._clear(error, name)
            late = time.monotonic() - started > self.options.retry_seconds
            if self.scheme == "file" or late or not isinstance(fault, (TransportError, TruncatedError)):
                raise fault from None
        self.counts.add(retries=1)
        try:
            return action(store)
        except FAILURES as error:
            raise self._clear(error, name) from None

    def _guard(self, name: str) -> None:
        """No request where it would hang, or where there is nothing."""
        pid = os.getpid()
        Access._user = Access._user or pid
        if Access._user != pid:
            raise ForkedError(
                f"{name}: process {pid} was forked from one that uses storage (process {Access._user}), and would "
                f"hang: start it by multiprocessing.get_context('spawn')"
            )
        if self.scheme == "file" and not Path(self.url).is_dir():
            raise FileNotFoundError(f"{name}: not found (there is no folder {self.url})")

    def _clear(self, error: Exception, name: str) -> OSError | ValueError:
        endpoint = self.options.endpoint_of(self.scheme)
        shown = without_secrets(endpoint) if endpoint else None
        return clear_error(error, Place(name, self.shown, self.scheme, shown, self.options.timeout_seconds))
