"""From several kinds of shards to batches: any number of ranks, mixtures, balance, images of any size, damaged data."""

import itertools
import logging
import re
import threading
import time
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bigtrain.data.datamodule import ShardDataModule
from bigtrain.data.faults import TooManyFaultsError
from bigtrain.data.images import prepare
from bigtrain.data.manifest import Manifest
from bigtrain.data.order import Order
from bigtrain.data.prefetch import Prefetcher
from bigtrain.data.sources import open_source
from bigtrain.data.writer import build
from bigtrain.schedules import Constant, Progressive
from bigtrain.storage import Storage

GROWTH = Progressive([4, 8], {4: 16, 8: 8}, 0.5, 0.1, 0.1)


@pytest.fixture(scope="module")
def data(digits):
    return ShardDataModule(str(digits), GROWTH, seed=3, mirror=True)


def whole(parts):
    """The global batch of the parts of all ranks."""
    world, each = len(parts), len(parts[0]["images"])
    images = torch.stack([part["images"] for part in parts], dim=1)
    labels = torch.stack([part["labels"] for part in parts], dim=1)
    return images.reshape(world * each, *images.shape[2:]), labels.reshape(-1)


@settings(max_examples=15, deadline=None)
@given(world=st.sampled_from([1, 2, 4, 8]), step=st.integers(0, 40), threads=st.integers(1, 5))
def test_any_number_of_ranks_and_threads_reads_the_same_global_batches(data, world, step, threads):
    moments = list(itertools.islice(GROWTH.steps(0), step, step + 3))
    data.threads = threads
    ranks = [data.batches(moments[0].images_seen, rank, world) for rank in range(world)]
    for moment, *parts in zip(moments, *ranks, strict=False):
        expected = data.batches(0).batch(moment)
        images, labels = whole(parts)
        assert torch.equal(images, expected["images"])
        assert torch.equal(labels, expected["labels"])
        assert {part["first"] for part in parts} == {moment.images_seen}


def test_a_batch_that_the_ranks_cannot_share_is_named(data):
    with pytest.raises(ValueError, match=r"batch_size \(=16\) at 4² must be a multiple of .* processes \(=3"):
        data.batches(0, world=3)


def made(folder, count, shade, size=8, classes=("a", "b")):
    """Shards of single-coloured images, in classes of which the first has three quarters."""
    for number in range(count):
        name = classes[number % 4 == 0]
        (folder / "source" / name).mkdir(parents=True, exist_ok=True)
        Image.new("L", (size, size), shade).save(folder / "source" / name / f"{number:04d}.png")
    options = {"resolutions": [size], "samples_per_shard": 20, "workers": 1}
    build(open_source(str(folder / "source"), 1), Storage(folder / "shards"), **options)
    return str(folder / "shards")


def test_sets_of_shards_are_mixed_by_their_weights(tmp_path):
    urls = {made(tmp_path / "x", 100, 10): 3.0, made(tmp_path / "y", 40, 200): 1.0}
    data = ShardDataModule(urls, Constant(8, 8, 4.096))
    shades = Counter(int(image[0, 0, 0]) for batch in data.batches(0) for image in batch["images"])
    assert shades == {10: 3072, 200: 1024}
    assert data.shards.class_counts == [75 + 30, 25 + 10]
    other = ShardDataModule(dict.fromkeys(urls, 1.0), Constant(8, 8, 4.096))
    assert len({data.shards.hash, other.shards.hash, *(manifest.hash for manifest in data.shards.manifests)}) == 4


def test_sets_of_other_classes_are_not_mixed(tmp_path):
    urls = {made(tmp_path / "x", 40, 10): 1.0, made(tmp_path / "y", 40, 10, classes=("a", "c")): 1.0}
    with pytest.raises(ValueError, match="must have the same classes"):
        ShardDataModule(urls, Constant(8, 8, 1))


def test_a_balanced_order_shows_every_class_equally_often(tmp_path):
    url = made(tmp_path, 100, 10)
    data = ShardDataModule(url, Constant(8, 10, 1), order="balanced")
    assert Counter(torch.cat([batch["labels"] for batch in data.batches(0)]).tolist()) == {0: 500, 1: 500}
    unlabelled = tmp_path / "unlabelled"
    build(open_source(str(tmp_path / "source"), 1, unlabelled=True), Storage(unlabelled), resolutions=[8], workers=1)
    with pytest.raises(ValueError, match=r"'balanced'.*with classes"):
        ShardDataModule(str(unlabelled), Constant(8, 10, 1), order="balanced")


