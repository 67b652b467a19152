"""The node's cache: one download a shard, whole or not at all, bounded, readable while it is removed."""

import errno
import hashlib
import multiprocessing
import os
import threading
import time

import pytest

from bigtrain.data.cache import CacheFullError, DiskFullError, ShardCache
from bigtrain.data.files import InFile, ShardError

SHARD = bytes(range(250)) * 4
SHA = hashlib.sha256(SHARD).hexdigest()


def writes(content, log=None):
    def download(descriptor):
        if log is not None:
            log.append(content)
        os.pwrite(descriptor, content, 0)

    return download


@pytest.fixture
def cache(tmp_path):
    return ShardCache(tmp_path / "cache", 3500)


def shards_in(cache):
    return sorted(path.name for path in cache.folder.iterdir() if path.is_file())


def test_a_shard_is_downloaded_once_and_found_by_others(cache):
    log = []
    for _ in range(3):
        assert cache.fetch("a", 1000, SHA, writes(SHARD, log)).read(10, 20) == SHARD[10:30]
    assert len(log) == 1
    assert ShardCache(cache.folder.parent, 3500).find("a", 1000).read(0, 1000) == SHARD
    assert cache.find("b", 1000) is None


def test_a_wrong_download_leaves_nothing(cache):
    with pytest.raises(ShardError, match="checksum"):
        cache.fetch("a", 1000, SHA, writes(os.urandom(1000)))

    def fails(descriptor):
        os.pwrite(descriptor, SHARD[:500], 0)
        raise OSError("the connection was cut")

    with pytest.raises(OSError, match="cut"):
        cache.fetch("a", 1000, SHA, fails)
    assert shards_in(cache) == []
    assert cache.fetch("a", 1000, SHA, writes(SHARD)).read(0, 1000) == SHARD


def test_what_was_not_used_for_longest_goes_and_stays_readable_for_who_has_it(cache):
    held = {name: cache.fetch(name, 1000, SHA, writes(SHARD)) for name in "abc"}
    for age, name in enumerate("bca"):  # b was not used for longest
        os.utime(cache.folder / name, (1000 + age, 1000 + age))
    cache.fetch("d", 1000, SHA, writes(SHARD))
    assert shards_in(cache) == ["a", "c", "d"]
    assert held["b"].read(0, 1000) == SHARD
    cache.touch("c")
    cache.fetch("e", 1000, SHA, writes(SHARD))
    assert shards_in(cache) == ["c", "d", "e"]


def test_what_somebody_needs_stays_and_nothing_is_removed_in_vain(cache):
    other = ShardCache(cache.folder.parent, 3500)  # as another process has it
    for name in "abc":
        cache.fetch(name, 1000, SHA, writes(SHARD))
    cache.pin("a")
    other.pin("bz")
    cache.fetch("d", 1000, SHA, writes(SHARD))
    assert shards_in(cache) == ["a", "b", "d"]
    cache.pin("ad")
    for one in (cache, other):
        with pytest.raises(CacheFullError, match="no room"):
            one.fetch("e", 1000, SHA, writes(SHARD))
    assert shards_in(cache) == ["a", "b", "d"]
    other.pin("")
    cache.fetch("e", 1000, SHA, writes(SHARD))
    assert shards_in(cache) == ["a", "d", "e"]
    cache.pin("e")
    with pytest.raises(CacheFullError):  # two of the three would have to go, and that is not enough
        cache.fetch("f", 3000, None, writes(bytes(3000)))
    assert shards_in(cache) == ["a", "d", "e"]


def _pin_and_wait(folder, ready):
    cache = ShardCache(folder, 3500)
    cache.pin("abc")
    ready.set()
    time.sleep(60)


def test_what_a_killed_process_needed_may_go(cache):
    for name in "abc":
        cache.fetch(name, 1000, SHA, writes(SHARD))
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_pin_and_wait, args=(cache.folder.parent, ready))
    process.start()
    assert ready.wait(30)
    with pytest.raises(CacheFullError):
        cache.fetch("d", 1000, SHA, writes(SHARD))
    process.kill()
    process.join()
    cache.fetch("d", 1000, SHA, writes(SHARD))
    assert len(shards_in(cache)) == 3
    assert list((cache.folder / "pins").iterdir()) == []


