"""Storage against a real S3 server: what it reads and writes, in which processes, and through a restart."""

from __future__ import annotations

import multiprocessing
import pickle
import random
import threading
import time

import pytest

from bigtrain.storage import ChangedError, ForkedError, Stat, Storage, StorageOptions
from tests.services import proxy as faults
from tests.services.proxy import ALWAYS, FaultProxy
from tests.services.s3 import S3Server
from tests.services.stored import CONTENT, HASTY, WRITES, message_of, through

pytestmark = pytest.mark.usefixtures("s3_environment")


def test_what_is_written_is_read_listed_and_deleted(s3: S3Server) -> None:
    storage = Storage(f"s3://{s3.bucket()}/run")
    large = CONTENT * 3  # more than a part of an upload
    storage.write("b/ä 1+2.bin", b"small")
    storage.write("a.bin", large)
    assert list(storage.list()) == [("a.bin", len(large)), ("b/ä 1+2.bin", 5)]
    assert list(storage.list("b")) == [("b/ä 1+2.bin", 5)]
    assert storage.read("b/ä 1+2.bin") == b"small"
    assert storage.read("a.bin") == large
    assert storage.size("a.bin") == len(large)
    storage.delete(["a.bin"])
    assert not storage.exists("a.bin")
    assert storage.exists("b/ä 1+2.bin")


def test_a_file_is_written_in_parts(s3: S3Server, tmp_path) -> None:
    (tmp_path / "file").write_bytes(CONTENT * 5)
    storage = Storage(f"s3://{s3.bucket()}")
    storage.write_file("x/y", tmp_path / "file")
    assert storage.read("x/y") == CONTENT * 5


def test_ranges_are_the_bytes_of_the_object(bucket: str, proxy: FaultProxy) -> None:
    storage = through(proxy, bucket)
    assert bytes(storage.read_range("x", 17, 1000)) == CONTENT[17:1017]
    assert bytes(storage.read_range("x", len(CONTENT) - 1, 1)) == CONTENT[-1:]
    assert bytes(storage.read_range("x", 5, 0)) == b""
    starts, lengths = [2_900_000, 0, 10, 500, 7], [100_000, 10, 20, 0, 10]  # out of order, overlapping, empty
    proxy.clear()
    found = storage.read_ranges("x", starts, lengths)
    assert [bytes(part) for part in found] == [CONTENT[a : a + n] for a, n in zip(starts, lengths, strict=True)]
    assert sorted(one.range for one in proxy.requests) == ["bytes=0-29", "bytes=2900000-2999999"]
    assert storage.read_ranges("x", [], []) == []


