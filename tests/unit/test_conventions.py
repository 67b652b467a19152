"""Named protocols: what each fixes is what is done, and what its scores say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bigtrain.callbacks.scoring_base import Measurement, Scoring
from bigtrain.evaluation.conventions import PROTOCOLS, conventions
from bigtrain.evaluation.evaluate import evaluate
from bigtrain.evaluation.extractors.named import PUBLISHED
from bigtrain.evaluation.reference import Reference, measure_reference
from bigtrain.evaluation.statistics import FeatureStatistics
from tests.unit.test_evaluate import SIZE, Brightness, real_batches, sampler


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_score_says_the_protocol_and_its_parts(name: str) -> None:
    fixed = conventions(name)
    reference = measure_reference(real_batches(), Brightness(), "some manifest")
    fid, inception = evaluate(
        sampler, Brightness(), reference, ["fid", "is"], 40, 8, splits=fixed.splits, conventions=fixed
    )
    assert (fid.protocol.name, fid.protocol.ddof, inception.protocol.splits) == (name, fixed.ddof, 10)
    assert fixed.extractor in PUBLISHED


def test_what_the_protocols_fix() -> None:
    """As reference tables of the libraries have it."""
    assert {name: fixed.ddof for name, fixed in PROTOCOLS.items()} == {
        "tf1": 1,
        "clean": 1,
        "antialias": 1,
        "dgm-eval": 1,
        "stylegan": 0,
    }
    found = {name: fixed.resize("inception").of(299) for name, fixed in PROTOCOLS.items()}
    assert found["tf1"] == found["stylegan"] == "bilinear 299 as in TensorFlow 1, without antialias"
    assert len(set(found.values())) == 4
    assert (conventions(None), PROTOCOLS["dgm-eval"].extractor) == (PROTOCOLS["tf1"], "dinov2-vit-l-14")
    assert [(PROTOCOLS[name].neighbours, PROTOCOLS[name].strict) for name in ("tf1", "stylegan", "dgm-eval")] == [
        (3, False),
        (3, False),
        (5, True),
    ]
    with pytest.raises(ValueError, match=r"protocol \(='tf2'\) is unknown; valid are tf1, clean"):
        conventions("tf2")


def test_ddof_is_that_of_the_covariance() -> None:
    """Of one sum, so that what is kept beside the shards serves every protocol."""
    samples = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    for ddof in (0, 1):
        statistics = FeatureStatistics(4, ddof=ddof)
        statistics.update(samples)
        np.testing.assert_allclose(statistics.covariance, np.cov(samples.double().numpy().T, ddof=ddof), rtol=1e-9)


def test_the_distance_of_the_protocol_without_ddof_is_smaller_by_n() -> None:
    """Of equally many reals and fakes with equal means: both covariances shrink by (n - 1)/n, and so does it."""
    n = 30
    images = torch.cat([sampler(np.arange(n))[0], 255 - sampler(np.arange(n))[0]])
    other = torch.cat([images[::2], 255 - images[::2]])

    def distance(name: str) -> float:
        fixed = conventions(name)
        reference = measure_reference([(images, None)], Brightness(), "m")
        reference.features.ddof = fixed.ddof
        (score,) = evaluate(lambda i: (other[i], None), Brightness(), reference, ["fid"], 2 * n, 10, conventions=fixed)
        return score.value

    assert distance("stylegan") == pytest.approx(distance("tf1") * (2 * n - 1) / (2 * n), rel=1e-4)
    assert distance("tf1") > 1


class Against(Scoring):
    """Nothing: for what is decided before anything is measured."""

    reference: Reference = None  # type: ignore[assignment]
    standard = "nothing"


@pytest.mark.parametrize(
    ("by", "kind"),
    [
        (Measurement(), "classifier"),
        (Measurement(weights="s3://some/weights.pth"), "inception"),
        (Measurement(protocol="clean"), "inception"),
        (Measurement(protocol="dgm-eval"), "dinov2-vit-l-14"),
        (Measurement("classifier", protocol="clean"), "classifier"),
        (Measurement("my_package.Net", protocol="dgm-eval"), "my_package.Net"),
    ],
)
def test_which_extractor_measures(by: Measurement, kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:  # type: ignore[no-untyped-def]
    """Whoever names a protocol does not get a classifier because weights are missing."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert Against(SIZE, 1, [], by).kind == kind


@pytest.mark.parametrize(
    ("by", "said"),
    [
        (Measurement(protocol="x"), "protocol"),
        (Measurement("x"), "is unknown; valid: auto, classifier, inception"),
        (Measurement("classifier", weights="a.pth"), "not for 'classifier'"),
        (Measurement("a.safetensors", weights="a.pth"), "not for 'a.safetensors'"),
    ],
)
def test_what_cannot_measure_is_refused_at_once(by: Measurement, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Against(SIZE, 1, [], by)
