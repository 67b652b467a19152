"""Shards as a LightningDataModule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning import LightningDataModule

from bigtrain.data.batches import Batches
from bigtrain.data.faults import Budget
from bigtrain.data.opening import open_reader
from bigtrain.data.orders import Kind, make_order
from bigtrain.data.prefetch import Prefetcher
from bigtrain.schedules import Schedule
from bigtrain.storage import StorageOptions


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
        decode_threads: that read, and decode.
        decode_processes: that decode instead of the threads what lies in files or in the cache (Linux only). They are
            faster for small jpegs (tests/benchmarks/bench_data.py), and leave the interpreter to the training; each
            takes 60 MiB and half a second to start.
        batches_ahead: steps that are read before they are asked for.
        decoded_mib: if all samples of a resolution fit into so much memory, each is decoded once; 0 for never.
        lanes: places all over the data from which a batch draws (see `Order`); a multiple of the number of processes
            lets each read shards of its own (tests/benchmarks/simulate_ranks.py), and about five shards of each are
            read at the same time, which the cache should hold.
        cache_gib: bound of this node's cache of shards from an object store; 0 to read samples by ranges always.
        cache_folder: of that cache; null for a folder of this user among the temporary files.
        prefetch_gib: of shards are held in the cache ahead of those that are read now; 0 to fetch none.
        max_bad_samples: damaged samples that are replaced by others (in an evaluation: left out of the real images), as
            a share of all; more stop the training.
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
        decode_processes: int = 0,
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
        bounds = {"decoded_mib": decoded_mib, "cache_gib": cache_gib, "prefetch_gib": prefetch_gib}
        for name, bound in {**bounds, "decode_processes": decode_processes}.items():
            if bound < 0:
                raise ValueError(f"{name} (={bound}) must not be negative")
        weights = url if isinstance(url, dict) else {url: 1.0}
        budget, resolutions = Budget(max_bad_samples, max_bad_shards), schedule.resolutions
        self.reader = open_reader(
            weights,
            resolutions,
            seed,
            storage,
            cache_gib,
            cache_folder,
            budget,
            decoded_mib << 20,
            decode_processes,
        )
        self.shards, self.faults, self.fetcher = self.reader.shards, self.reader.faults, self.reader.fetcher
        self.schedule, self.seed, self.mirror = schedule, seed, mirror
        #: Asked while a batch is late: whether the training is to end without it.
        self.stopping: Callable[[], bool] = lambda: False
        # A thread waits for each process that decodes, and one more prepares what is next.
        self.threads = decode_processes + 1 if decode_processes else decode_threads
        self.batches_ahead = batches_ahead
        self.prefetch_bytes = int(prefetch_gib * 2**30)
        self.order = make_order(order, self.reader, list(weights.values()), seed, lanes)

    def train_dataloader(self) -> Batches:
        """The batches from the game's clock on."""
        assert self.trainer is not None
        game: Any = self.trainer.lightning_module  # (the data does not know the games)
        batches = self.batches(game.clock.images_seen, self.trainer.global_rank, self.trainer.world_size)
        batches.stopping = self.stopping
        return batches

    def batches(self, images_seen: int, rank: int = 0, world: int = 1) -> Batches:
        """The batches from that moment on; of several processes, the part of one."""
        prefetcher = None
        if self.fetcher.cache is not None and self.prefetch_bytes:
            ahead = self.prefetch_bytes
            prefetcher = Prefetcher(self.fetcher, self.order, self.schedule, ahead, rank=rank, world=world)
        return Batches(
            self.reader,
            self.order,
            self.schedule,
            images_seen,
            self.seed,
            self.mirror,
            self.threads,
            self.batches_ahead,
            prefetcher,
            rank,
            world,
        )
