"""What the tests of storage share: an object, a storage that soon gives up, and what a message may say."""

from __future__ import annotations

import random
from collections.abc import Callable

from bigtrain.storage import Storage, StorageOptions
from tests.services.proxy import FaultProxy
from tests.services.s3 import S3Server

CONTENT = random.Random(0).randbytes(3_000_000)
#: Everything fails within seconds: two attempts of one repeat, each at most 0.3 seconds.
HASTY = {"timeout_seconds": 0.3, "connect_seconds": 0.3, "retries": 1, "retry_seconds": 4}


WRITES: dict[str, Callable[[Storage], object]] = {
    "write": lambda storage: storage.write("x", b"content"),
    "delete": lambda storage: storage.delete(["x"]),
}


def through(proxy: FaultProxy, bucket: str, **options: object) -> Storage:
    return Storage(f"s3://{bucket}/data", StorageOptions(proxy.endpoint, **(HASTY | options)))  # type: ignore[arg-type]


def message_of(error: BaseException, *parts: str) -> str:
    """Its text: one line, with these parts, and nothing in it that signs requests, or would be printed with it."""
    text = str(error)
    assert "\n" not in text
    assert len(text) < 400
    assert error.__cause__ is None
    assert error.__suppress_context__ or error.__context__ is None
    for secret in (S3Server.secret_key, S3Server.stranger[1], "Signature=", "X-Amz-Signature", "<"):
        assert secret not in text
    assert [part for part in parts if part not in text] == [], text
    return text
