"""The services that tests here may ask for."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.services.clouds import azurite, gcs
from tests.services.proxy import FaultProxy
from tests.services.s3 import S3Server, s3
from tests.services.stored import CONTENT

__all__ = ["azurite", "gcs", "s3"]


@pytest.fixture
def s3_environment(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's variables and no other credentials."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def bucket(s3: S3Server) -> str:
    """With an object `data/x` of CONTENT, written by another client than the tested one."""
    name = s3.bucket()
    s3.request("PUT", f"/{name}/data/x", CONTENT)
    return name


@pytest.fixture(scope="module")
def _proxy(s3: S3Server) -> Iterator[FaultProxy]:
    with FaultProxy(s3.host) as one:
        yield one


@pytest.fixture
def proxy(_proxy: FaultProxy) -> FaultProxy:
    _proxy.clear()
    return _proxy
