"""Shards that are built, indexed, verified and encoded again in an object store, without a local copy."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bigtrain.cli.main import main
from bigtrain.data.archives import stored_archive
from bigtrain.data.datamodule import ShardDataModule
from bigtrain.data.indexing import index
from bigtrain.data.locations import find_shards
from bigtrain.data.manifest import NATIVE, Manifest
from bigtrain.data.sources import open_source
from bigtrain.data.tar import read_members
from bigtrain.data.verify import verify
from bigtrain.schedules import Constant
from bigtrain.storage import Storage
from tests.services.s3 import S3Server
from tests.unit.made_shards import by_webdataset, image, write_tar

pytestmark = pytest.mark.usefixtures("s3_environment")
BUILD = ["--resolutions=4,8", "--samples-per-shard=500"]


def upload(folder: Path, url: str) -> None:
    for path in sorted(folder.glob("*.tar")):
        Storage(url).write_file(path.name, path)


def test_a_build_in_a_bucket_is_the_build_in_a_folder(s3: S3Server, tmp_path: Path) -> None:
    assert main(["shards", "build", "digits:", str(tmp_path), *BUILD, "--workers=1"]) == 0
    local = Manifest.load(str(tmp_path))
    whole, parts = (f"s3://{s3.bucket()}/digits" for _ in range(2))
    assert main(["shards", "build", "digits:", whole, *BUILD, "--workers=2"]) == 0
    for part in ("2/2", "1/2"):
        assert main(["shards", "build", "digits:", parts, *BUILD, "--workers=1", "--part", part]) == 0
    assert main(["shards", "index", parts]) == 0
    for url in (whole, parts):
        manifest = Manifest.load(url)
        assert manifest.hash == local.hash
        assert all(shard.etag for shards in manifest.shards.values() for shard in shards)
        assert main(["shards", "verify", url]) == 0


def test_an_index_of_large_images_reads_their_headers_only(s3: S3Server, tmp_path: Path) -> None:
    for number in range(2):
        noise = [(f"{number}-{i}.png", image(i, "png") + bytes(2_000_000)) for i in range(4)]
        write_tar(tmp_path / f"{number}.tar", noise)
    url = f"s3://{s3.bucket()}/shards"
    upload(tmp_path, url)
    made = index([url]).manifest
    infos = made.shards[NATIVE]
    assert [info.sha256 for info in infos] == [None, None]
    assert all(info.etag == Storage(url).stat(info.key).etag for info in infos)
    assert made.samples == 8
    assert verify(url) == []
    shard = find_shards([url])[0]
    archive = stored_archive(shard.storage, shard.key, shard.storage.stat(shard.key), whole=False)
    assert len(list(read_members(shard.name, archive))) == 4
    assert shard.storage.counts.bytes_read < 0.2 * infos[0].bytes
    checked = index([url], checksums=True).manifest
    assert checked.shards[NATIVE][0].sha256 is not None
    assert verify(url) == []
    pattern = index([f"{url}/{{0..1}}.tar"], str(tmp_path / "to")).manifest
    assert [info.key for info in pattern.shards[NATIVE]] == [f"{url}/0.tar", f"{url}/1.tar"]
    assert verify(str(tmp_path / "to")) == []


def test_shards_in_a_bucket_are_a_source(s3: S3Server, tmp_path: Path) -> None:
    by_webdataset(tmp_path)
    url = f"s3://{s3.bucket()}/shards"
    upload(tmp_path, url)
    assert len(open_source(url)) == 10
    to = f"s3://{s3.bucket()}/pyramid"
    assert main(["shards", "build", url, to, "--resolutions=4,8", "--workers=2"]) == 0
    assert Manifest.load(to).class_counts == [4, 3, 3]
    assert verify(to) == []


def test_processes_decode_what_is_in_the_cache_and_threads_the_rest(s3: S3Server, tmp_path: Path) -> None:
    url, schedule = f"s3://{s3.bucket()}/digits", Constant(8, 64, 3 * 1.797)
    assert main(["shards", "build", "digits:", url, *BUILD, "--workers=1"]) == 0
    threads, processes = (
        ShardDataModule(url, schedule, decoded_mib=0, cache_folder=str(tmp_path / str(n)), decode_processes=n)
        for n in (0, 2)
    )
    batches = processes.batches(0)
    assert all(torch.equal(a["images"], b["images"]) for a, b in zip(threads.batches(0), batches, strict=True))
    counts = batches.counts
    assert counts["cache_hits"] + counts.get("cache_misses", 0) == sum(1 for _ in schedule.steps(0)) * 64
    assert counts["cache_hits"] > 0
