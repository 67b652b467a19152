"""Storage on the other two clouds, as far as their emulators go."""

from __future__ import annotations

import os
import random
import urllib.parse
import urllib.request

import pytest

from bigtrain.storage import ChangedError, Storage, StorageOptions
from tests.services.clouds import ACCOUNT_KEY, Cloud

CONTENT = random.Random(0).randbytes(2_000_000)
OPTIONS = StorageOptions(timeout_seconds=5, retries=1, retry_seconds=5)


@pytest.fixture(autouse=True)
def no_other_cloud(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("AZURE_", "GOOGLE_"))]:
        monkeypatch.delenv(name)


def use(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in cloud.environment.items():
        monkeypatch.setenv(name, value)


def check_reading(storage: Storage) -> None:
    """The object `x` is CONTENT, by every way to read it."""
    assert storage.read("x") == CONTENT
    assert bytes(storage.read_range("x", 1000, 50)) == CONTENT[1000:1050]
    found = storage.read_ranges("x", [1_900_000, 5], [100, 10])
    assert [bytes(part) for part in found] == [CONTENT[1_900_000:1_900_100], CONTENT[5:15]]
    size, etag = storage.stat("x")
    assert size == len(CONTENT)
    assert bytes(storage.read_range("x", 7, 5, if_match=etag)) == CONTENT[7:12]
    with pytest.raises(FileNotFoundError, match="nothing: not found"):
        storage.read("nothing")
    with pytest.raises(ChangedError):
        storage.read("x", if_match='"another"')


def test_azure_writes_reads_and_lists(azurite: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    use(azurite, monkeypatch)
    storage = Storage(f"az://{azurite.container}/data", OPTIONS)
    storage.write("x", CONTENT)
    storage.write("y/z", b"small")
    check_reading(storage)
    assert list(storage.list()) == [("x", len(CONTENT)), ("y/z", 5)]
    storage.delete(["y/z"])
    assert not storage.exists("y/z")


@pytest.mark.parametrize(
    ("variables", "url", "error", "said"),
    [
        ({"AZURE_STORAGE_ACCOUNT_KEY": "d3Jvbmc="}, "az://shards/data", PermissionError, "AZURE_STORAGE_ACCOUNT_KEY"),
        ({"AZURE_STORAGE_ACCOUNT_NAME": ""}, "az://shards/data", PermissionError, "AZURE_STORAGE_ACCOUNT_NAME"),
        ({}, "az://nobody-made-this/data", FileNotFoundError, "no bucket 'nobody-made-this'"),
    ],
    ids=["wrong key", "no account", "no container"],
)
def test_azure_errors_name_the_remedy(
    variables: dict[str, str],
    url: str,
    error: type[OSError],
    said: str,
    azurite: Cloud,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use(azurite, monkeypatch)
    for name, value in variables.items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name)
    with pytest.raises(error) as caught:
        Storage(url, OPTIONS).read("x")
    text = str(caught.value)
    assert said in text
    assert url in text
    assert "\n" not in text
    assert ACCOUNT_KEY not in text
    assert "SharedKey" not in text  # with which a signature begins


def test_google_reads(gcs: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """The object is uploaded by Google's JSON API, and read by the environment's endpoint and by the options'."""
    name = urllib.parse.quote("data/x", safe="")
    address = f"{gcs.endpoint}/upload/storage/v1/b/{gcs.container}/o?uploadType=media&name={name}"
    urllib.request.urlopen(urllib.request.Request(address, CONTENT, method="POST"), timeout=10).close()
    check_reading(Storage(f"gs://{gcs.container}/data", StorageOptions(gcs.endpoint, anonymous=True)))
    use(gcs, monkeypatch)
    storage = Storage(f"gs://{gcs.container}/data", OPTIONS)
    check_reading(storage)
    assert list(storage.list()) == [("x", len(CONTENT))]


def test_google_without_a_bucket(gcs: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    use(gcs, monkeypatch)
    with pytest.raises(FileNotFoundError, match="gs://nobody-made-this/data/x"):
        Storage("gs://nobody-made-this/data", OPTIONS).read("x")
