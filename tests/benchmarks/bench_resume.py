"""Time to the first batch of a resume at image 10⁹ in 10,000 shards: `python tests/benchmarks/bench_resume.py`.

The manifest is synthetic: it names one real shard of 10,000 tiny images ten thousand times, in a folder and in an S3
server on this machine. One of 1,000 processes reads a few shards only, if there are as many lanes.
"""

from __future__ import annotations

import dataclasses
import os
import statistics
import tempfile
import time
from pathlib import Path

from bigtrain.data.datamodule import ShardDataModule
from bigtrain.data.writer import build
from bigtrain.schedules import Constant
from bigtrain.storage import Storage
from tests.services.s3 import running
from tests.unit.made_source import Made

SHARDS, SAMPLES, SIZE, START, ROUNDS = 10_000, 10_000, 8, 1_000_000_000, 5


def make(url: str) -> None:
    storage = Storage(url)
    manifest = build(Made(SAMPLES), storage, resolutions=[SIZE], samples_per_shard=SAMPLES, workers=1)
    assert manifest is not None
    many = {SIZE: manifest.shards[SIZE] * SHARDS}
    counts = [count * SHARDS for count in manifest.class_counts]
    dataclasses.replace(manifest, shards=many, class_counts=counts).save(storage)


def first_batch(url: str, rank: int, world: int, lanes: int) -> dict[str, float]:
    """Seconds to the opened data, and from there to the first batch; and how many reads that took."""
    begun = time.perf_counter()
    schedule = Constant(SIZE, 32 * world, (START + 32 * world) / 1000)
    data = ShardDataModule(url, schedule, lanes=lanes, cache_gib=0)
    opened = time.perf_counter()
    batch = next(iter(data.batches(START // (32 * world) * 32 * world, rank, world)))
    assert len(batch["images"]) == 32
    done = time.perf_counter()
    return {"open": opened - begun, "batch": done - opened, "reads": data.shards.requests.get("reads", 0)}


def main() -> None:
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryDirectory() as data, running(Path(data)) as server:
        folder = Path(name)
        os.environ.update(server.environment)
        for url in (str(folder / "shards"), f"s3://{server.bucket()}/shards"):
            make(url)
            for rank, world, lanes in ((0, 1, 64), (7, 8, 64), (700, 1000, 1000)):
                runs = [first_batch(url, rank, world, lanes) for _ in range(ROUNDS)]
                median = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
                total = median["open"] + median["batch"]
                print(
                    f"{url.split(':')[0]:<4.4} rank {rank} of {world}, {lanes} lanes: {total:.2f} s to the first "
                    f"batch ({median['open']:.2f} to open), {median['reads']:.0f} reads of objects"
                )


if __name__ == "__main__":
    main()
