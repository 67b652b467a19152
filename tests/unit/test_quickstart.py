"""What quickstart makes: digits that a stranger recognises, as various as the real ones."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch.nn import functional as F

from tests.runs import ROOT, bigtrain


def class_deviation(images, labels):
    """The mean over classes and pixels of the standard deviation within the class."""
    return np.mean([images[labels == digit].std(axis=0).mean() for digit in range(10)])


@pytest.mark.long
def test_a_logistic_regression_on_real_digits_recognises_the_samples(digits, tmp_path):
    run, file = tmp_path / "run", tmp_path / "samples.npz"
    trained = bigtrain("fit", "--config", ROOT / "configs/quickstart.yaml", "--run", run, "--data.url", digits)
    assert trained.returncode == 0, trained.stderr
    assert bigtrain("sample", run, "--num", 1000, "--out", file).returncode == 0
    fake, asked = (np.load(file)[name] for name in ("images", "labels"))
    fake = fake[:, :, :, 0].reshape(1000, -1) / 255
    data = load_digits()
    size = (16, 16)
    real = F.interpolate(torch.tensor(data.images / 16)[:, None], size=size, mode="area").reshape(len(data.images), -1)
    judge = LogisticRegression(max_iter=5000).fit(real, data.target)
    assert np.mean(judge.predict(fake) == asked) >= 0.95
    assert class_deviation(fake, asked) >= 0.8 * class_deviation(real.numpy(), data.target)
