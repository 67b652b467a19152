"""What all tests share."""

from pathlib import Path

import pytest
import torch

from bigtrain.cli.main import main

torch.set_num_threads(1)  # tiny networks are faster so, and tests beside each other do not wait for each other


@pytest.fixture(scope="session")
def digits(tmp_path_factory) -> Path:
    """Shards of scikit-learn's digits at 4², 8² and 16², built once."""
    folder = tmp_path_factory.mktemp("shards") / "digits"
    assert main(["shards", "build", "digits:", str(folder), "--resolutions", "4,8,16", "--workers", "1"]) == 0
    return folder
