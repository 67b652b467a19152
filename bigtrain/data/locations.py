"""Where shards lie that were made elsewhere: folders, single tars, and patterns with braces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from bigtrain.data.manifest import ShardInfo
from bigtrain.storage import Stat, Storage

_CANNOT_LIST = ("http://", "https://")


class Location(NamedTuple):
    """A shard in a storage."""

    storage: Storage
    key: str

    @property
    def name(self) -> str:
        return self.storage.locate(self.key)

    def etag(self, version: Stat) -> str | None:
        """The ETag to remember: that of an object store, as a local file's changes when the file is copied."""
        return None if self.storage.is_local else version.etag


def find_shards(urls: Sequence[str]) -> list[Location]:
    """The shards that the URLs name: those of a folder by name, others as given.

    Raises:
        ValueError: if there are none, one is named twice, or a folder cannot be listed.
    """
    storages: dict[str, Storage] = {}
    found = [location for url in urls for one in expand(url) for location in _shards_of(one, storages)]
    names: set[str] = set()
    for location in found:
        if (name := _full_name(location)) in names:
            raise ValueError(f"shard {name!r} is named twice")
        names.add(name)
    return found


def expand(url: str) -> list[str]:
    """The URLs of a pattern with braces, as WebDataset expands them; others are their own."""
    if "{" not in url:
        return [url]
    from webdataset.shardlists import expand_urls  # noqa: PLC0415 - it imports torch

    try:
        return expand_urls(url)
    except (ValueError, AssertionError) as error:
        raise ValueError(f"URL {url!r}: is no pattern with braces such as {{0000..0123}} ({error})") from error


def only_folder(urls: Sequence[str]) -> str:
    """The URL, if it is one folder in which a manifest can be written.

    Raises:
        ValueError: if not.
    """
    if len(urls) != 1 or "{" in urls[0] or _is_shard(urls[0]) or urls[0].startswith(_CANNOT_LIST):
        raise ValueError(f"--to: pass a URL for the manifest, as {' '.join(urls)!r} is not one folder to write it in")
    return urls[0]


def relative_key(storage: Storage, location: Location) -> str:
    """The key of a shard below the storage's URL; its full name if it lies elsewhere."""
    root, name = _full_url(storage).rstrip("/") + "/", _full_name(location)
    return name.removeprefix(root)


def locate(storage: Storage, shard: ShardInfo, open_storage: Callable[[str], Storage] = Storage) -> Location:
    """Where a shard of the manifest in that storage lies; `open_storage` opens the folder of one elsewhere."""
    if not shard.is_elsewhere:
        return Location(storage, shard.key)
    folder, _, key = shard.key.rpartition("/")
    return Location(open_storage(folder or "/"), key)


def is_tar(name: str) -> bool:
    return name.endswith(".tar")


def _is_shard(url: str) -> bool:
    return is_tar(url) and not Path(url).is_dir()


def _shards_of(url: str, storages: dict[str, Storage]) -> list[Location]:
    if _is_shard(url):
        folder, slash, key = url.rpartition("/")
        folder = folder if folder else "/" if slash else "."
        if folder not in storages:
            storages[folder] = Storage(folder)
        return [Location(storages[folder], key)]
    if url.startswith(_CANNOT_LIST):
        pattern = f"{url.rstrip('/')}/{{00..99}}.tar"
        raise ValueError(f"URL {url!r}: HTTP cannot list a folder; pass a pattern such as {pattern}")
    storage = Storage(url)
    keys = [key for key, _ in storage.list() if is_tar(key)]
    if not keys:
        raise ValueError(f"URL {url!r} holds no .tar files")
    return [Location(storage, key) for key in keys]


def _full_url(storage: Storage) -> str:
    return str(Path(storage.url).resolve()) if storage.is_local else storage.url


def _full_name(location: Location) -> str:
    return f"{_full_url(location.storage).rstrip('/')}/{location.key}"
