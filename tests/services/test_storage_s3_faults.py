"""Storage against a real S3 server that refuses it, and through a proxy that breaks what it answers."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import pytest

from bigtrain.storage import Storage, StorageOptions, TransportError, TruncatedError
from tests.services import proxy as faults
from tests.services.proxy import ALWAYS, Fault, FaultProxy
from tests.services.s3 import S3Server
from tests.services.stored import CONTENT, HASTY, WRITES, message_of, through

pytestmark = pytest.mark.usefixtures("s3_environment")


METHODS: dict[str, Callable[[Storage], object]] = {
    "read": lambda storage: storage.read("x"),
    "read_range": lambda storage: storage.read_range("x", 0, 10),
    "read_ranges": lambda storage: storage.read_ranges("x", [0], [10]),
    "stat": lambda storage: storage.stat("x"),
    "size": lambda storage: storage.size("x"),
    "list": lambda storage: storage.list(),
}


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_missing_bucket_is_named(method: Callable[[Storage], object], s3: S3Server) -> None:
    storage = Storage("s3://nobody-made-this/data")
    with pytest.raises(FileNotFoundError) as caught:
        method(storage)
    message_of(caught.value, "s3://nobody-made-this/data/", "no bucket 'nobody-made-this'", s3.endpoint)
    assert not storage.exists("x")


@pytest.mark.parametrize("name", ["read", "read_range", "read_ranges", "stat", "size"])
def test_a_missing_object_is_named(name: str, bucket: str) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        METHODS[name](Storage(f"s3://{bucket}/elsewhere"))
    assert message_of(caught.value) == f"s3://{bucket}/elsewhere/x: not found"


@pytest.mark.parametrize("method", (METHODS | WRITES).values(), ids=METHODS | WRITES)
@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"AWS_ACCESS_KEY_ID": "nobody"}, "InvalidAccessKeyId"),
        ({"AWS_SECRET_ACCESS_KEY": "wrong/secret"}, "SignatureDoesNotMatch"),
        (dict(zip(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), S3Server.stranger, strict=True)), "AccessDenied"),
        ({"AWS_SKIP_SIGNATURE": "true"}, "AccessDenied"),
    ],
    ids=["wrong key", "wrong secret", "stranger", "anonymous"],
)
def test_who_may_not_is_told_which_variables(
    method: Callable[[Storage], object],
    variables: dict[str, str],
    said: str,
    bucket: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    started = time.monotonic()
    with pytest.raises(PermissionError) as caught:
        method(Storage(f"s3://{bucket}/data"))
    text = message_of(caught.value, f"s3://{bucket}/data/", said, "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    assert "wrong/secret" not in text
    assert time.monotonic() - started < 2, "asking again cannot help"


def test_the_option_anonymous_sends_no_credentials(bucket: str, proxy: FaultProxy) -> None:
    with pytest.raises(PermissionError):
        through(proxy, bucket, anonymous=True).read("x")


def test_no_credentials_are_an_error_at_once(bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    started = time.monotonic()
    with pytest.raises(PermissionError) as caught:
        Storage(f"s3://{bucket}/data").read("x")
    message_of(caught.value, f"s3://{bucket}/data", "AWS_ACCESS_KEY_ID", "AWS_PROFILE", "anonymous")
    assert time.monotonic() - started < 1


def test_a_profile_gives_credentials_and_region(
    bucket: str, s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    keys = f"aws_access_key_id = {s3.access_key}\naws_secret_access_key = {s3.secret_key}\n"
    (tmp_path / "credentials").write_text(f"[lab]\n{keys}")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_PROFILE", "lab")
    assert Storage(f"s3://{bucket}/data").read("x") == CONTENT
    monkeypatch.setenv("AWS_PROFILE", "elsewhere")
    with pytest.raises(PermissionError) as caught:
        Storage(f"s3://{bucket}/data").read("x")
    message_of(caught.value, "'elsewhere'", str(tmp_path / "credentials"))
    monkeypatch.setitem(sys.modules, "boto3", None)  # as if it were not installed
    with pytest.raises(PermissionError) as caught:
        Storage(f"s3://{bucket}/data").read("x")
    message_of(caught.value, "'elsewhere'", "pip install 'bigtrain[aws]'", "AWS_ACCESS_KEY_ID")


@pytest.mark.parametrize(
    ("fault", "region"),
    [
        (faults.status(301, b"<Error><Code>PermanentRedirect</Code><Message>must be addressed</Message></Error>"), ""),
        (
            faults.status(
                400,
                b"<Error><Code>AuthorizationHeaderMalformed</Code><Message>the region 'us-east-1' is wrong; expecting "
                b"'eu-west-1'</Message><Region>eu-west-1</Region></Error>",
            ),
            "eu-west-1",
        ),
    ],
    ids=["redirect", "malformed"],
)
def test_a_wrong_region_names_the_setting(fault: Fault, region: str, bucket: str, proxy: FaultProxy) -> None:
    """As AWS answers: the tests' server takes any region."""
    proxy.inject(fault, nth=ALWAYS)
    with pytest.raises(OSError, match="region") as caught:
        through(proxy, bucket).read("x")
    message_of(caught.value, f"s3://{bucket}/data/x", bucket, "`region`", "AWS_REGION", region)


