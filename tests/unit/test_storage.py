"""Storage in a local folder, its options, and what it fetches together: what needs no server."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
import traceback
from contextlib import suppress
from dataclasses import FrozenInstanceError
from datetime import timedelta
from itertools import pairwise

import obstore
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonargparse import ArgumentParser

from bigtrain.storage import ChangedError, Storage, StorageOptions, TruncatedError, is_remote
from bigtrain.storage.errors import Place, clear_error
from bigtrain.storage.ranges import Span, merged


@pytest.fixture
def storage(tmp_path) -> Storage:
    one = Storage(tmp_path / "folder")
    one.write("a/b.bin", bytes(range(256)))
    return one


def test_a_folder_is_made_by_the_first_write_only(tmp_path) -> None:
    storage = Storage(f"file://{tmp_path}/new")
    assert storage.is_local
    assert list(storage.list()) == []
    assert not storage.exists("k")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        storage.read("k")
    assert not (tmp_path / "new").exists()
    storage.write("k", b"1")
    assert storage.read("k") == b"1"


def test_ranges_of_a_file(storage: Storage) -> None:
    assert bytes(storage.read_range("a/b.bin", 3, 4)) == b"\3\4\5\6"
    assert [bytes(part) for part in storage.read_ranges("a/b.bin", [250, 0, 9], [6, 2, 0])] == [
        bytes(range(250, 256)),
        b"\0\1",
        b"",
    ]
    for start in (250, 300):
        with pytest.raises(TruncatedError, match=r"a/b\.bin: ends"):
            storage.read_range("a/b.bin", start, 10)
        with pytest.raises(TruncatedError, match=r"a/b\.bin: ends"):
            storage.read_ranges("a/b.bin", [0, start], [1, 10])
    assert (storage.counts.reads, storage.counts.bytes_read, storage.counts.retries) == (
        2,
        4 + 256,
        0,
    )  # with what lies between


def test_a_replaced_file_is_noticed(storage: Storage) -> None:
    before = storage.stat("a/b.bin")
    assert before.size == 256
    assert len(storage.read("a/b.bin", if_match=before.etag)) == 256
    storage.write("a/b.bin", b"other")
    with pytest.raises(ChangedError, match=r"a/b\.bin"):
        storage.read("a/b.bin", if_match=before.etag)
    with pytest.raises(ChangedError, match=r"a/b\.bin"):
        storage.read_range("a/b.bin", 0, 1, if_match=before.etag)


def test_a_pickled_storage_is_its_url_and_options(storage: Storage) -> None:
    storage.read("a/b.bin")
    assert set(storage.__getstate__()) == {"url", "options"}
    copy = pickle.loads(pickle.dumps(storage))
    assert copy.read("a/b.bin") == storage.read("a/b.bin")
    assert copy.counts.reads == 1


@pytest.mark.parametrize(
    ("url", "said"),
    [("ftp://a/b", r"'ftp' is unknown; a path or \('s3'"), ("s3://", "no bucket"), ("https:///", "no host")],
)
def test_a_url_that_is_none_is_refused_at_once(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Storage(url)


def test_which_urls_are_remote() -> None:
    assert [is_remote(url) for url in ("s3://a", "https://a/b", "file:///a", "/a", "a:b")] == [True] * 2 + [False] * 3


def test_a_password_in_a_url_is_not_shown() -> None:
    assert Storage("https://me:secret@host/a").locate("k") == "https://host/a/k"
    assert Storage("https://host/a@b").locate("k") == "https://host/a@b/k"


def test_options_are_parsed_and_checked() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--storage", type=StorageOptions, default=StorageOptions())
    arguments = ["--storage.endpoint=http://localhost:9000", "--storage.retries=3", "--storage.anonymous=true"]
    options = parser.instantiate(parser.parse_args(arguments)).storage
    assert options == StorageOptions("http://localhost:9000", anonymous=True, retries=3)
    with pytest.raises(FrozenInstanceError):
        options.retries = 4  # type: ignore[misc]


@pytest.mark.parametrize(
    ("given_options", "said"),
    [
        ({"timeout_seconds": 0}, r"timeout_seconds \(=0\) must be more than 0"),
        ({"connect_seconds": -1}, r"connect_seconds \(=-1\)"),
        ({"retries": -1}, r"retries \(=-1\) must be 0 or more"),
        ({"retry_seconds": -0.5}, r"retry_seconds \(=-0.5\)"),
        ({"endpoint": "localhost:9000"}, r"endpoint \(='localhost:9000'\) must start with http"),
    ],
)
def test_options_that_make_no_sense_are_refused(given_options: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        StorageOptions(**given_options)  # type: ignore[arg-type]


def test_options_become_obstores(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    options = StorageOptions("http://localhost:9000/", region="eu-west-1", timeout_seconds=7)
    assert options.config("s3") == {
        "endpoint": "http://localhost:9000",
        "region": "eu-west-1",
        "virtual_hosted_style_request": False,
    }
    assert options.config("gs") == {"base_url": "http://localhost:9000"}
    assert options.client("s3")["timeout"] == timedelta(seconds=7)
    assert options.client("s3")["allow_http"]
    assert not StorageOptions().client("s3")["allow_http"]
    assert not StorageOptions().client("https")["allow_http"]
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://localhost:9001")
    assert StorageOptions().client("s3")["allow_http"]
    assert StorageOptions().endpoint_of("s3") == "http://localhost:9001"
    assert StorageOptions().endpoint_of("gs") is None


_RANGES = st.lists(st.builds(lambda start, size: Span(start, start + size), st.integers(0, 500), st.integers(0, 60)))


@given(ranges=_RANGES, near=st.integers(0, 50))
def test_spans_hold_every_range_once_and_lie_apart(ranges: list[Span], near: int) -> None:
    spans, span_of = merged(ranges, near)
    full = [(one, spans[number]) for one, number in zip(ranges, span_of, strict=True) if one.start < one.stop]
    assert all(span.start <= one.start and one.stop <= span.stop for one, span in full)
    assert all(after.start - before.stop > near for before, after in pairwise(spans))
    wanted = {byte for one, _ in full for byte in range(*one)}
    for span in spans:  # begins and ends with what was asked for, and has no gap that is more than `near`
        inside = sorted(wanted & set(range(*span)))
        assert (inside[0], inside[-1] + 1) == span
        assert all(b - a - 1 <= near for a, b in pairwise(inside))


@given(data=st.data(), ranges=_RANGES)
def test_ranges_read_together_are_the_ranges_read_alone(data: st.DataObject, ranges: list[Span]) -> None:
    content = data.draw(st.randoms(use_true_random=False)).randbytes(600)
    near = data.draw(st.integers(0, 50))
    spans, span_of = merged(ranges, near)
    for (start, stop), number in zip(ranges, span_of, strict=True):
        if start < stop:
            first, last = spans[number]
            assert content[first:last][start - first : stop - first] == content[start:stop]


HOSTILE = """Generic S3 error: Error performing GET http://h:9/b/k?X-Amz-Signature=abc in 2ms - {shape}: <?xml?>
<Error><Code>{code}</Code><StringToSign>AWS4 secret</StringToSign><SignatureProvided>abc</SignatureProvided></Error>