def test_what_has_no_room_is_an_error_of_its_own(cache, monkeypatch):
    with pytest.raises(CacheFullError):
        cache.fetch("large", 4000, None, writes(bytes(4000)))

    def full(*_):
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DiskFullError, match="no room"):
        cache.fetch("a", 1000, SHA, writes(SHARD))
    assert shards_in(cache) == []


def test_a_damaged_copy_is_not_found(cache):
    cache.fetch("a", 1000, SHA, writes(SHARD))
    os.truncate(cache.folder / "a", 900)
    assert cache.find("a", 1000) is None
    assert shards_in(cache) == []


def test_what_a_killed_process_left_is_cleared_when_room_is_needed(cache):
    (cache.folder / "dead.part").write_bytes(bytes(3000))
    cache.fetch("a", 1000, SHA, writes(SHARD))
    assert shards_in(cache) == ["a"]


def test_a_download_under_way_is_not_cleared(cache):
    begun, go_on = threading.Event(), threading.Event()

    def slow(descriptor):
        begun.set()
        assert go_on.wait(10)
        os.pwrite(descriptor, SHARD, 0)

    thread = threading.Thread(target=lambda: cache.fetch("slow", 1000, SHA, slow))
    thread.start()
    assert begun.wait(10)
    for name in "abcd":
        cache.fetch(name, 1000, SHA, writes(SHARD))
    go_on.set()
    thread.join()
    assert cache.find("slow", 1000).read(0, 1000) == SHARD
    assert len(shards_in(cache)) == 3


def _fetch_in_process(folder, log):
    def download(descriptor):
        with log.open("a") as file:
            file.write("x")
        time.sleep(0.3)
        os.pwrite(descriptor, SHARD, 0)

    assert ShardCache(folder, 3500).fetch("a", 1000, SHA, download).read(0, 1000) == SHARD


def test_processes_download_a_shard_once(cache, tmp_path):
    context = multiprocessing.get_context("spawn")
    work = [context.Process(target=_fetch_in_process, args=(cache.folder.parent, tmp_path / "log")) for _ in range(2)]
    for process in work:
        process.start()
    for process in work:
        process.join()
    assert [process.exitcode for process in work] == [0, 0]
    assert (tmp_path / "log").read_text() == "x"


def test_a_file_that_is_cut_short_while_it_is_read_is_an_error(tmp_path):
    (tmp_path / "shard").write_bytes(SHARD)
    file = InFile(tmp_path / "shard", 1000)
    os.truncate(tmp_path / "shard", 500)
    with pytest.raises(ShardError, match="cut short"):
        file.read(400, 200)
    with pytest.raises(ShardError, match="500 bytes, and 1000 by the manifest"):
        InFile(tmp_path / "shard", 1000)


def test_files_of_others_in_the_folder_stay(tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "thesis.tex").write_bytes(bytes(5000))
    cache = ShardCache(tmp_path / "cache", 1500)
    for name in "ab":
        cache.fetch(name, 1000, SHA, writes(SHARD))
    assert shards_in(cache) == ["b"]
    assert (tmp_path / "cache" / "thesis.tex").stat().st_size == 5000


def test_a_full_disk_makes_room_of_the_oldest(cache, monkeypatch):
    cache.fetch("a", 1000, SHA, writes(SHARD))
    os.utime(cache.folder / "a", (1000, 1000))
    allocate = os.posix_fallocate

    def full_beside(descriptor, start, size):
        if "a" in shards_in(cache):
            raise OSError(errno.ENOSPC, "no space left on device")
        allocate(descriptor, start, size)

    monkeypatch.setattr(os, "posix_fallocate", full_beside)
    cache.fetch("b", 1000, SHA, writes(SHARD))
    assert shards_in(cache) == ["b"]
