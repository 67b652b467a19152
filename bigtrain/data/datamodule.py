"""Shards as a LightningDataModule."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning import LightningDataModule

from bigtrain.data.batches import Batches
from bigtrain.data.cache import ShardCache, default_folder
from bigtrain.data.faults import Faults
from bigtrain.data.fetch import Fetcher
from bigtrain.data.manifest import Manifest
from bigtrain.data.orders import Kind, make_order
from bigtrain.data.prefetch import Prefetcher
from bigtrain.data.reader import Reader
from bigtrain.data.shard_set import ShardSet
from bigtrain.schedules import Schedule
from bigtrain.storage import Storage, StorageOptions, TransportError

_log = logging.getLogger(__name__)


class ShardDataModule(LightningDataModule):
    """The shards at a URL, or at several, in an order that depends on the seed and the manifests alone.

    Args:
        url: of the folder that `bigtrain shards build` or `bigtrain shards index` wrote: a path or an object store's;
            or several such URLs with the weights by which they are mixed, as {URL: weight, …}.
        schedule: of the training (set by the configuration's `schedule`).
        seed: of order and flips (set by the configuration's `seed`).
        order: `shuffled`: each epoch has every sample once; `balanced`: every class comes equally often.
        mirror: whether images are flipped left to right with probability ½.
        storage: credentials aside (they come from the environment), how the object store is reached.
        decode_threads: that read and decode.
        batches_ahead: steps that are read before they are asked for.
        decoded_mib: if all samples of a resolution fit into so much memory, each is decoded once; 0 for never.
        lanes: places all over the data from which a batch draws (see `Order`); a multiple of the number of processes
            lets each read shards of its own (tests/benchmarks/simulate_ranks.py).
        cache_gib: bound of this node's cache of shards from an object store; 0 to read samples by ranges always.
        cache_folder: of that cache; null for a folder of this user among the temporary files.
        prefetch_gib: of shards that are needed next are fetched ahead into the cache.
        max_bad_samples: damaged samples that are replaced by others, as a share of all; more stop the training.
        max_bad_shards: damaged shards that are set aside; more stop the training.

    Raises:
        ValueError: if there are no shards at the URL, or not at a resolution of the schedule.
    """

    def __init__(
        self,
        url: str | dict[str, float],
        schedule: Schedule,
        seed: int = 0,
        order: Kind = "shuffled",
        mirror: bool = False,
        storage: StorageOptions = StorageOptions(),  # noqa: B008 (it is frozen)
        decode_threads: int = 2,
        batches_ahead: int = 4,
        decoded_mib: int = 256,
        lanes: int = 64,
        cache_gib: float = 20.0,
        cache_folder: str | None = None,
        prefetch_gib: float = 4.0,
        max_bad_samples: float = 1e-4,
        max_bad_shards: int = 1,
    ) -> None:
        super().__init__()
        for name, value in (("decode_threads", decode_threads), ("batches_ahead", batches_ahead)):
            if value < 1:
                raise ValueError(f"{name} (={value}) must be at least 1")
        for name, bound in (("decoded_mib", decoded_mib), ("cache_gib", cache_gib), ("prefetch_gib", prefetch_gib)):
            if bound < 0:
                raise ValueError(f"{name} (={bound}) must not be negative")
        weights = url if isinstance(url, dict) else {url: 1.0}
        storages = [Storage(one, storage) for one in weights]
        self.shards = ShardSet([(one, _load(one)) for one in storages], storage, list(weights.values()))
        self.shards.check(schedule.resolutions)
        self.schedule, self.seed, self.mirror = schedule, seed, mirror
        #: Asked while a batch is late: whether the training is to end without it.
        self.stopping: Callable[[], bool] = lambda: False
        self.decode_threads, self.batches_ahead = decode_threads, batches_ahead
        self.faults = Faults(self.shards.shard_samples, seed, max_bad_samples, max_bad_shards)
        self.prefetch_bytes = int(prefetch_gib * 2**30)
        cache = None
        if cache_gib and not self.shards.is_local:
            cache = ShardCache(
                Path(cache_folder).expanduser() if cache_folder else default_folder(), int(cache_gib * 2**30)
            )
        self.fetcher = Fetcher(self.shards, self.faults, cache)
        self.reader = Reader(self.shards, self.faults, self.fetcher, decoded_bytes=decoded_mib << 20)
        self.order = make_order(order, self.reader, list(weights.values()), seed, lanes)

    def train_dataloader(self) -> Batches:
        """The batches from the game's clock on."""
        assert self.trainer is not None
        game: Any = self.trainer.lightning_module  # (the data does not know the games)
        batches = self.batches(game.clock.images_seen)
        batches.stopping = self.stopping
        return batches

    def batches(self, images_seen: int, rank: int = 0, world: int = 1) -> Batches:
        """The batches from that moment on; of several processes, the part of one."""
        prefetcher = None
        if self.fetcher.cache is not None and self.prefetch_bytes:
            bound = min(self.prefetch_bytes, self.fetcher.cache.max_bytes)
            prefetcher = Prefetcher(self.fetcher, self.order, self.schedule, bound, rank=rank, world=world)
        return Batches(
            self.reader,
            self.order,
            self.schedule,
            images_seen,
            self.seed,
            self.mirror,
            self.decode_threads,
            self.batches_ahead,
            prefetcher,
            rank,
            world,
        )


def _load(storage: Storage) -> Manifest:
    """The manifest, with a word to the user if its store keeps him waiting."""
    options = storage.options
    quick = dataclasses.replace(options, retries=min(1, options.retries), retry_seconds=min(5, options.retry_seconds))
    try:
        return Manifest.load(Storage(storage.url, quick))
    except TransportError as error:
        _log.warning("%s (trying on, for up to %g s)", error, 2 * options.retry_seconds)
        return Manifest.load(storage)
