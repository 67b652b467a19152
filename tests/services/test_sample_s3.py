"""Samples that two processes write into an object store are, byte for byte, those that one writes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bigtrain.cli.main import main
from bigtrain.data.manifest import Manifest
from bigtrain.storage import Storage
from tests.distributed.ranks import Ranks
from tests.distributed.sampled import make
from tests.services.s3 import S3Server
from tests.unit.made_snapshot import made_snapshot

pytestmark = pytest.mark.usefixtures("s3_environment")


@pytest.fixture
def pool(s3_environment: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    """Two ranks with the server's variables."""
    ranks = Ranks(2, tmp_path_factory.mktemp("ranks"))
    yield ranks
    ranks.close()


def stored(url: str) -> dict[str, bytes]:
    storage = Storage(url)
    return {key: storage.read(key) for key, _ in storage.list()}


def test_folders_zips_and_shards_in_a_bucket(s3: S3Server, pool: Ranks, tmp_path_factory: pytest.TempPathFactory):
    snapshot = made_snapshot(tmp_path_factory.mktemp("snapshots"))
    for form, files in (("folder", 45), ("zip", 1), ("shards", 3)):
        one, two = (f"s3://{s3.bucket()}/deep" for _ in range(2))
        assert make(snapshot, f"{one}/samples", form) == "45 samples"
        assert pool.run(make, snapshot, f"{two}/samples", form) == ["45 samples", ""]
        assert len(stored(one)) == files
        assert stored(one) == stored(two)
    assert main(["shards", "verify", f"{two}/samples-shards"]) == 0
    assert Manifest.load(f"{two}/samples-shards").class_counts == [0, 15, 0, 15, 15, 0, 0, 0, 0, 0]
