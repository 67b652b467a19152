"""From shards to batches: every sample as it was written, in the order of its global index, whatever reads it."""

import io
import threading
import time
from itertools import pairwise

import numpy as np
import pytest
import simplejpeg
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits

from bigtrain.data.batches import Batches
from bigtrain.data.datamodule import ShardDataModule
from bigtrain.data.decode import decode
from bigtrain.data.manifest import Manifest
from bigtrain.data.order import Order
from bigtrain.data.reader import Reader
from bigtrain.data.shard_set import ShardSet
from bigtrain.data.threads import Threads
from bigtrain.schedules import Constant, Progressive
from bigtrain.storage import Storage
from bigtrain.storage.ranges import Span, merged, near_enough

GROWTH = {"resolutions": [4, 8], "batch_size": {4: 12, 8: 7}, "transition_kimg": 0.05, "stabilize_kimg": 0.1}


@pytest.fixture(scope="module")
def reader(digits):
    return Reader(ShardSet.of(Storage(digits), Manifest.load(str(digits))))


@pytest.fixture(scope="module")
def order(reader):
    return Order(reader.shards.shard_samples, seed=1)


def all_batches(reader, order, images_seen=0, **options):
    schedule = Progressive(**GROWTH, total_kimg=0.4, d_steps_per_g_step=2)
    return list(Batches(reader, order, schedule, images_seen, seed=1, **options))


def same(a, b):
    return all(x["first"] == y["first"] and torch.equal(x["images"], y["images"]) for x, y in zip(a, b, strict=True))


def test_the_shards_hold_the_source(reader):
    images, labels = (np.concatenate(parts) for parts in zip(*reader.all(8, 100), strict=True))
    digits = load_digits()
    written = {(image.tobytes(), label) for image, label in zip(images[..., 0], labels, strict=True)}
    source = np.round(digits.images * 255 / 16).astype(np.uint8)
    assert written == {(image.tobytes(), label) for image, label in zip(source, digits.target, strict=True)}


def test_an_epoch_of_batches_is_every_key_once(reader, order):
    schedule = Constant(8, 32, 2 * reader.shards.samples / 1000)
    moments = list(schedule.steps(0))[: -(-2 * reader.shards.samples // 32)]
    indices = [g for moment in moments for g in range(moment.images_seen, moment.images_seen + 32)]
    keys = reader.keys([order.at(g) for g in indices[: 2 * reader.shards.samples]], 8)
    everything = {f"{position:09d}" for position in range(reader.shards.samples)}
    assert len(keys) == 2 * len(everything)
    assert set(keys[: len(everything)]) == set(keys[len(everything) :]) == everything


def test_a_batch_holds_the_samples_of_its_indices(reader, order):
    for batch in all_batches(reader, order):
        places = [order.at(g) for g in range(batch["first"], batch["first"] + len(batch["images"]))]
        images, labels = reader.read(places, batch["images"].shape[-1])
        assert np.array_equal(batch["images"].permute(0, 2, 3, 1), images)
        assert np.array_equal(batch["labels"], labels)


@pytest.mark.parametrize(("threads", "ahead"), [(1, 1), (5, 2), (2, 50)])
def test_threads_and_prefetch_do_not_matter(reader, order, threads, ahead):
    assert same(all_batches(reader, order), all_batches(reader, order, threads=threads, ahead=ahead))


@pytest.mark.parametrize("world", [1, 2])
def test_steps_that_are_read_at_once_are_those_read_one_by_one(reader, order, world, monkeypatch):
    schedule = Progressive([4, 8], {4: 12, 8: 8}, 1.2, 0.4, 0.2)
    batches = Batches(reader, order, schedule, 0, seed=1, mirror=True, rank=world - 1, world=world)
    blocks = list(batches._blocks())
    assert [moment for block in blocks for moment in block] == list(schedule.steps(0))
    assert all(len({id(moment.phase) for moment in block}) == 1 for block in blocks)
    assert max(len(block) * block[0].phase.images_per_step for block in blocks) // world in range(240, 257)
    singly = [batches.batch(moment) for moment in schedule.steps(0)]
    assert same(singly, batches)
    assert all(torch.equal(a["labels"], b["labels"]) for a, b in zip(singly, batches, strict=True))
    monkeypatch.setattr("bigtrain.data.batches.BLOCK_BYTES", 10)
    assert all(len(block) == 1 for block in batches._blocks())


def test_from_any_step_on_the_batches_are_the_same(reader, order):
    whole = all_batches(reader, order, mirror=True)
    for cut in (1, 5, len(whole) - 1):
        assert same(whole[cut:], all_batches(reader, order, whole[cut]["first"], mirror=True))


def test_mirroring_flips_about_half_of_the_images_whole(reader, order):
    flipped = total = 0
    for plain, mirrored in zip(all_batches(reader, order), all_batches(reader, order, mirror=True), strict=True):
        for a, b in zip(plain["images"], mirrored["images"], strict=True):
            assert torch.equal(a, b) or torch.equal(a.flip(-1), b)
            flipped += not torch.equal(a, b)
            total += 1
    assert 0.35 < flipped / total < 0.65


def decoded(content, extension, channels):
    out = np.empty((8, 8, channels), dtype=np.uint8)
    decode(content, extension, out)
    return out


def png(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "png")
    return buffer.getvalue()


@pytest.mark.parametrize("channels", [1, 3])
def test_decoding_gives_the_pixels(channels):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, channels), dtype=np.uint8)
    assert np.array_equal(decoded(png(pixels.squeeze()), "png", channels), pixels)
    space = "GRAY" if channels == 1 else "RGB"
    jpeg = simplejpeg.encode_jpeg(pixels, 95, space, "Gray" if channels == 1 else "444")
    with Image.open(io.BytesIO(jpeg)) as image:
        assert np.array_equal(decoded(jpeg, "jpg", channels), np.asarray(image).reshape(8, 8, channels))