def damage(url, shard, sample, resolution=8):
    """Changes a byte of a sample's image."""
    storage = Storage(url)
    info = Manifest.load(storage).shards[resolution][shard]
    data = ShardDataModule(url, Constant(resolution, 8, 1))
    content = bytearray(storage.read(info.key))
    content[int(data.reader._index(resolution, shard).offsets[sample]) + 20] ^= 1
    storage.write(info.key, bytes(content))
    return info.key


def test_damaged_samples_within_the_budget_are_replaced_told_and_counted(tmp_path, caplog):
    url = made(tmp_path, 100, 10)
    key = damage(url, 1, 3)
    schedule = Constant(8, 8, 0.4)
    with pytest.raises(TooManyFaultsError, match=f"{key}: sample .* at byte .*checksum.*1 of 100 samples are damaged"):
        list(ShardDataModule(url, schedule).batches(0))
    caplog.set_level(logging.WARNING)
    kept = [ShardDataModule(url, schedule, max_bad_samples=0.01, decoded_mib=mib) for mib in (0, 1, 0)]
    first, second = (list(data.batches(0)) for data in kept[:2])
    assert all(torch.equal(a["images"], b["images"]) for a, b in zip(first, second, strict=True))
    assert len([record for record in caplog.records if key in record.message]) == 2  # one each
    assert kept[0].faults.state() == {"shards": [], "samples": [(1, 3)]}
    assert kept[0].batches(0).counts["substitutions"] == 4  # four epochs
    kept[2].faults.load(kept[0].faults.state())  # as a resumed training does
    resumed = list(kept[2].batches(first[20]["first"]))
    assert all(torch.equal(a["images"], b["images"]) for a, b in zip(resumed, first[20:], strict=True))


def test_a_damaged_shard_is_set_aside_only_if_it_is_one_of_many(tmp_path):
    url = made(tmp_path, 100, 10)
    info = Manifest.load(url).shards[8][2]
    storage = Storage(url)
    storage.write(info.key, storage.read(info.key)[:-600])
    with pytest.raises(TooManyFaultsError, match=f"{info.key} has .* bytes.*20.00% of the samples"):
        list(ShardDataModule(url, Constant(8, 8, 0.4)).batches(0))


def test_images_of_any_size_are_cropped_and_resized_as_a_build_would(tmp_path):
    from webdataset import TarWriter  # noqa: PLC0415

    from bigtrain.cli.main import main as bigtrain  # noqa: PLC0415

    generator = np.random.default_rng(0)
    pictures = [generator.integers(0, 256, (9 + n, 20, 3), dtype=np.uint8) for n in range(24)]
    with TarWriter(str(tmp_path / "foreign-0000.tar")) as writer:
        for n, picture in enumerate(pictures):
            writer.write({"__key__": f"{n:04d}", "png": Image.fromarray(picture), "cls": n % 2})
    assert bigtrain(["shards", "index", str(tmp_path / "foreign-0000.tar"), "--to", str(tmp_path / "index")]) == 0
    data = ShardDataModule(str(tmp_path / "index"), Constant(8, 8, 0.024))
    expected = {np.asarray(prepare(Image.fromarray(picture), [8], 3)[8]).tobytes() for picture in pictures}
    found = {np.ascontiguousarray(i.permute(1, 2, 0)).tobytes() for b in data.batches(0) for i in b["images"]}
    assert found == expected


def test_a_training_that_is_to_stop_does_not_wait_for_a_batch_that_does_not_come(data, monkeypatch):
    batches = data.batches(0)
    release = threading.Event()
    monkeypatch.setattr(batches, "block", lambda moments: release.wait(30))
    batches.stopping = lambda: True
    assert list(batches) == []
    release.set()


def test_plans_of_what_to_fetch_are_made_by_a_thread_and_seldom(tmp_path):
    url = made(tmp_path, 200, 10)
    data = ShardDataModule(url, Constant(8, 8, 40))
    prefetcher = Prefetcher(data.fetcher, data.order, data.schedule, 1 << 20)
    planned = []
    prefetcher.wanted = lambda g: planned.append((g, threading.current_thread().name)) or []
    for g in range(0, 20_000, 8):
        prefetcher.advance(g)
        if g % 1000 == 0:
            time.sleep(0.01)
    prefetcher.close()
    assert 3 <= len(planned) <= 5
    assert all(name.startswith("prefetch") for _, name in planned)


