"""Objects by key below any URL: a local path, `s3://`, `gs://`, `az://`, `https://`. The ground floor of all files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import obstore
from obstore.store import LocalStore, ObjectStore, from_url

REMOTE_SCHEMES = ("s3", "gs", "az", "https", "http")


def is_remote(url: str) -> bool:
    """Whether the URL names an object store rather than a path on this machine."""
    return "://" in url and not url.startswith("file://")


class Storage:
    """Objects by key below one URL. Writes are atomic: an object is there whole or not at all.

    Args:
        url: a path, or a URL whose scheme is one of `s3`, `gs`, `az`, `https`, `http`, `file`.

    Raises:
        ValueError: if the scheme is not one of these.
        FileNotFoundError: by the reading methods, if there is no such object; the message names it.
    """

    def __init__(self, url: str | os.PathLike[str]) -> None:
        self.url = os.fspath(url).removeprefix("file://").rstrip("/") or "/"
        self._remote: ObjectStore | None = None
        if is_remote(self.url):
            scheme = self.url.split("://", 1)[0]
            if scheme not in REMOTE_SCHEMES:
                raise ValueError(f"URL {self.url!r}: scheme {scheme!r} is unknown; a path or {REMOTE_SCHEMES} is valid")
            self._remote = from_url(self.url, client_options={"allow_http": scheme == "http"})

    @cached_property
    def _store(self) -> ObjectStore:
        """The object store; a folder that does not exist is an error only when it is read."""
        return self._remote or LocalStore(prefix=Path(self.url).absolute(), automatic_cleanup=True)

    @property
    def is_local(self) -> bool:
        return self._remote is None

    def locate(self, key: str) -> str:
        """The full name of an object, for messages."""
        return f"{self.url}/{key}"

    def size(self, key: str) -> int:
        """Bytes of an object."""
        with _Naming(self, key):
            return obstore.head(self._store, key)["size"]

    def exists(self, key: str) -> bool:
        try:
            self.size(key)
        except FileNotFoundError:
            return False
        return True

    def read(self, key: str) -> bytes:
        with _Naming(self, key):
            return obstore.get(self._store, key).bytes().to_bytes()

    def read_ranges(self, key: str, starts: Sequence[int], lengths: Sequence[int]) -> list[memoryview]:
        """The bytes [start, start + length) of an object for each pair; neighbouring ranges are fetched together.

        Raises:
            OSError: if the object ends before a range does (a store answers with the bytes that it has).
        """
        with _Naming(self, key):
            parts = [memoryview(part) for part in obstore.get_ranges(self._store, key, starts=starts, lengths=lengths)]
        for part, start, length in zip(parts, starts, lengths, strict=True):
            if len(part) != length:
                raise OSError(f"{self.locate(key)}: ends at byte {start + len(part)}, before {start + length}")
        return parts

    def write(self, key: str, content: bytes) -> None:
        self._make_folder()
        with _Naming(self, key):
            obstore.put(self._store, key, content)

    def write_file(self, key: str, path: Path) -> None:
        """Writes an object from a file on this machine, in parts if it is large."""
        self._make_folder()
        with _Naming(self, key):
            obstore.put(self._store, key, path)

    def _make_folder(self) -> None:
        if self.is_local:  # only now, so that no folder is made before there is something to write
            Path(self.url).mkdir(parents=True, exist_ok=True)

    def delete(self, keys: Sequence[str]) -> None:
        if keys:
            obstore.delete(self._store, list(keys))

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """Key and size of every object below the prefix (a folder), in the order of the keys."""
        if self.is_local and not (Path(self.url) / prefix).is_dir():
            return iter(())
        found = [(item["path"], item["size"]) for part in obstore.list(self._store, prefix or None) for item in part]
        return iter(sorted(found))


class _Naming:
    """Gives an object store's long errors one line that names the object."""

    def __init__(self, storage: Storage, key: str) -> None:
        self.name = storage.locate(key)
        self.folder = Path(storage.url) if storage.is_local else None

    def __enter__(self) -> None:
        if self.folder is not None and not self.folder.is_dir():
            raise FileNotFoundError(f"{self.name}: not found (there is no folder {self.folder})")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, FileNotFoundError):
            raise FileNotFoundError(f"{self.name}: not found") from error
        if isinstance(error, obstore.exceptions.BaseError):
            raise OSError(f"{self.name}: {str(error).splitlines()[0]}") from error
