"""Two and four ranks, started once; and runs of two ranks that nothing disturbs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.distributed.ranks import Ranks
from tests.runs import bigtrain, tiny_config, write_config
from tests.services.s3 import s3
from tests.services.slurm import slurm

__all__ = ["s3", "slurm"]


@pytest.fixture(scope="session")
def two_ranks(tmp_path_factory) -> Iterator[Ranks]:
    ranks = Ranks(2, tmp_path_factory.mktemp("ranks"))
    yield ranks
    ranks.close()


@pytest.fixture(scope="session")
def four_ranks(tmp_path_factory) -> Iterator[Ranks]:
    ranks = Ranks(4, tmp_path_factory.mktemp("ranks"))
    yield ranks
    ranks.close()


@pytest.fixture(scope="session")
def config(digits, tmp_path_factory) -> Path:
    made = tiny_config(digits)
    made["game"]["init_args"]["discriminator"]["network"]["init_args"]["stddev_group"] = 2  # for four ranks
    made["evaluation"] = None
    return write_config(tmp_path_factory.mktemp("config") / "tiny.yaml", made)


@pytest.fixture(scope="session")
def longer(config, tmp_path_factory) -> Path:
    """A training that is not over before a signal arrives."""
    path = tmp_path_factory.mktemp("config") / "longer.yaml"
    path.write_text(config.read_text().replace("total_kimg: 0.48", "total_kimg: 1.6"))
    return path


@pytest.fixture(scope="session")
def longer_undisturbed(longer, tmp_path_factory) -> Path:
    """That training by two ranks."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    result = bigtrain("fit", "--config", longer, "--run", folder, "--compute.devices", 2)
    assert result.returncode == 0, result.stderr
    return folder
