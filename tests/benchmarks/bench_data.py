"""Images a second from shards to batches, beside webdataset and the decoder: `python tests/benchmarks/bench_data.py`.

4,096 crops of 128² of scikit-learn's two photographs, as JPEG in 8 shards, in a folder and in a real S3 server on this
machine. All run in turns in one process; ratios are of medians. `decoder` is simplejpeg on bytes in memory, all cores.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import numpy as np
import obstore
import simplejpeg
import torch
import webdataset
from obstore.store import S3Store
from PIL import Image
from sklearn.datasets import load_sample_images

from bigtrain.data.datamodule import ShardDataModule
from bigtrain.data.manifest import Manifest
from bigtrain.data.reader import Reader
from bigtrain.data.shard_set import ShardSet
from bigtrain.data.sources import Source
from bigtrain.data.writer import build
from bigtrain.schedules import Constant
from bigtrain.storage import Storage
from tests.services.s3 import S3Server, running

IMAGES, SIZE, BATCH, ROUNDS, PASSES = 4096, 128, 64, 7, 8
CORES = os.cpu_count() or 1


class Crops(Source):
    """Random crops of photographs."""

    kind = "crops"
    classes: list[str] = []  # noqa: RUF012
    channels = 3
    native_resolution = SIZE

    def __init__(self) -> None:
        self.photographs = load_sample_images().images

    def __len__(self) -> int:
        return IMAGES

    def name(self, index: int) -> str:
        return f"crop:{index}"

    def label(self, index: int) -> int | None:
        return None

    def load(self, index: int) -> Image.Image:
        photograph = self.photographs[index % len(self.photographs)]
        generator = np.random.default_rng(index)
        top, left = (int(generator.integers(0, side - SIZE + 1)) for side in photograph.shape[:2])
        return Image.fromarray(photograph[top : top + SIZE, left : left + SIZE])

    def fingerprint(self) -> str:
        return "crops"


def ours(url: str, cache: Path | None = None) -> Iterator[int]:
    data = ShardDataModule(
        url,
        Constant(SIZE, BATCH, PASSES * IMAGES / 1000),
        decoded_mib=0,
        decode_threads=CORES,
        cache_folder=cache and str(cache),
    )
    for batch in data.batches(0):
        yield len(batch["images"])


def by_webdataset(urls: list[str], decoder: str | Callable, workers: int = 0) -> Iterator[int]:
    data = webdataset.WebDataset(urls, shardshuffle=False).decode(decoder).to_tuple("jpg")
    loaded: Iterable = data if not workers else torch.utils.data.DataLoader(data, batch_size=None, num_workers=workers)
    for _ in loaded:
        yield 1


def fast_jpeg(key: str, content: bytes) -> np.ndarray | None:
    return simplejpeg.decode_jpeg(content) if key.endswith("jpg") else None


def decoder_alone(contents: list[bytes]) -> Iterator[int]:
    def decode(part: list[bytes]) -> int:
        for content in part:
            simplejpeg.decode_jpeg(content)
        return len(part)

    parts = [contents[start : start + BATCH] for _ in range(PASSES) for start in range(0, len(contents), BATCH)]
    with ThreadPoolExecutor(CORES) as pool:
        yield from pool.map(decode, parts)


def rate(run: Callable[[], Iterator[int]]) -> float:
    begun = time.perf_counter()
    return sum(run()) / (time.perf_counter() - begun)


def all_contents(shards: ShardSet) -> list[bytes]:
    reader = Reader(shards)
    contents: list[bytes] = []
    for shard, count in enumerate(shards.shard_samples):
        index = reader._index(SIZE, shard)
        found = reader.fetcher.contents(SIZE, shard, index.offsets.tolist(), index.sizes.tolist())
        assert len(found) == count
        contents += [bytes(content) for content in found]
    return contents


def compare(folder: Path, server: S3Server) -> None:
    local, remote = folder / "shards", f"s3://{server.bucket()}/shards"
    for url in (str(local), remote):
        build(Crops(), Storage(url), samples_per_shard=IMAGES // 8, resolutions=[SIZE], workers=1)
    manifest = Manifest.load(str(local))
    contents = all_contents(ShardSet.of(Storage(str(local)), manifest))
    print(f"{len(contents)} images, {sum(map(len, contents)) / len(contents):.0f} bytes each")
    keys = [shard.key for shard in manifest.shards[SIZE]]
    files = [str(local / key) for key in keys]
    bucket, _, prefix = remote.removeprefix("s3://").partition("/")
    store = S3Store(bucket, endpoint=server.endpoint, allow_http=True)
    signed = [obstore.sign(store, "GET", f"{prefix}/{key}", timedelta(hours=1)) for key in keys]
    curl = [f"pipe:curl -s -f '{url}'" for url in signed]
    cold = iter(range(1000))
    runs: dict[str, Callable[[], Iterator[int]]] = {
        "decoder alone, all cores": lambda: decoder_alone(contents),
        "bigtrain, local": lambda: ours(str(local)),
        "bigtrain, S3, empty cache": lambda: ours(remote, folder / f"cache{next(cold)}"),
        "bigtrain, S3, cached": lambda: ours(remote, folder / "cache"),
        "webdataset pil, local": lambda: by_webdataset(files, "pilrgb"),
        f"webdataset pil, local, {CORES} workers": lambda: by_webdataset(files, "pilrgb", CORES),
        "webdataset simplejpeg, local": lambda: by_webdataset(files, fast_jpeg),
        "webdataset pil, S3 by pipe:curl": lambda: by_webdataset(curl, "pilrgb"),
    }
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            rates[name].append(rate(run))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    for name, value in medians.items():
        against = {"decoder": "decoder alone, all cores", "webdataset": "webdataset pil, local"}
        ratios = "  ".join(f"{value / medians[other]:.2f} of {short}" for short, other in against.items())
        print(f"{name:<36} {value:8.0f} images/s  {ratios}")


def main() -> None:
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryDirectory() as data, running(Path(data)) as server:
        folder = Path(name)
        os.environ.update(server.environment)
        compare(folder, server)


if __name__ == "__main__":
    main()
