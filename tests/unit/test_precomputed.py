"""Statistics that other libraries have measured: the same distance by them, and nothing executed."""

from __future__ import annotations

import hashlib
import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from bigtrain.callbacks.precomputed import PrecomputedScorer
from bigtrain.callbacks.scoring_base import Measurement
from bigtrain.evaluation.evaluate import evaluate
from bigtrain.evaluation.precomputed import load_precomputed
from bigtrain.evaluation.reference import measure_reference
from tests.unit.test_evaluate import SIZE, Brightness, real_batches, sampler

D = SIZE * SIZE


def moments() -> dict[str, np.ndarray]:
    """As pytorch-fid makes them."""
    features = torch.cat([images for images, _ in real_batches()]).flatten(1).double().numpy()
    return {"mu": features.mean(axis=0), "sigma": np.cov(features, rowvar=False)}


def written(path: Path, **arrays: object) -> str:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return str(path)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_distance_is_that_to_the_images_themselves(tmp_path: Path, dtype: type) -> None:
    url = written(tmp_path / "stats.npz", **{name: value.astype(dtype) for name, value in moments().items()})
    given, measured = load_precomputed(url), measure_reference(real_batches(), Brightness(), "m")
    scores = [evaluate(sampler, Brightness(), reference, ["fid"], 40, 8)[0] for reference in (given, measured)]
    assert scores[0].value == pytest.approx(scores[1].value, rel=1e-6 if dtype == np.float64 else 1e-3)
    assert (scores[0].metric, scores[0].num_real) == ("fid40", None)
    digest = hashlib.sha256(Path(url).read_bytes()).hexdigest()[:12]
    assert scores[0].protocol.reference == f"stats.npz of SHA-256 {digest}"


def test_features_of_another_extractor_are_refused(tmp_path: Path) -> None:
    scorer = PrecomputedScorer(written(tmp_path / "stats.npz", **moments()), SIZE, 1, Measurement())
    assert scorer.kind == "inception"
    scorer.extractor = Brightness()
    assert scorer.reference(["fid"]).features.dim == D
    scorer = PrecomputedScorer(written(tmp_path / "stats.npz", mu=np.zeros(2), sigma=np.eye(2)), SIZE, 1, Measurement())
    scorer.extractor = Brightness()
    with pytest.raises(ValueError, match="statistics of 2 features, but 'brightness' makes 16"):
        scorer.reference(["fid"])
    with pytest.raises(ValueError, match="is trained on shards"):
        PrecomputedScorer(scorer.url, SIZE, 1, Measurement("classifier"))


class Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, ("open('/tmp/bigtrain-was-here', 'w')",)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"mu": np.zeros(3)}, "must hold the arrays mu and sigma"),
        ({"mu": np.zeros(3), "sigma": np.eye(2)}, r"mu of shape \[3\] and sigma of \[2, 2\]"),
        ({"mu": np.zeros((3, 1)), "sigma": np.eye(3)}, r"must be \[d\] and \[d, d\]"),
        ({"mu": np.zeros(0), "sigma": np.zeros((0, 0))}, r"must be \[d\]"),
        ({"mu": np.full(2, np.nan), "sigma": np.eye(2)}, "not finite"),
        ({"mu": np.zeros(2), "sigma": -np.eye(2)}, "no covariance"),
        ({"mu": np.zeros(2), "sigma": np.array([[1.0, 2.0], [0.0, 1.0]])}, "no covariance"),
        ({"mu": np.array(["a", "b"]), "sigma": np.eye(2)}, "no .npz of plain arrays"),
        ({"mu": np.array([Malicious()]), "sigma": np.eye(1)}, "no .npz of plain arrays"),
    ],
)
def test_other_arrays_are_refused(tmp_path: Path, arrays: dict[str, np.ndarray], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        load_precomputed(written(tmp_path / "stats.npz", **arrays))
    assert not Path("/tmp/bigtrain-was-here").exists()


def whole() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **moments())
    return buffer.getvalue()


def single() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    return buffer.getvalue()


CORRUPT = bytes(b ^ 255 if 200 < i < 220 else b for i, b in enumerate(whole()))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", whole()[:-300], CORRUPT, single(), pickle.dumps(Malicious())])
def test_a_corrupt_file_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "stats.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"is damaged, or no \.npz of plain arrays"):
        load_precomputed(str(tmp_path / "stats.npz"))
    assert not Path("/tmp/bigtrain-was-here").exists()


def test_pickles_are_refused_unread(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is a pickle, which could execute anything"):
        load_precomputed(str(tmp_path / "fid-stats.pkl"))
    with pytest.raises(FileNotFoundError, match=r"stats\.npz"):
        load_precomputed(str(tmp_path / "stats.npz"))
