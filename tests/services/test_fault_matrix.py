"""Every fault is healed, or named and stopped: nothing is lost, doubled or changed in silence."""

import itertools
from contextlib import contextmanager
from datetime import timedelta

import obstore
import pytest
from obstore.store import S3Store

from bigtrain.data.manifest import Manifest
from bigtrain.storage import Storage
from tests.services import fault_matrix
from tests.services.fault_matrix import SCENARIOS, World, by_bigtrain, by_webdataset, outcome
from tests.services.proxy import FaultProxy

NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("matrix")
    fault_matrix.build(folder / "images", str(folder / "shards"))
    return folder / "shards"


@pytest.fixture(scope="module")
def bucket(s3):
    return s3.bucket()


@contextmanager
def upload(s3, bucket, shards):
    """The shards at a URL of their own, behind a proxy."""
    storage = Storage(f"s3://{bucket}/{next(NUMBERS)}")
    for path in shards.rglob("*"):
        if path.is_file():
            storage.write_file(str(path.relative_to(shards)), path)
    with FaultProxy(s3.host) as proxy:
        yield World(s3, proxy, storage.url, storage, Manifest.load(storage).shards[fault_matrix.SIZE][1].key)


@pytest.fixture(autouse=True)
def environment(s3, monkeypatch):
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("cached", [True, False], ids=["cache", "ranges"])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_nothing_is_lost_in_silence(s3, bucket, shards, scenario, cached, tmp_path):
    with upload(s3, bucket, shards) as world:
        scenario.do(world)
        found = outcome(by_bigtrain(world, scenario, tmp_path / "cache" if cached else None))
        world.wait()
    assert found.split(":")[0] in scenario.outcomes, found
    if found.startswith("named"):
        assert world.key in found or world.url in found, found
        assert "\n" not in found


def signed(world):
    """URLs of the shards that need no credentials."""
    bucket, _, prefix = world.url.removeprefix("s3://").partition("/")
    store = S3Store(bucket, endpoint=world.proxy.endpoint, allow_http=True)
    keys = [f"{prefix}/{shard.key}" for shard in Manifest.load(world.storage).shards[fault_matrix.SIZE]]
    return [obstore.sign(store, "GET", key, timedelta(hours=1)) for key in keys]


@pytest.mark.long
def test_webdataset_beside_it(s3, bucket, shards, tmp_path, capsys):
    """Prints a table of what comes of each fault, with the faults that webdataset's defaults do not notice."""
    rows = []
    for number, scenario in enumerate(SCENARIOS):
        columns = []
        for cache in (tmp_path / f"cache{number}", None):
            with upload(s3, bucket, shards) as world:
                scenario.do(world)
                columns.append(outcome(by_bigtrain(world, scenario, cache)))
                world.wait()
        with upload(s3, bucket, shards) as world:
            urls = signed(world)
            scenario.do(world)
            columns.append(outcome(by_webdataset(urls, world, scenario), seconds=20))
            world.wait()
        rows.append([scenario.name, *(column[:34] for column in columns)])
    with capsys.disabled():
        print()
        for row in [["fault", "bigtrain, cache", "bigtrain, ranges", "webdataset"], *rows]:
            print(" | ".join(f"{cell:<34}" for cell in row))
    assert not any("SILENT" in cell or cell == "HANGS" for row in rows for cell in row[1:3])
    assert any("SILENT" in row[3] for row in rows)
