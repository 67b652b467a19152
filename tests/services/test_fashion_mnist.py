"""The real Fashion-MNIST of Debian's package, all of it."""

from pathlib import Path

import numpy as np
import pytest

from bigtrain.cli.main import main
from bigtrain.data.manifest import Manifest
from bigtrain.data.sources import open_source
from tests.services.needs import need_file

FOLDER = Path("/usr/share/datasets/fashion-mnist")


@pytest.fixture(scope="module")
def fashion() -> str:
    need_file(FOLDER, "apt-get install dataset-fashion-mnist")
    return f"idx:{FOLDER}"


def test_it_is_seventy_thousand_images_of_ten_classes(fashion):
    source = open_source(fashion)
    assert len(source) == 70_000
    assert np.bincount([source.label(i) for i in range(len(source))]).tolist() == [7000] * 10
    assert source.load(0).size == (28, 28)


@pytest.mark.long
def test_all_of_it_is_built_and_verified(fashion, tmp_path):
    assert main(["shards", "build", fashion, str(tmp_path / "fashion"), "--resolutions", "4,8,16,32"]) == 0
    assert main(["shards", "verify", str(tmp_path / "fashion")]) == 0
    manifest = Manifest.load(str(tmp_path / "fashion"))
    assert manifest.samples == 70_000
    assert manifest.class_counts == [7000] * 10
    assert manifest.skipped == {}