def test_a_large_object_is_read_in_parts_of_one_version(
    bucket: str, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bigtrain.storage.storage.PART", 1_000_000)
    storage = through(proxy, bucket)
    assert storage.read("x") == CONTENT
    parts = ["bytes=0-999999", "bytes=1000000-1999999", "bytes=2000000-2999999"]
    first, *others = (one.range for one in proxy.requests)
    assert (first, sorted(others)) == (None, parts)  # they are asked for at the same time
    proxy.clear()
    proxy.inject(faults.etag('"another"'), nth=(2,))
    with pytest.raises(ChangedError):
        storage.read("x")


def test_counts(bucket: str) -> None:
    storage = Storage(f"s3://{bucket}/data")
    threads = [threading.Thread(target=storage.read_range, args=("x", 100, 50)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    storage.read_ranges("x", [0, 5], [10, 10])
    assert (storage.counts.reads, storage.counts.bytes_read, storage.counts.retries) == (21, 20 * 50 + 15, 0)


def test_a_replaced_object_is_not_read_as_the_one_before(s3: S3Server) -> None:
    storage = Storage(f"s3://{s3.bucket()}")
    storage.write("k", b"before")
    before = storage.stat("k")
    assert isinstance(before, Stat)
    assert before.size == 6
    assert storage.read("k", if_match=before.etag) == b"before"
    assert bytes(storage.read_range("k", 2, 3, if_match=before.etag)) == b"for"
    storage.write("k", b"afterwards")
    for read in (lambda: storage.read("k", before.etag), lambda: storage.read_range("k", 2, 3, before.etag)):
        with pytest.raises(ChangedError) as caught:
            read()
        message_of(caught.value, storage.locate("k"), "changed")
    assert storage.counts.retries == 0
    assert storage.stat("k").etag != before.etag


def test_another_etag_midway_is_noticed(bucket: str, proxy: FaultProxy) -> None:
    storage = through(proxy, bucket)
    etag = storage.stat("x").etag
    proxy.inject(faults.etag('"another"'), nth=range(3, 100))
    for start in (0, 10, 20):
        assert bytes(storage.read_range("x", start, 10, if_match=etag)) == CONTENT[start : start + 10]
    with pytest.raises(ChangedError):
        storage.read_range("x", 30, 10, if_match=etag)
    assert {one.if_match for one in proxy.requests if one.method == "GET"} == {etag}, "the server need not send it"


def test_the_proxy_flips_the_byte_it_is_told(bucket: str, proxy: FaultProxy) -> None:
    """The wrong byte arrives: what an object should be, its manifest knows and not its store."""
    proxy.inject(faults.flip(1000), nth=ALWAYS)
    storage = through(proxy, bucket)
    wrong = CONTENT[:1000] + bytes([CONTENT[1000] ^ 1]) + CONTENT[1001:]
    assert storage.read("x") == wrong
    assert bytes(storage.read_range("x", 990, 20)) == wrong[990:1010]
    proxy.clear()
    proxy.inject(faults.flip())
    assert sum(a != b for a, b in zip(storage.read("x"), CONTENT, strict=True)) == 1


def test_a_server_that_is_killed_and_restarted_only_delays_reads(s3: S3Server, bucket: str) -> None:
    storage = Storage(f"s3://{bucket}/data")
    reads, stop, failed = [], threading.Event(), []

    def loop() -> None:
        try:
            while not stop.is_set():
                start = random.randrange(len(CONTENT) - 1000)
                assert bytes(storage.read_range("x", start, 1000)) == CONTENT[start : start + 1000]
                reads.append(time.monotonic())
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=loop) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    s3.kill()
    before = len(reads)
    s3.start()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not failed and len(reads) < before + 50:
        time.sleep(0.05)
    stop.set()
    for thread in threads:
        thread.join()
    assert not failed
    assert before > 0
    assert len(reads) >= before + 50


def _read_in_child(storage: Storage, results: multiprocessing.Queue[object]) -> None:
    try:
        results.put(len(storage.read("x")))
    except Exception as error:
        results.put((type(error).__name__, str(error)))


@pytest.mark.parametrize("kind", ["s3", "local"])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # Python 3.12 and newer say what this test shows
def test_a_forked_child_is_told_and_a_spawned_one_reads(kind: str, bucket: str, tmp_path) -> None:
    (tmp_path / "x").write_bytes(CONTENT)
    storage = Storage(f"s3://{bucket}/data" if kind == "s3" else tmp_path)
    assert len(storage.read("x")) == len(CONTENT)  # from here on a child would hang
    found: dict[str, object] = {}
    for method in ("fork", "spawn"):
        context = multiprocessing.get_context(method)
        results = context.Queue()
        child = context.Process(target=_read_in_child, args=(storage, results), daemon=True)
        child.start()
        try:
            found[method] = results.get(timeout=20)
            child.join(timeout=10)
            assert child.exitcode == 0
        finally:
            child.kill()  # should it hang
    name, text = found["fork"]  # type: ignore[misc]
    assert name == ForkedError.__name__
    assert "spawn" in text
    assert found["spawn"] == len(CONTENT)


def test_a_pickled_storage_has_no_secret_and_reads(bucket: str, s3: S3Server) -> None:
    storage = Storage(f"s3://{bucket}/data", StorageOptions(s3.endpoint, timeout_seconds=7))
    storage.read_range("x", 0, 5)
    pickled = pickle.dumps(storage)
    assert s3.secret_key.encode() not in pickled
    copy = pickle.loads(pickled)
    assert copy.options.timeout_seconds == 7
    assert copy.counts.reads == 0
    assert copy.read("x") == CONTENT


def test_a_web_server_is_only_read(bucket: str, proxy: FaultProxy) -> None:
    proxy.inject(faults.status(200, CONTENT, ETag='"one"'))
    storage = Storage(f"{proxy.endpoint.replace('://', '://user:password@')}/{bucket}/data", StorageOptions(**HASTY))
    assert storage.read("x") == CONTENT
    with pytest.raises(PermissionError) as caught:
        storage.read("x")  # the real server's answer to a request that is not signed
    assert "password" not in message_of(caught.value, f"{proxy.endpoint}/{bucket}/data/x")
    with pytest.raises(OSError, match="does not list"):
        storage.list()
    for write in WRITES.values():
        with pytest.raises(OSError, match="only read"):
            write(storage)
