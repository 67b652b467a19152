"""What reading from an object store takes of memory, disk and network: `python tests/benchmarks/bench_memory.py`.

12 shards of 32 MB in a real S3 server, read twice, beside what the bounds allow: with a cache that is too small for the
shards that are read at the same time (all of them, in one lane or in six), and with one that holds those of two lanes.
"""

from __future__ import annotations

import os
import tempfile
import threading
from pathlib import Path

import numpy as np
from PIL import Image

from bigtrain.data.batches import BLOCK_BYTES
from bigtrain.data.datamodule import ShardDataModule
from bigtrain.data.fetch import RANGE
from bigtrain.data.order import Order
from bigtrain.data.writer import build
from bigtrain.schedules import Constant
from bigtrain.storage import Storage
from tests.services.s3 import running
from tests.unit.made_source import Made

SHARDS, SAMPLES, SIZE, BATCH = 12, 640, 128, 32
MIB = 2**20


class Noise(Made):
    """Images that do not compress: 50 kB each."""

    channels = 3
    native_resolution = SIZE

    def load(self, index: int) -> Image.Image:
        return Image.fromarray(np.random.default_rng(index).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8))


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryDirectory() as data, running(Path(data)) as server:
        folder = Path(name)
        os.environ.update(server.environment)
        measure(f"s3://{server.bucket()}/shards", folder)


#: What is measured: an order of the shards (None for the usual one), and MiB of the cache; 48 MiB are fetched ahead.
CASES = {
    "a cache too small for one lane of all shards": (None, 96),
    "a cache too small for six lanes": (6, 96),
    "a cache that holds the open shards of two lanes": (2, 192),
}


def measure(url: str, folder: Path) -> None:
    manifest = build(
        Noise(SHARDS * SAMPLES), Storage(url), resolutions=[SIZE], samples_per_shard=SAMPLES, workers=1, encoding="png"
    )
    assert manifest is not None
    needed = 2 * sum(shard.bytes for shard in manifest.shards[SIZE])
    for number, (name, (lanes, mib)) in enumerate(CASES.items()):
        options = {"cache_gib": mib / 1024, "prefetch_gib": 48 / 1024, "cache_folder": str(folder / f"cache{number}")}
        data = ShardDataModule(url, Constant(SIZE, BATCH, 2 * SHARDS * SAMPLES / 1000), decoded_mib=0, **options)
        if lanes is not None:  # in blocks of a shard: the usual ones would be as long as all of the data
            data.order = Order(manifest.shard_samples, 0, lanes, block_shards=1, block_samples=1)
        print(f"{name}: {mib} MiB for {data.order.open_shards()} open shards of 31 MiB")
        report(data, mib, needed)


def report(data: ShardDataModule, mib: int, needed: int) -> None:
    """Reads all batches, and prints what that took."""
    assert data.fetcher.cache is not None
    kept = data.fetcher.cache.folder
    before, peaks, done = resident(), {"memory": 0, "disk": 0}, threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            held = sum(path.stat().st_size for path in kept.iterdir() if path.exists() and path.is_file())
            peaks["memory"], peaks["disk"] = max(peaks["memory"], resident()), max(peaks["disk"], held)

    watcher = threading.Thread(target=watch)
    watcher.start()
    batches = data.batches(0)
    for _ in batches:
        pass
    done.set()
    watcher.join()
    counts = batches.counts
    fetched, ranges = counts["fetched_bytes"] / needed, (counts["bytes_read"] - counts["fetched_bytes"]) / needed
    print(f"  {counts['cache_hits']:,} hits, {counts['cache_misses']:,} misses, {counts['reads']:,} reads of objects")
    print(
        f"  bytes over needed: {fetched + ranges:.2f}, {fetched:.2f} of it as whole shards, {counts['fetched']} times"
    )
    # Shards fetched ahead; blocks that are read or wait; and the ranges of those being read with what is between them.
    allowed = 4 * 4 * RANGE + (data.threads + 2) * BLOCK_BYTES + data.threads * 3 * BLOCK_BYTES
    memory = (peaks["memory"] - before) / MIB
    print(f"  memory: {memory:.0f} MiB more than before; ranges and blocks: {allowed / MIB:.0f}")
    print(f"  disk: {peaks['disk'] / MIB:.0f} MiB at most; bound of the cache: {mib} MiB")


if __name__ == "__main__":
    main()
