"""Reading and writing objects by key."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import obstore
from obstore.store import ObjectStore

from bigtrain.storage.access import Access, Counts
from bigtrain.storage.errors import ChangedError, TruncatedError
from bigtrain.storage.options import BUCKETS, StorageOptions, scheme_of
from bigtrain.storage.ranges import Span, merged, near_enough

#: A larger object is read in parts of this size, each with the whole time that a request may take.
PART = 64 << 20
T = TypeVar("T")


class Stat(NamedTuple):
    """Bytes of an object, and what tells this version of it from another."""

    size: int
    etag: str | None


class Storage:
    """Objects by key below one URL. Writes are atomic: an object is there whole or not at all.

    What fails in transport is repeated by obstore as the options say, and then once more from the start. A storage can
    be pickled; it must not be used in a forked child.

    Args:
        url: a path, or a URL whose scheme is one of `s3`, `gs`, `az`, `https`, `http`, `file`.
        options: how a remote store is spoken to.

    Raises:
        ValueError: if the scheme is not one of these.
        FileNotFoundError: by the methods, if there is no such object or bucket; each message names the object.
        PermissionError: if there are no credentials, or wrong ones, or they do not permit it.
        TransportError: if the store fails in spite of all retries; after twice `retry_seconds` and a request at most.
        ForkedError: if this is a forked child of a process that has used a storage.
    """

    def __init__(self, url: str | os.PathLike[str], options: StorageOptions | None = None) -> None:
        given = os.fspath(url).removeprefix("file://")
        scheme_of(given)  # before its slashes go, which are all that `s3://` has
        self.url = given.rstrip("/") or "/"
        self.options = options or StorageOptions()
        self._access = Access(self.url, self.options)

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.url, "options": self.options}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def hasty(self, retries: int, seconds: float) -> Storage:
        """The same store with less patience (see `StorageOptions.hasty`); what it reads is counted here."""
        other = Storage(self.url, self.options.hasty(retries, seconds))
        other._access.counts = self.counts
        return other

    @property
    def is_local(self) -> bool:
        return self._access.scheme == "file"

    @property
    def counts(self) -> Counts:
        """What has been read so far."""
        return self._access.counts

    def locate(self, key: str) -> str:
        """The full name of an object, for messages: without a password that the URL may have."""
        return f"{self._access.shown}/{key}"

    def stat(self, key: str) -> Stat:
        """Bytes and ETag of an object."""

        def ask(store: ObjectStore) -> Stat:
            try:
                meta = obstore.head(store, key)
            except (FileNotFoundError, obstore.exceptions.PermissionDeniedError):
                if not self.is_local:  # the answer to HEAD has no body to say why: the answer to GET has
                    obstore.get(store, key, options={"range": (0, 1)})
                raise
            return Stat(meta["size"], meta["e_tag"])

        return self._run(key, ask)

    def size(self, key: str) -> int:
        """Bytes of an object."""
        return self.stat(key).size

    def exists(self, key: str) -> bool:
        try:
            self._run(key, lambda store: obstore.head(store, key))
        except FileNotFoundError:
            return False
        return True

    def read(self, key: str, if_match: str | None = None) -> bytes:
        """An object's content.

        Args:
            if_match: the ETag that it must have.

        Raises:
            ChangedError: if it has another, or is replaced while it is read.
        """

        def get(store: ObjectStore) -> bytes:
            found = self._found(store, key, if_match)
            size, etag = found.meta["size"], found.meta["e_tag"]
            if self._access.scheme not in BUCKETS or size <= PART:  # web servers may not know ranges
                return found.bytes().to_bytes()
            spans = [Span(at, min(at + PART, size)) for at in range(0, size, PART)]
            return b"".join(self._part(store, key, span, etag) for span in spans)

        return self._read(key, get, len)

    def read_range(self, key: str, start: int, length: int, if_match: str | None = None) -> memoryview:
        """The bytes [start, start + length) of an object.

        Args:
            if_match: the ETag that it must have.

        Raises:
            TruncatedError: if the object ends before the range does.
            ChangedError: if it has another ETag.
        """
        if length == 0:
            return memoryview(b"")
        span = Span(start, start + length)
        return self._read(key, lambda store: self._part(store, key, span, if_match), len)

    def read_ranges(
        self, key: str, starts: Sequence[int], lengths: Sequence[int], if_match: str | None = None
    ) -> list[memoryview]:
        """The bytes [start, start + length) of an object for each pair; neighbouring ranges are fetched together.

        Args:
            if_match: the ETag that it must have.

        Raises:
            TruncatedError: if the object ends before a range does (a store answers with the bytes that it has).
            ChangedError: if it has another ETag.
        """
        ranges = [Span(start, start + length) for start, length in zip(starts, lengths, strict=True)]
        spans, span_of = merged(ranges, near_enough(ranges))

        def get(store: ObjectStore) -> list[memoryview]:
            if not spans:
                return []
            if if_match is not None:  # (obstore's get_ranges knows no condition)
                return [self._part(store, key, span, if_match) for span in spans]
            begins, ends = [span.start for span in spans], [span.stop for span in spans]
            found = obstore.get_ranges(store, key, starts=begins, ends=ends, coalesce=0)
            return [self._full(key, memoryview(part), span) for part, span in zip(found, spans, strict=True)]

        parts = self._read(key, get, lambda parts: sum(map(len, parts)))
        found = [
            (parts[number], spans[number].start) if stop > start else (memoryview(b""), start)
            for (start, stop), number in zip(ranges, span_of, strict=True)
        ]
        return [part[start - first : stop - first] for (part, first), (start, stop) in zip(found, ranges, strict=True)]

    def write(self, key: str, content: bytes) -> None:
        self._make_ready(key)
        self._run(key, lambda store: obstore.put(store, key, content))

    def write_file(self, key: str, path: Path) -> None:
        """Writes an object from a file on this machine, in parts if it is large."""
        self._make_ready(key)
        self._run(key, lambda store: obstore.put(store, key, path))

    def delete(self, keys: Sequence[str]) -> None:
        if keys:
            self._refuse_on_the_web(keys[0])
            self._run(keys[0], lambda store: obstore.delete(store, list(keys)))

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """Key and size of every object below the prefix (a folder), in the order of the keys."""
        if self.is_local and not (Path(self.url) / prefix).is_dir():
            return iter(())
        if not self.is_local and self._access.scheme not in BUCKETS:
            raise OSError(f"{self.locate(prefix)}: a web server does not list its files: name them, or use a bucket")

        def get(store: ObjectStore) -> Iterator[tuple[str, int]]:
            found = ((item["path"], item["size"]) for part in obstore.list(store, prefix or None) for item in part)
            return iter(sorted(found))

        return self._run(prefix, get)

    def _refuse_on_the_web(self, key: str) -> None:
        if not self.is_local and self._access.scheme not in BUCKETS:
            raise OSError(f"{self.locate(key)}: web servers are only read: write to a folder or a bucket ({BUCKETS})")

    def _make_ready(self, key: str) -> None:
        self._refuse_on_the_web(key)
        if self.is_local:  # only now, so that no folder is made before there is something to write
            Path(self.url).mkdir(parents=True, exist_ok=True)

    def _run(self, key: str, action: Callable[[ObjectStore], T]) -> T:
        return self._access.run(self.locate(key), action)

    def _read(self, key: str, action: Callable[[ObjectStore], T], size: Callable[[T], int]) -> T:
        content = self._run(key, action)
        self.counts.add(reads=1, bytes_read=size(content))
        return content

    def _found(self, store: ObjectStore, key: str, etag: str | None, span: Span | None = None) -> obstore.GetResult:
        """The answer to one request. The ETag is compared here too: plain web servers ignore the condition."""
        options: obstore.GetOptions = {}
        if span is not None:
            options["range"] = span
        if etag is not None and not etag.startswith("W/"):  # a weak one never matches a condition
            options["if_match"] = etag
        found = obstore.get(store, key, options=options)
        if etag is not None and found.meta["e_tag"] not in (etag, None):
            raise ChangedError(f"{self.locate(key)}: has changed since it was listed")
        return found

    def _part(self, store: ObjectStore, key: str, span: Span, etag: str | None) -> memoryview:
        return self._full(key, memoryview(self._found(store, key, etag, span).bytes()), span)

    def _full(self, key: str, part: memoryview, span: Span) -> memoryview:
        if len(part) != span.stop - span.start:
            raise TruncatedError(f"{self.locate(key)}: ends at byte {span.start + len(part)}, before {span.stop}")
        return part