Debug source:
Generic {{ inner: Status {{ status: 400, body: Some("secret abc") }} }}"""


@pytest.mark.parametrize(
    "code", ["SignatureDoesNotMatch", "AccessDenied", "NoSuchBucket", "Strange", "PermanentRedirect"]
)
@pytest.mark.parametrize("shape", ["Server returned non-2xx status code: 400 Bad Request", "something else"])
@pytest.mark.parametrize("kind", [obstore.exceptions.GenericError, FileNotFoundError, ValueError, OSError])
def test_no_text_of_a_server_gets_through(code: str, shape: str, kind: type[Exception]) -> None:
    place = Place("s3://b/k", "s3://b", "s3", None, 30)
    try:
        try:
            raise kind(HOSTILE.format(code=code, shape=shape))
        except kind as error:
            raise clear_error(error, place) from None
    except (OSError, ValueError) as error:
        caught = error
    printed = io.StringIO()
    traceback.print_exception(caught, file=printed)
    message = printed.getvalue().splitlines()[-1]
    assert "s3://b/k" in message
    for secret in ("secret", "abc", "StringToSign", "Debug source"):
        assert secret not in message
        assert secret not in str(caught)


def test_importing_storage_brings_no_cloud_and_no_torch() -> None:
    code = (
        "import sys, bigtrain.storage; print([m for m in ('torch', 'boto3', 'botocore', 'fsspec') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_key_that_is_none_is_named(storage: Storage) -> None:
    with pytest.raises(ValueError, match="a//b"):
        storage.read("a//b")
    with suppress(OSError):  # a folder is no object
        assert storage.read("a") is None


def test_what_a_server_says_in_json_does_not_get_through() -> None:
    text = "Error performing PUT http://h/b/k in 2ms - Server returned non-2xx status code: 400 Bad Request: {secret}"
    error = clear_error(obstore.exceptions.GenericError(text), Place("gs://b/k", "gs://b", "gs", None, 30))
    assert "400 Bad Request" in str(error)
    assert "secret" not in str(error)
