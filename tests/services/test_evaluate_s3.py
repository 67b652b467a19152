"""`bigtrain evaluate` where everything lies in buckets, and where something does not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from bigtrain.cli.main import main
from bigtrain.storage import Storage
from tests.services.s3 import S3Server
from tests.unit.made_snapshot import PROGRESSIVE, made_snapshot
from tests.unit.test_evaluate_command import GREY, pictures

pytestmark = pytest.mark.usefixtures("s3_environment")
MEASURED = ("--extractor", GREY, "--metrics", "fid,recall", "--batch", "10")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards") / "digits"
    assert main(["shards", "build", "digits:", str(folder), "--resolutions", "8", "--workers", "1"]) == 0
    return folder


def upload(folder: Path, url: str) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            Storage(url).write(path.relative_to(folder).as_posix(), path.read_bytes())


def test_scores_of_buckets_are_those_of_folders(shards: Path, s3: S3Server, tmp_path: Path) -> None:
    """A run, a zip of images, and the reference, which is kept beside its shards."""
    bucket, pack = f"s3://{s3.bucket()}", tmp_path / "pictures"
    made_snapshot(tmp_path / "run" / "snapshots", arguments={**PROGRESSIVE, "resolution": 8}, shards=shards)
    pictures(pack, [(8, 8)] * 12)
    upload(shards, f"{bucket}/digits")
    upload(tmp_path / "run", f"{bucket}/run")
    shutil.make_archive(str(tmp_path / "pictures"), "zip", pack)
    Storage(bucket).write("pictures.zip", (tmp_path / "pictures.zip").read_bytes())
    for source in ("run", "pictures.zip"):
        found = []
        for place in (bucket, str(tmp_path)):
            reference = f"{bucket}/digits" if place == bucket else str(shards)
            arguments = [f"{place}/{source}", "--reference", reference, *MEASURED, "--num", "12"]
            assert main(["evaluate", *arguments, "--json", f"{place}/{source}.json"]) == 0
            found.append(json.loads(Storage(place).read(f"{source}.json")))
        assert found[0] == found[1]
    kept = [name for name, _ in Storage(f"{bucket}/digits").list("evaluation")]
    assert len(kept) == 2  # sums, and features


def test_what_is_not_there_is_one_line(
    shards: Path, s3: S3Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bucket = f"s3://{s3.bucket()}"
    snapshot = made_snapshot(tmp_path / "snapshots", arguments={**PROGRESSIVE, "resolution": 8})
    cases = [
        (snapshot, f"{bucket}/nowhere", "holds no shards"),
        (snapshot, "s3://there-is-no-such-bucket/digits", "there-is-no-such-bucket"),
        (snapshot, f"{bucket}/nowhere.npz", "nowhere.npz"),
        (f"{bucket}/nowhere", str(shards), "nowhere"),
        (f"{bucket}/nowhere.zip", str(shards), "nowhere.zip"),
        (f"{bucket}/snapshots/nowhere.safetensors", str(shards), "nowhere.json"),
    ]
    for source, reference, said in cases:
        capsys.readouterr()
        assert main(["evaluate", source, "--reference", reference, *MEASURED, "--num", "12"]) == 2, source
        error = capsys.readouterr().err.strip()
        assert error.startswith("bigtrain: error: ")
        assert "\n" not in error
        assert said in error
