"""Our shards as the first stage of a webdataset pipeline: samples in the order of the global index, none lost."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info

from bigtrain.data.faults import Budget
from bigtrain.data.fetch import Fetcher
from bigtrain.data.opening import open_reader
from bigtrain.data.order import SampleOrder
from bigtrain.data.orders import Kind, make_order
from bigtrain.data.prefetch import Prefetcher
from bigtrain.data.reader import Reader
from bigtrain.schedules import Constant
from bigtrain.storage import StorageOptions

GROUP = 64  # samples that are read together
AHEAD = 0.2  # of the cache: shards that are fetched before they are needed, by all workers
ENDLESS_KIMG = 1e12

Sample = dict[str, Any]  # as WebDataset has them: fields by extension, and what is known of them as __name__


class OrderedSamples(IterableDataset[Sample]):
    """Samples as webdataset's own stages take them, in the order in which `ShardDataModule` gives their images.

    `webdataset.DataPipeline(OrderedSamples(url, 64, seed=0), webdataset.decode("pil"), webdataset.to_tuple("png",
    "cls"))` has images and labels. A sample is {`__key__`, `__url__` of its shard, `__index__`: its global index,
    `png`, `jpg` or `webp`: the image's file as it is stored, `cls`: the class id as text, if there are classes}.
    Randomness that is addressed by `__index__` is the same after every resume.

    Rank r of W has the indices start + r, start + r + W, …, and each worker of a DataLoader an equal share of those,
    so that with `batch_size=None` their order does not depend on the number of workers. Every iteration begins at
    `start`; to go on where another ended, pass the index that would have come next.

    Shards are opened when the iteration begins, by the process that iterates. A storage cannot be used in a forked
    child of a process that has used one: then pass `multiprocessing_context="spawn"` to the DataLoader.

    Damaged bytes are read again; what stays damaged is replaced within the budget, which each worker has for itself,
    and an error beyond it. Images are not decoded here, so this is what checksums and lengths tell.

    Args:
        url: of the folder that `bigtrain shards build` or `bigtrain shards index` wrote, or several with the weights
            by which they are mixed, as {URL: weight, …}.
        resolution: of the images; those that were indexed at any size come as they are.
        seed: of the order.
        start: global index of the first sample.
        stop: global index before which to end; None for never.
        rank: of this process,
        world: of so many.
        order: `shuffled`: each epoch has every sample once; `balanced`: every class comes equally often.
        lanes: places all over the data from which the samples come in turn (see `Order`).
        storage: credentials aside (they come from the environment), how the object store is reached.
        cache_gib: bound of this node's cache of shards from an object store; 0 to read samples by ranges always.
        cache_folder: of that cache; None for a folder of this user among the temporary files.
        max_bad_samples: damaged samples that are replaced by others, as a share of all.
        max_bad_shards: damaged shards that are set aside.

    Raises:
        ValueError: if a number is out of range; by the iteration, if there are no such shards at the URL.
        TooManyFaultsError: by the iteration, naming shard, key and offset, if more is damaged than may be.
        OSError: by the iteration, if the shards' store cannot be reached.
    """

    def __init__(
        self,
        url: str | dict[str, float],
        resolution: int,
        seed: int,
        start: int = 0,
        stop: int | None = None,
        rank: int = 0,
        world: int = 1,
        order: Kind = "shuffled",
        lanes: int = 64,
        storage: StorageOptions = StorageOptions(),  # noqa: B008 (it is frozen)
        cache_gib: float = 20.0,
        cache_folder: str | None = None,
        max_bad_samples: float = 1e-4,
        max_bad_shards: int = 1,
    ) -> None:
        if start < 0 or (stop is not None and stop < start):
            raise ValueError(f"start (={start}) must not be negative, and stop (={stop}) not below it")
        if not 0 <= rank < world:
            raise ValueError(f"rank (={rank}) must be at least 0 and below world (={world})")
        if cache_gib < 0:
            raise ValueError(f"cache_gib (={cache_gib}) must not be negative")
        self.weights = url if isinstance(url, dict) else {url: 1.0}
        self.resolution, self.seed, self.start, self.stop = resolution, seed, start, stop
        self.rank, self.world, self.kind, self.lanes, self.storage = rank, world, order, lanes, storage
        self.cache_gib, self.cache_folder = cache_gib, cache_folder
        self.budget = Budget(max_bad_samples, max_bad_shards)

    def __iter__(self) -> Iterator[Sample]:
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker is not None else (0, 1)
        rank, world = self.rank + number * self.world, self.world * workers
        reader = self._open()
        order = make_order(self.kind, reader, list(self.weights.values()), self.seed, self.lanes)
        prefetcher = self._prefetcher(reader.fetcher, order, rank, world, workers)
        indices = range(self.start + rank, sys.maxsize if self.stop is None else self.stop, world)
        try:
            for i in range(0, len(indices), GROUP):
                if prefetcher is not None:
                    prefetcher.advance(indices[i] - rank)
                yield from self._read(reader, order, indices[i : i + GROUP])
        finally:
            if prefetcher is not None:
                prefetcher.close()

    def _read(self, reader: Reader, order: SampleOrder, indices: range) -> Iterator[Sample]:
        contents = reader.contents(order.pairs(indices), self.resolution, indices)
        for g, stored in zip(indices, contents, strict=True):
            sample = {"__key__": stored.key, "__url__": stored.place.name, "__index__": g}
            sample[stored.extension] = bytes(stored.content)
            if stored.label is not None:
                sample["cls"] = str(stored.label).encode()
            yield sample

    def _open(self) -> Reader:
        return open_reader(
            self.weights, [self.resolution], self.seed, self.storage, self.cache_gib, self.cache_folder, self.budget
        )

    def _prefetcher(
        self, fetcher: Fetcher, order: SampleOrder, rank: int, world: int, workers: int
    ) -> Prefetcher | None:
        if fetcher.cache is None:
            return None
        schedule = Constant(self.resolution, 1, ENDLESS_KIMG)
        ahead = int(AHEAD * fetcher.cache.max_bytes / workers)
        return Prefetcher(fetcher, order, schedule, ahead, rank=rank, world=world)