def test_a_plan_that_fails_is_told_and_the_next_step_makes_another(tmp_path, caplog):
    data = ShardDataModule(made(tmp_path, 200, 10), Constant(8, 8, 40))
    prefetcher, planned = Prefetcher(data.fetcher, data.order, data.schedule, 1 << 20), []

    def wanted(g):
        planned.append(g)
        if len(planned) == 1:
            raise OSError("the order is on holiday")
        return []

    prefetcher.wanted = wanted
    for g in range(0, 1000, 8):
        prefetcher.advance(g)
        time.sleep(0.001)
    prefetcher.close()
    assert len(planned) == 2
    assert [record.message for record in caplog.records] == ["what to fetch ahead could not be planned"]
    assert "on holiday" in caplog.text


class FromAfar(Storage):
    """A folder that is read as if it was in an object store."""

    is_local = False


def cached(monkeypatch, tmp_path, shards, held, lanes):
    """Data of so many shards of 20 samples, read in blocks of two shards, with a cache for some of them."""
    monkeypatch.setattr("bigtrain.data.opening.Storage", FromAfar)
    monkeypatch.setattr(FromAfar, "hasty", lambda self, **_: self)
    url = made(tmp_path, 20 * shards, 10)
    shard_gib = max(info.bytes for info in Manifest.load(url).shards[8]) / 2**30
    cache = {"cache_folder": str(tmp_path / "cache"), "cache_gib": 1.01 * held * shard_gib, "prefetch_gib": shard_gib}
    data = ShardDataModule(url, Constant(8, 20, 20 * shards * 3 / 1000), decoded_mib=0, **cache)
    data.order = Order([20] * shards, 1, lanes, block_shards=2, block_samples=1)
    assert data.order.lanes == lanes
    return data


@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize("held", [3, 5, 30])
def test_no_shard_is_fetched_in_the_place_of_one_that_is_needed(monkeypatch, tmp_path, lanes, held):
    """Three epochs of 30 shards, of which 3 or 9 are open: about as many samples are fetched as are needed."""
    data = cached(monkeypatch, tmp_path, 30, held, lanes)
    batches = data.batches(0)
    for moment in batches.schedule.steps(0):
        batches.prefetcher.advance(moment.images_seen)
        settle(batches.prefetcher)
        batches.batch(moment)
    counts, open_shards = batches.counts, data.order.open_shards()
    assert counts["fetched"] * 20 + counts.get("cache_misses", 0) <= 1.1 * 1800
    assert counts["cache_hits"] >= 0.9 * 1800 * min(1, held / open_shards)


def settle(prefetcher):
    """Until what was planned is fetched."""
    deadline = time.monotonic() + 10
    while prefetcher._plan_at is None or prefetcher._queue or prefetcher._under_way:
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.parametrize(
    ("lanes", "held", "world", "said"),
    [(4, 3, 1, "about 3 of the 12 shards"), (4, 13, 1, None), (1, 2, 1, "about 2 of the 3"), (4, 4, 4, None)],
)
def test_a_cache_too_small_for_what_is_read_at_the_same_time_is_told(
    monkeypatch, tmp_path, caplog, lanes, held, world, said
):
    data = cached(monkeypatch, tmp_path, 16, held, lanes)
    for rank in range(world):
        data.batches(0, rank, world)
    lines = [record.message for record in caplog.records]
    assert len(lines) == bool(said)
    if said:
        pattern = rf"cache_gib \(=\S+\) has room for {said} .* set cache_gib to \S+ or more, or take fewer lanes"
        assert re.match(pattern, lines[0])


@given(st.integers(5, 40), st.integers(1, 8), st.integers(1, 4), st.integers(0, 99))
def test_an_order_says_how_many_shards_it_reads_at_the_same_time(count, lanes, block, seed):
    order = Order([10] * count, seed, lanes=lanes, block_shards=block, block_samples=1)
    for world in (1, order.lanes):
        stretch = 10 * block * order.lanes
        needed = order.places(np.arange(0, stretch, world))[:, 0]  # a block of each lane of rank 0
        assert len(np.unique(needed)) <= order.open_shards(world) <= count


def test_labels_that_were_changed_after_the_build_are_an_error(tmp_path):
    url = made(tmp_path, 100, 10)
    storage = Storage(url)
    info = Manifest.load(storage).shards[8][0]
    storage.write(info.index, storage.read(info.index).replace(b'"labels":[', b'"labels":[1,').replace(b",0]", b"]"))
    with pytest.raises(TooManyFaultsError, match=f"index of .*{info.key}: it does not have the checksum"):
        list(ShardDataModule(url, Constant(8, 8, 0.1)).batches(0))