def test_a_server_that_is_not_there_is_named(s3: S3Server) -> None:
    for endpoint in ("http://127.0.0.1:9", "http://nowhere.invalid:80"):
        storage = Storage("s3://any/data", StorageOptions(endpoint, **HASTY))
        with pytest.raises(TransportError) as caught:
            storage.read("x")
        message_of(caught.value, "s3://any/data/x", endpoint.removesuffix(":80"), "check the endpoint")
        assert storage.counts.retries == 1


#: Each fault that comes to one request, or to so many.
PASSING: dict[str, tuple[Fault, range]] = {
    "cut": (faults.cut(1_000_000), range(1)),
    "cut twice": (faults.cut(1_000_000), range(2)),
    "cut at once": (faults.cut(0), range(1)),
    "reset": (faults.reset(), range(1)),
    "reset in the body": (faults.reset(1_000_000), range(1)),
    "stall": (faults.stall(), range(1)),
    "stall in the body": (faults.stall(1000), range(1)),
    "503": (faults.status(503), range(1)),
    "503 until our own attempt": (faults.status(503), range(2)),
    "500": (faults.status(500, b"<Error><Code>InternalError</Code></Error>"), range(1)),
    "slow": (faults.slow(0.1), range(1)),
    "too slow": (faults.slow(1), range(1)),
}
READS: dict[str, Callable[[Storage], bytes]] = {
    "read": lambda storage: storage.read("x"),
    "range": lambda storage: bytes(storage.read_range("x", 0, len(CONTENT))),
    "ranges": lambda storage: b"".join(storage.read_ranges("x", [0, 1_500_000], [1_500_000, 1_500_000])),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
@pytest.mark.parametrize(("fault", "nth"), PASSING.values(), ids=PASSING)
def test_a_fault_that_passes_is_healed(
    fault: Fault, nth: range, read: Callable[[Storage], bytes], bucket: str, proxy: FaultProxy
) -> None:
    proxy.inject(fault, nth=nth)
    assert read(through(proxy, bucket)) == CONTENT
    assert any(one.fault for one in proxy.requests)


@pytest.mark.parametrize("read", READS.values(), ids=READS)
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (faults.cut(1000), "cut"),
        (faults.reset(), "reset"),
        (faults.stall(), "timeout_seconds (=0.3)"),
        (faults.stall(1000), "timeout_seconds (=0.3)"),
        (faults.status(503), "503"),
    ],
    ids=["cut", "reset", "stall", "stall in the body", "503"],
)
def test_a_fault_that_stays_is_an_error_in_bounded_time(
    fault: Fault, said: str, read: Callable[[Storage], bytes], bucket: str, proxy: FaultProxy
) -> None:
    proxy.inject(fault, nth=ALWAYS)
    storage = through(proxy, bucket)
    started = time.monotonic()
    with pytest.raises(TransportError) as caught:
        read(storage)
    message_of(caught.value, storage.locate("x"), said)
    assert time.monotonic() - started < 10
    assert storage.counts.retries == 1
    assert proxy.count() == 4  # two attempts with one repeat each


@pytest.mark.parametrize("name", ["range", "ranges"])
@pytest.mark.parametrize("fault", [faults.truncate(2_000_000), faults.empty()], ids=["truncated", "empty"])
def test_a_short_answer_is_asked_again_and_then_refused(
    fault: Fault, name: str, bucket: str, proxy: FaultProxy, capfd: pytest.CaptureFixture[str]
) -> None:
    proxy.inject(fault)
    assert READS[name](through(proxy, bucket)) == CONTENT
    proxy.inject(fault, nth=ALWAYS)
    with pytest.raises(TruncatedError) as caught:
        READS[name](through(proxy, bucket))
    message_of(caught.value, f"s3://{bucket}/data/x", "ends at byte")
    assert capfd.readouterr().err == "", "obstore's own merging panics here, with a backtrace"


def test_a_range_after_the_end_is_an_error(bucket: str) -> None:
    storage = Storage(f"s3://{bucket}/data")
    for start in (len(CONTENT) - 5, len(CONTENT) + 5):
        for read in (storage.read_range, lambda key, a, n: storage.read_ranges(key, [a], [n])):
            with pytest.raises(TruncatedError) as caught:
                read("x", start, 10)
            message_of(caught.value, storage.locate("x"), "ends")


def test_writes_survive_faults(s3: S3Server, proxy: FaultProxy) -> None:
    storage = through(proxy, s3.bucket())
    for method in ("PUT", "POST"):
        proxy.inject(faults.status(503), method=method)
        proxy.inject(faults.reset(), method=method, nth=(1,))
    storage.write("k", b"content")
    assert storage.read("k") == b"content"
    storage.delete(["k"])
    assert not storage.exists("k")
