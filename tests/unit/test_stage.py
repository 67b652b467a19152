"""Our shards as a stage of webdataset's pipelines: the samples and their order, shares, resume, damage.

That webdataset reads the shards by itself is in test_shards_build.py; here it is the independent reader.
"""

from __future__ import annotations

import gc
import itertools
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
from torch.utils.data import DataLoader

from bigtrain.cli.main import main
from bigtrain.data.datamodule import ShardDataModule
from bigtrain.data.faults import TooManyFaultsError
from bigtrain.data.manifest import Manifest, ShardIndex
from bigtrain.data.stage import OrderedSamples
from bigtrain.schedules import Constant
from bigtrain.storage import Storage
from tests.unit.made_shards import by_img2dataset, by_webdataset
from tests.unit.made_source import Made, build_made

SAMPLES = 1797  # of the digits


def read_by_webdataset(folder: Path) -> dict[str, dict[str, Any]]:
    """Samples by key."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # webdataset leaves its files open
        tars = sorted(str(path) for path in folder.glob("*.tar"))
        samples = list(webdataset.WebDataset(tars, shardshuffle=False))
        gc.collect()
    return {sample["__key__"]: sample for sample in samples}


def keys(samples: OrderedSamples) -> list[str]:
    return [sample["__key__"] for sample in samples]


def indices(samples: OrderedSamples) -> list[int]:
    return [sample["__index__"] for sample in samples]


def test_an_epoch_has_every_sample_as_webdataset_reads_it_in_our_order(digits: Path) -> None:
    data = ShardDataModule(str(digits), Constant(8, 8, 1), seed=5)
    samples = list(OrderedSamples(str(digits), 8, seed=5, stop=SAMPLES))
    expected = read_by_webdataset(digits / "r8")
    assert len(samples) == len(expected) == SAMPLES
    assert [sample["__key__"] for sample in samples] == data.reader.keys(list(map(data.order.at, range(SAMPLES))), 8)
    for g, sample in enumerate(samples):
        theirs = expected[sample["__key__"]]
        assert sample.keys() == {"__key__", "__url__", "__index__", "png", "cls"}
        assert sample["__index__"] == g
        assert all(sample[name] == theirs[name] for name in ("__url__", "png", "cls"))


def test_webdatasets_stages_make_the_batches_of_the_data_module(digits: Path) -> None:
    pipeline = webdataset.DataPipeline(
        OrderedSamples(str(digits), 8, seed=5, stop=200),
        webdataset.decode("l8"),
        webdataset.to_tuple("png", "cls"),
        webdataset.batched(32),
    )
    found = list(pipeline)
    assert [len(labels) for _, labels in found] == [32] * 6 + [8]
    ours = ShardDataModule(str(digits), Constant(8, 32, 0.192), seed=5).batches(0)
    for (images, labels), batch in zip(found, ours, strict=False):
        assert np.array_equal(images, batch["images"][:, 0])
        assert np.array_equal(labels, batch["labels"])


def test_workers_lose_nothing_and_double_nothing(digits: Path) -> None:
    source = OrderedSamples(str(digits), 4, seed=5, start=7, stop=7 + 333)
    pipeline = webdataset.DataPipeline(
        source, webdataset.decode("pil"), webdataset.to_tuple("__key__", "__index__", "png", "cls")
    )
    alone = list(pipeline)
    loader = DataLoader(pipeline, batch_size=None, num_workers=2, multiprocessing_context="spawn")
    for (key, g, image, label), expected in zip(loader, alone, strict=True):  # in the same order even
        assert (key, g, image.tobytes(), label) == (*expected[:2], expected[2].tobytes(), expected[3])
    assert [g for _, g, *_ in alone] == list(range(7, 340))


def test_ranks_have_shares(digits: Path) -> None:
    whole = keys(OrderedSamples(str(digits), 4, seed=5, start=50, stop=1000))
    for world in (2, 3, 8):
        shares = [OrderedSamples(str(digits), 4, 5, 50, 1000, rank, world) for rank in range(world)]
        assert [keys(share) for share in shares] == [whole[rank::world] for rank in range(world)]
    last = OrderedSamples(str(digits), 4, 5, 50, 53, 3, 4)
    assert keys(last) == []
    assert list(OrderedSamples(str(digits), 4, seed=5, start=50, stop=50)) == []


def test_it_goes_on_anywhere_and_without_an_end(digits: Path) -> None:
    whole = list(OrderedSamples(str(digits), 4, seed=5, stop=2 * SAMPLES))
    assert len({sample["__key__"] for sample in whole[:SAMPLES]}) == SAMPLES
    assert [s["__key__"] for s in whole[SAMPLES:]] != [s["__key__"] for s in whole[:SAMPLES]]
    for start in (1, 100, SAMPLES - 1):
        resumed = OrderedSamples(str(digits), 4, seed=5, start=start)
        assert list(itertools.islice(resumed, 300)) == whole[start : start + 300]


def test_another_seed_is_another_order(digits: Path) -> None:
    first, second = (keys(OrderedSamples(str(digits), 4, seed, stop=SAMPLES)) for seed in (0, 1))
    assert first != second
    assert sorted(first) == sorted(second)


def test_classes_in_balance(digits: Path) -> None:
    samples = OrderedSamples(str(digits), 4, seed=5, stop=100, order="balanced")
    for _, turn in itertools.groupby(samples, lambda sample: sample["__index__"] // 10):
        assert sorted(int(sample["cls"]) for sample in turn) == list(range(10))


def test_sets_of_shards_are_mixed_and_foreign_files_come_as_they_are(tmp_path: Path) -> None:
    urls = {}
    for name, weight in (("x", 3.0), ("y", 1.0)):
        by_webdataset(tmp_path / name, extension="jpg")
        assert main(["shards", "index", str(tmp_path / name)]) == 0
        urls[str(tmp_path / name)] = weight
    samples = list(OrderedSamples(urls, 8, seed=5, stop=4096))
    assert [sum(name in sample["__url__"] for sample in samples) for name in urls] == [3072, 1024]
    expected = read_by_webdataset(tmp_path / "x")
    assert all(sample["jpg"] == expected[sample["__key__"]]["jpg"] for sample in samples)


def test_without_classes_there_is_no_cls(tmp_path: Path) -> None:
    url = str(by_img2dataset(tmp_path))
    assert main(["shards", "index", url]) == 0
    expected = read_by_webdataset(tmp_path)
    for sample in OrderedSamples(url, 8, seed=5, stop=6):
        assert sample.keys() == {"__key__", "__url__", "__index__", "jpg"}
        assert sample["jpg"] == expected[sample["__key__"]]["jpg"]


def damage(folder: Path) -> tuple[str, str]:
    """Changes a byte of an image; the names of its shard and of its sample."""
    storage = Storage(folder)
    info = Manifest.load(storage).shards[8][1]
    index = ShardIndex.from_json(storage.read(info.index))
    content = bytearray(storage.read(info.key))
    content[int(index.offsets[2]) + 20] ^= 1
    storage.write(info.key, bytes(content))
    return info.key, index.keys[2]


def test_damage_is_an_error_or_replaced_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    build_made(Made(), tmp_path)
    sound = list(OrderedSamples(str(tmp_path), 8, seed=5, stop=20))
    shard, key = damage(tmp_path)
    with pytest.raises(TooManyFaultsError, match=f"{shard}: sample '{key}' at byte .*checksum") as caught:
        list(OrderedSamples(str(tmp_path), 8, seed=5, stop=20))
    assert "(max_bad_samples = 0.0001)" in str(caught.value)
    replaced = list(OrderedSamples(str(tmp_path), 8, seed=5, stop=20, max_bad_samples=0.05))
    (position,) = [g for g in range(20) if replaced[g] != sound[g]]
    assert sound[position]["__key__"] == key
    assert replaced[position] | {"__index__": 0} in [sample | {"__index__": 0} for sample in sound]
    assert [key in record.message for record in caplog.records] == [True]


def test_a_worker_that_meets_damage_stops_the_loader(tmp_path: Path) -> None:
    build_made(Made(), tmp_path)
    shard, key = damage(tmp_path)
    source = OrderedSamples(str(tmp_path), 8, seed=5, stop=20)
    with pytest.raises(TooManyFaultsError, match=f"{shard}: sample '{key}'"):
        list(DataLoader(source, batch_size=None, num_workers=1, multiprocessing_context="spawn"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"start": -1}, r"start \(=-1\)"),
        ({"start": 5, "stop": 4}, r"stop \(=4\)"),
        ({"rank": 2, "world": 2}, r"rank \(=2\)"),
        ({"cache_gib": -1}, r"cache_gib \(=-1\)"),
    ],
)
def test_mistakes_are_told_before_anything_is_opened(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        OrderedSamples("/nowhere", 8, seed=5, **options)


def test_a_resolution_that_is_not_there_is_named(digits: Path) -> None:
    with pytest.raises(ValueError, match=r"resolutions \[4, 8, 16\], not \[32\]") as caught:
        next(iter(OrderedSamples(str(digits), 32, seed=5)))
    assert "data." not in str(caught.value)  # there is no configuration here
