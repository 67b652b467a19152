"""`bigtrain doctor` about shards in the S3 server: what it may do there, what it leaves there, what it never says."""

from __future__ import annotations

import pytest

from bigtrain.cli.checks.all import CHECKS
from bigtrain.cli.checks.check import examine
from bigtrain.cli.checks.finding import Line
from bigtrain.cli.checks.plan import Plan
from bigtrain.storage import Storage
from tests.runs import tiny_config, write_config
from tests.services.test_fit_s3 import upload

pytestmark = pytest.mark.usefixtures("s3_environment")
NAMES = ("clock", "storage", "evaluation", "shards", "labels", "cache")


@pytest.fixture(scope="module")
def url(digits, s3) -> str:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3.environment.items():
            patch.setenv(name, value)
        return upload(digits, s3)


@pytest.fixture
def look(digits, tmp_path):
    """What the checks that ask the store find about a run from a URL, by name."""

    def look(url: str) -> dict[str, Line]:
        config = tiny_config(digits)
        config["data"] = {"url": url, "cache_folder": str(tmp_path / "cache"), "cache_gib": 1e-3}
        plan = Plan([f"--config={write_config(tmp_path / 'config.yaml', config)}", f"--run={tmp_path / 'run'}"])
        for check in CHECKS:
            plan.lines += examine(check, plan) if check.name in NAMES else []
        return {line.check: line for line in plan.lines}

    return look


def test_a_bucket_that_is_in_order(url, look):
    before = dict(Storage(url).list())
    found = look(url)
    assert {name: line.level for name, line in found.items()} == dict.fromkeys(NAMES, "ok"), found
    assert found["storage"].found.startswith(f"{url}: listed, ")
    assert "127.0.0.1" in found["clock"].found
    assert dict(Storage(url).list()) == before


@pytest.mark.parametrize("who", ["wrong", "stranger"])
def test_credentials_that_may_not(who, url, look, s3, monkeypatch):
    keys = ("wrongkey", "wrong/secret+key") if who == "wrong" else s3.stranger
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", keys[0])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", keys[1])
    found = look(url)
    assert found["storage"].level == "error"
    assert "AWS_ACCESS_KEY_ID" in found["storage"].found
    assert {found[name].found for name in ("shards", "labels")} == {"as evaluation says"}
    assert found["clock"].level == "ok"
    said = " ".join(f"{line.found} {line.remedy}" for line in found.values())
    assert not any(secret in said for secret in (*keys, s3.secret_key))


def test_a_bucket_that_is_not_there(look):
    found = look("s3://no-such-bucket/digits")
    assert found["storage"].level == "error"
    assert "there is no bucket 'no-such-bucket'" in found["storage"].found


def test_a_bucket_that_may_only_be_read(url, look, monkeypatch):
    original = Storage.write

    def refused(storage: Storage, key: str, content: bytes) -> None:
        if key.startswith("evaluation/"):
            raise PermissionError(f"{storage.locate(key)}: no permission")
        original(storage, key, content)

    monkeypatch.setattr(Storage, "write", refused)
    found = look(url)
    assert found["evaluation"].level == "warning"
    assert "made once, not for each run" in found["evaluation"].remedy
    assert found["storage"].level == "ok"


def test_a_server_that_is_not_there(url, look, s3, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    found = look(url)
    assert found["storage"].level == "error"
    assert "refuses connections" in found["storage"].found
    assert found["clock"].level == "error"
