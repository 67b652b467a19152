"""Processes that decode: the same batches as threads give, whatever is wrong with the data or befalls a process."""

import gc
import io
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from webdataset import ShardWriter

from bigtrain.cli.main import main as bigtrain
from bigtrain.data.buffers import SharedBuffers
from bigtrain.data.datamodule import ShardDataModule
from bigtrain.data.decode import decode_any_size
from bigtrain.data.images import open_image, prepare
from bigtrain.data.manifest import NATIVE, Manifest
from bigtrain.schedules import Constant, Progressive
from bigtrain.storage import Storage
from tests.runs import children
from tests.unit.test_data_plane import made

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="Linux's way to share memory")
GROWTH = Progressive([4, 8], {4: 16, 8: 8}, 0.5, 0.1, 0.1)


def both(url, schedule, **options):
    """A data module whose threads decode, and one with two processes; neither keeps what it has decoded."""
    return [ShardDataModule(url, schedule, seed=3, decoded_mib=0, decode_processes=n, **options) for n in (0, 2)]


def same(first, second):
    pairs = list(zip(first, second, strict=True))
    assert all(torch.equal(a[key], b[key]) for a, b in pairs for key in ("images", "labels"))
    assert [a["first"] for a, _ in pairs] == [b["first"] for _, b in pairs]
    return len(pairs)


def decoding():
    """The processes of this one that decode, by number."""
    return {n for n in children(os.getpid()) if b"bigtrain.data.decoding" in Path(f"/proc/{n}/cmdline").read_bytes()}


def test_processes_give_the_batches_of_threads(digits, monkeypatch):
    threads, processes = both(str(digits), GROWTH, mirror=True)
    monkeypatch.setattr(processes.reader, "_contents", None)  # they have left nothing to the threads
    assert same(threads.batches(0), processes.batches(0)) == 56


@pytest.mark.parametrize("extension", ["jpg", "png", "webp"])
def test_shards_made_elsewhere(tmp_path, extension, monkeypatch):
    random = np.random.default_rng(0)
    with ShardWriter(str(tmp_path / "%d.tar"), maxcount=20, verbose=0) as writer:
        for n in range(64):
            file = io.BytesIO()
            pixels = random.integers(0, 256, (16, 16 + 4 * (n % 2), 3), dtype=np.uint8)
            Image.fromarray(pixels).save(file, {"jpg": "JPEG"}.get(extension, extension))
            writer.write({"__key__": f"{n:03d}", extension: file.getvalue(), "cls": str(n % 3).encode()})
    assert bigtrain(["shards", "index", str(tmp_path / "{0..3}.tar"), "--to", str(tmp_path / "index")]) == 0
    threads, processes = both(str(tmp_path / "index"), Constant(16, 8, 0.128))
    assert processes.shards.resolutions in ([], [NATIVE])
    monkeypatch.setattr(processes.reader, "_contents", None)
    assert same(threads.batches(0), processes.batches(0)) == 16


def test_damage_is_found_named_and_replaced_as_by_threads(tmp_path):
    url = made(tmp_path, 100, 10)
    shard = Manifest.load(url).shards[8][0]
    storage = Storage(url)
    content = bytearray(storage.read(shard.key))
    content[600] ^= 1
    storage.write(shard.key, bytes(content))
    threads, processes = both(url, Constant(8, 8, 0.4), max_bad_samples=0.02)
    assert same(threads.batches(0), processes.batches(0)) == 50
    assert processes.faults.counts == threads.faults.counts
    assert processes.faults.state() == threads.faults.state()


def test_threads_do_the_work_of_a_process_that_is_lost(digits, caplog):
    threads, processes = both(str(digits), Constant(8, 64, 10))
    batches = iter(processes.batches(0))
    got = [next(batches)]
    for number in decoding():
        os.kill(number, signal.SIGKILL)
    got += batches
    same(threads.batches(0), got)
    assert "a process that decodes is lost" in caplog.text


def test_they_see_no_signal_of_the_job_and_end_with_their_owner(digits):
    before = decoding()
    _, processes = both(str(digits), GROWTH)
    batches = iter(processes.batches(0))
    next(batches)
    mine = decoding() - before
    for number in mine:
        for one in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            os.kill(number, one)
    list(batches)
    assert decoding() - before == mine != set()
    del batches, processes
    gc.collect()
    assert not decoding() & mine


def test_shared_memory_is_given_back():
    def shared():
        return sum(
            "memfd:bigtrain" in str(file.readlink()) for file in Path("/proc/self/fd").iterdir() if file.is_symlink()
        )

    buffers, before = SharedBuffers(keep=1), shared()
    arrays = [buffers.empty((2, 4, 4, 3)) for _ in range(5)]
    one, rest = divmod(shared() - before, 5)
    assert one > 0
    assert rest == 0
    assert len({buffers.descriptor(array) for array in arrays}) == 5
    del arrays
    assert shared() == before + one


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("subsampling", [0, 2])
def test_jpegs_that_need_no_change_are_decoded_faster_to_the_pixels_of_pillow(mode, subsampling):
    random = np.random.default_rng(1)
    for side in (8, 17, 32):
        picture = Image.fromarray(random.integers(0, 256, (side, side, 3), dtype=np.uint8)).convert(mode)
        orientation = Image.Exif()
        orientation[0x0112] = 6
        for exif in (Image.Exif(), orientation):
            picture.save(file := io.BytesIO(), "JPEG", quality=80, subsampling=subsampling, exif=exif)
            for channels in (1, 3):
                found = np.empty((side, side, channels), np.uint8)
                decode_any_size(file.getvalue(), found)
                expected = prepare(open_image(file.getvalue()), [side], channels)[side]
                assert np.array_equal(found, np.asarray(expected).reshape(found.shape))


@pytest.mark.parametrize("number", [-1, -2])
def test_a_number_of_processes_below_none_is_refused(digits, number):
    with pytest.raises(ValueError, match=rf"decode_processes \(={number}\)"):
        ShardDataModule(str(digits), GROWTH, decode_processes=number)
