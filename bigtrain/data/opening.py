"""Opens sets of shards for reading: storages, manifests, the budget for damage, the cache."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from bigtrain.data.cache import ShardCache, default_folder
from bigtrain.data.faults import Budget, Faults
from bigtrain.data.fetch import Fetcher
from bigtrain.data.manifest import Manifest
from bigtrain.data.reader import Reader
from bigtrain.data.shard_set import ShardSet
from bigtrain.storage import Storage, StorageOptions, TransportError

_log = logging.getLogger(__name__)


def open_reader(
    weights: Mapping[str, float],
    resolutions: Sequence[int],
    seed: int,
    storage: StorageOptions,
    cache_gib: float,
    cache_folder: str | None,
    budget: Budget,
    decoded_bytes: int = 0,
    processes: int = 0,
) -> Reader:
    """The reader of a set of shards, or of several; its shards, faults and fetcher are its attributes.

    Args:
        weights: by URL of the sets.
        resolutions: at which they are going to be read.
        seed: of the substitutes of damaged samples.
        storage: how an object store is reached.
        cache_gib: bound of this node's cache of shards from an object store; 0 for none.
        cache_folder: of that cache; None for a folder of this user among the temporary files.
        budget: how much may be damaged.
        decoded_bytes, processes: see `Reader`.

    Raises:
        ValueError: if there are no shards at a URL, or not at one of the resolutions.
    """
    storages = [Storage(url, storage) for url in weights]
    shards = ShardSet([(one, _load(one)) for one in storages], storage, list(weights.values()), budget)
    shards.check(resolutions)
    faults = Faults(shards.shard_samples, seed, *budget)
    cache = None
    if cache_gib and not shards.is_local:
        folder = Path(cache_folder).expanduser() if cache_folder else default_folder()
        cache = ShardCache(folder, int(cache_gib * 2**30))
    return Reader(shards, faults, Fetcher(shards, faults, cache), decoded_bytes=decoded_bytes, processes=processes)


def _load(storage: Storage) -> Manifest:
    """The manifest, with a word to the user if its store keeps him waiting."""
    try:
        return Manifest.load(storage.hasty(retries=1, seconds=5))
    except TransportError as error:
        _log.warning("%s (trying on, for up to %g s)", error, 2 * storage.options.retry_seconds)
        return Manifest.load(storage)