@pytest.mark.parametrize(
    ("content", "extension", "said"),
    [
        (png(np.zeros((9, 8), np.uint8)), "png", "8x9 pixels, not of 8x8"),
        (png(np.zeros((8, 8), np.uint8))[:45], "png", "not a readable png"),
        (b"rubbish", "png", "not a readable png"),
        (b"rubbish", "jpg", "JPEG"),
        (b"\x80\x04\x95.", "png", "not a readable png"),
    ],
    ids=["size", "truncated", "png", "jpeg", "pickle"],
)
def test_what_is_no_such_image_is_refused(content, extension, said):
    with pytest.raises(ValueError, match=said):
        decoded(content, extension, 1)


def test_threads_are_as_many_as_needed_and_are_not_waited_for():
    threads = Threads(3, "test")
    before, at_once, most = threading.active_count(), threading.Barrier(3), []

    def meet(number):
        at_once.wait(10)  # all three are there at the same time
        most.append(threading.active_count() - before)
        return number

    for _ in range(5):
        assert threads.map(meet, range(6)) == list(range(6))
    assert max(most) == 3
    with pytest.raises(ZeroDivisionError):
        threads.map(lambda number: 1 // number, [1, 0, 2])
    release = threading.Event()
    waiting = [threads.submit(release.wait, 10) for _ in range(4)]
    deadline = time.monotonic() + 10
    while not all(future.running() for future in waiting[:3]) and time.monotonic() < deadline:
        time.sleep(0.01)
    threads.close()
    assert waiting[3].cancelled()  # had not begun
    release.set()
    assert all(future.result() for future in waiting[:3])
    with pytest.raises(RuntimeError, match="closed"):
        threads.submit(print)
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before


_RANGES = st.lists(
    st.builds(lambda start, size: Span(start, start + size), st.integers(0, 2**24), st.integers(1, 2**14)), min_size=1
)


@given(_RANGES)
def test_ranges_are_merged_while_few_bytes_too_many_are_read(ranges):
    whole, near = merged(ranges, 0)[0], near_enough(ranges)
    needed, gaps = bytes_of(whole), [after.start - before.stop for before, after in pairwise(whole)]
    read = bytes_of(merged(ranges, near)[0])
    assert read == needed + sum(gap for gap in gaps if gap <= near)
    assert read <= max(4 * needed, 64 << 10)
    wider = [gap for gap in gaps if gap > near]
    if wider and min(wider) <= 1 << 20:  # one gap more, and those as wide, would be too many bytes
        assert read + sum(gap for gap in wider if gap == min(wider)) > max(4 * needed, 64 << 10)


def bytes_of(spans):
    return sum(span.stop - span.start for span in spans)


def test_tiny_images_far_apart_are_read_alone_and_neighbours_together():
    pitch, size, counts = 2048, 600, {}
    for name, samples in {"all": range(1000), "scattered": range(0, 10_000, 100), "two": (7, 9)}.items():
        ranges = [Span(sample * pitch, sample * pitch + size) for sample in samples]
        spans, _ = merged(ranges, near_enough(ranges))
        counts[name] = len(spans) / len(ranges), bytes_of(spans) / bytes_of(ranges)
    assert counts["all"][0] == 1 / 1000
    assert counts["two"][0] == 1 / 2
    assert counts["scattered"] == (1, 1)  # gaps of 200 kB: with them it would be 338 times the bytes
    assert all(over < 4 for _, over in counts.values())


@pytest.mark.parametrize("options", [{"decode_threads": 0}, {"batches_ahead": 0}, {"lanes": 0}])
def test_mistakes_of_the_data_are_named(digits, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        ShardDataModule(str(digits), Constant(8, 8, 1), **options)


def test_what_fits_into_memory_is_decoded_once_and_the_batches_are_the_same(reader, order, digits, monkeypatch):
    manifest = reader.shards
    needed = manifest.samples * (8 * 8 + 9)
    keeping, short = (Reader(reader.shards, decoded_bytes=size) for size in (needed, needed - 1))
    times_decoded = []
    monkeypatch.setattr("bigtrain.data.reader.decode", lambda *a: times_decoded.append(a) or decode(*a))
    places = [order.at(g) for g in range(3 * manifest.samples)]
    for read, times in ((keeping, 1), (short, 3)):
        times_decoded.clear()
        for start in range(0, len(places), manifest.samples):
            part = places[start : start + manifest.samples]
            for ours, expected in zip(read.read(part, 8), reader.read(part, 8), strict=True):
                np.testing.assert_array_equal(ours, expected)
        assert len(times_decoded) == (times + 3) * manifest.samples  # 3 for what is expected
    assert same(all_batches(keeping, order, mirror=True, threads=3), all_batches(reader, order, mirror=True))
