"""What reading from an object store takes of memory and disk: `python tests/benchmarks/bench_memory.py`.

12 shards of 32 MB in a real S3 server, read twice with a cache of 96 MiB and 48 MiB fetched ahead, beside what the
bounds allow.
"""

from __future__ import annotations

import os
import tempfile
import threading
from pathlib import Path

import numpy as np
from PIL import Image

from bigtrain.data.datamodule import ShardDataModule
from bigtrain.data.fetch import RANGE
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
        measure(f"s3://{server.bucket()}/shards", folder / "cache")


def measure(url: str, cache: Path) -> None:
    manifest = build(
        Noise(SHARDS * SAMPLES), Storage(url), resolutions=[SIZE], samples_per_shard=SAMPLES, workers=1, encoding="png"
    )
    assert manifest is not None
    size = sum(shard.bytes for shard in manifest.shards[SIZE])
    options = {"cache_gib": 96 * MIB / 2**30, "prefetch_gib": 48 * MIB / 2**30, "cache_folder": str(cache)}
    data = ShardDataModule(url, Constant(SIZE, BATCH, 2 * SHARDS * SAMPLES / 1000), decoded_mib=0, **options)
    assert data.fetcher.cache is not None
    kept = data.fetcher.cache.folder
    before, peaks, done = resident(), {"memory": 0, "disk": 0}, threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            held = sum(path.stat().st_size for path in kept.iterdir() if path.exists() and path.is_file())
            peaks["memory"], peaks["disk"] = max(peaks["memory"], resident()), max(peaks["disk"], held)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in data.batches(0):
        pass
    done.set()
    watcher.join()
    allowed = 4 * 4 * RANGE + (data.batches_ahead + data.decode_threads + 1) * BATCH * SIZE * SIZE * 3
    print(f"{size / MIB:.0f} MiB of shards, read twice: {data.batches(0).counts}")
    print(
        f"memory: {(peaks['memory'] - before) / MIB:.0f} MiB more than before; ranges and batches: {allowed / MIB:.0f}"
    )
    print(f"disk: {peaks['disk'] / MIB:.0f} MiB at most; bound of the cache: 96 MiB")


if __name__ == "__main__":
    main()
