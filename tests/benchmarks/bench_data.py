"""Images a second from shards to batches, beside webdataset and the decoder: `python tests/benchmarks/bench_data.py`.

4,096 crops of 128² of scikit-learn's two photographs, in 8 shards in a folder and in a real S3 server on this machine.
webdataset's ShardWriter wrote them, as jpegs of Pillow's default kind (4:2:0; 5.3 kB each at quality 89),
and `bigtrain shards index` indexed them. `built` are shards of `bigtrain shards build`: jpegs of quality 95 without
subsampling, which take longer to decode and so have a decoder of their own. All run in turns; ratios are of medians.
`decoder` is simplejpeg by threads on all cores: bytes in memory, each image into memory that is free again at once.
"""

from __future__ import annotations

import io
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
from bigtrain.data.indexing import index
from bigtrain.data.manifest import Manifest
from bigtrain.data.reader import Reader
from bigtrain.data.shard_set import ShardSet
from bigtrain.data.sources import Source
from bigtrain.data.writer import build
from bigtrain.schedules import Constant
from bigtrain.storage import Storage
from tests.services.s3 import S3Server, running

IMAGES, SIZE, BATCH, ROUNDS, PASSES = 4096, 128, 64, 5, 24
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


def write_as_others_do(folder: Path) -> None:
    folder.mkdir()
    with webdataset.ShardWriter(str(folder / "%02d.tar"), maxcount=IMAGES // 8, verbose=0) as writer:
        for number in range(IMAGES):
            file = io.BytesIO()
            Crops().load(number).save(file, "JPEG", quality=89)
            writer.write({"__key__": f"{number:06d}", "jpg": file.getvalue()})
    index([str(folder)], checksums=True, channels=3)


def ours(url: str, processes: int = CORES, cache: Path | None = None) -> Iterator[int]:
    data = ShardDataModule(
        url,
        Constant(SIZE, BATCH, PASSES * IMAGES / 1000),
        decoded_mib=0,
        decode_threads=CORES,
        decode_processes=processes,
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


def all_contents(url: str) -> list[bytes]:
    manifest = Manifest.load(url)
    resolution = next(iter(manifest.shards))
    reader = Reader(ShardSet.of(Storage(url), manifest))
    places = [(shard, sample) for shard, count in enumerate(manifest.shard_samples) for sample in range(count)]
    return [bytes(stored.content) for stored in reader.contents(places, resolution)]


def compare(folder: Path, server: S3Server) -> None:
    local, built, remote = str(folder / "shards"), str(folder / "built"), f"s3://{server.bucket()}/shards"
    write_as_others_do(Path(local))
    keys = sorted(path.name for path in Path(local).glob("*.tar"))
    for key in keys:
        Storage(remote).write(key, Path(local, key).read_bytes())
    index([remote], checksums=True, channels=3)
    build(Crops(), Storage(built), samples_per_shard=IMAGES // 8, resolutions=[SIZE], workers=1)
    contents, of_built = all_contents(local), all_contents(built)
    print(f"{len(contents)} images, {sum(map(len, contents)) / IMAGES:.0f} bytes each; built: ", end="")
    print(f"{sum(map(len, of_built)) / IMAGES:.0f}")
    files = [str(Path(local, key)) for key in keys]
    bucket, _, prefix = remote.removeprefix("s3://").partition("/")
    store = S3Store(bucket, endpoint=server.endpoint, allow_http=True)
    signed = [obstore.sign(store, "GET", f"{prefix}/{key}", timedelta(hours=1)) for key in keys]
    curl = [f"pipe:curl -s -f '{url}'" for url in signed]
    cold = iter(range(1000))
    runs: dict[str, Callable[[], Iterator[int]]] = {
        "decoder alone, all cores": lambda: decoder_alone(contents),
        "bigtrain, local": lambda: ours(local),
        "bigtrain, local, threads": lambda: ours(local, 0),
        "bigtrain, S3, empty cache": lambda: ours(remote, cache=folder / f"cache{next(cold)}"),
        "bigtrain, S3, cached": lambda: ours(remote, cache=folder / "cache"),
        "webdataset pil, local": lambda: by_webdataset(files, "pil"),
        f"webdataset pil, local, {CORES} workers": lambda: by_webdataset(files, "pil", CORES),
        "webdataset simplejpeg, local": lambda: by_webdataset(files, fast_jpeg),
        "webdataset pil, S3 by pipe:curl": lambda: by_webdataset(curl, "pil"),
        "built: decoder alone": lambda: decoder_alone(of_built),
        "built: bigtrain, local": lambda: ours(built),
        "built: bigtrain, local, threads": lambda: ours(built, 0),
    }
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            rates[name].append(rate(run))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    for name, value in medians.items():
        decoder = "built: decoder alone" if name.startswith("built") else "decoder alone, all cores"
        ratios = (
            f"{value / medians[decoder]:.2f} of decoder  {value / medians['webdataset pil, local']:.2f} of webdataset"
        )
        print(f"{name:<36} {value:8.0f} images/s  {ratios}")


def main() -> None:
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryDirectory() as data, running(Path(data)) as server:
        folder = Path(name)
        os.environ.update(server.environment)
        compare(folder, server)


if __name__ == "__main__":
    main()
