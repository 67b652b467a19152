"""Extractors: what they take, what they leave alone, and that nothing in a weights file is executed."""

from __future__ import annotations

import hashlib
import pickle
import urllib.error
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch_fidelity
from sklearn.datasets import load_digits
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torchmetrics.image.fid import FrechetInceptionDistance

from bigtrain.evaluation.classifier import ClassifierCard, ClassifierExtractor
from bigtrain.evaluation.classifier_network import Classifier
from bigtrain.evaluation.conventions import conventions
from bigtrain.evaluation.evaluate import evaluate
from bigtrain.evaluation.extractors import Extractor, exact_arithmetic, hash_weights
from bigtrain.evaluation.extractors.inception import InceptionExtractor
from bigtrain.evaluation.extractors.named import is_available
from bigtrain.evaluation.extractors.resize import RESIZES
from bigtrain.evaluation.reference import REAL_FEATURES, content_key, measure_reference
from tests.unit.inception import Images, random_weights


class Pixels(Extractor):
    """Mean and deviation of each channel as features and logits."""

    name, weight_hash, channels, feature_dim, num_classes = "pixels", "0" * 12, 3, 6, 6
    resize, quantisation = "none", "uint8"

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(1 / 255))
        self.dropout = torch.nn.Dropout()

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.dropout(images * self.scale).flatten(2)
        features = torch.cat((x.mean(2), x.std(2)), dim=1)
        return features, features.half()


def images(n: int, channels: int = 3, size: int = 8, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, channels, size, size), generator=generator, dtype=torch.uint8)


def test_grey_images_are_repeated() -> None:
    grey = images(3, channels=1)
    for mine, repeated in zip(Pixels().measure(grey)[:2], Pixels().measure(grey.repeat(1, 3, 1, 1))[:2], strict=True):
        torch.testing.assert_close(mine, repeated, rtol=0, atol=0)


@pytest.mark.parametrize("wrong", [images(2).float(), images(2)[0], images(2, channels=2)])
def test_other_images_are_refused(wrong: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="must be uint8"):
        Pixels().measure(wrong)


def test_features_are_float32_in_eval_mode_without_gradients_or_autocast() -> None:
    extractor = Pixels().train()
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.enable_grad():
        features, logits, _ = extractor.measure(images(2))
    assert features.dtype == logits.dtype == torch.float32
    assert not features.requires_grad
    torch.testing.assert_close(features[:, :3], images(2).float().mean((2, 3)) / 255)  # no dropout


def test_padding_leaves_the_features() -> None:
    whole, padded = Pixels().measure(images(3))[:2], Pixels().measure(images(3), 8)[:2]
    for one, other in zip(whole, padded, strict=True):
        torch.testing.assert_close(one, other)


def test_exact_arithmetic_puts_the_settings_back() -> None:
    before = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    with exact_arithmetic(torch.device("cpu")):
        assert not torch.backends.cudnn.allow_tf32
    assert (torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()) == before


def test_the_hash_is_of_names_and_values() -> None:
    state = {"a": torch.zeros(2), "b": torch.ones((), dtype=torch.int64)}
    assert hash_weights(state) == hash_weights(dict(reversed(state.items())))
    others = [{**state, "a": torch.tensor([0.0, 1.0])}, {"c": state["a"], "b": state["b"]}, {"a": state["a"]}]
    assert len({hash_weights(other) for other in [state, *others]}) == 4


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def extractor(weights: Path) -> InceptionExtractor:
    before = torch.get_rng_state()
    extractor = InceptionExtractor(weights)
    assert torch.equal(torch.get_rng_state(), before)
    return extractor


def test_inception_is_torch_fidelitys(weights: Path, extractor: InceptionExtractor) -> None:
    """But for the last digits of float32, as its batch norms are part of its convolutions."""
    with torch.random.fork_rng():
        theirs = FeatureExtractorInceptionV3("theirs", ["2048", "logits_unbiased"], str(weights))
    for mine, expected in zip(extractor.measure(images(2))[:2], theirs(images(2)), strict=True):
        assert (mine - expected).norm() < 2e-6 * expected.norm()
        assert mine.std(dim=0).mean() > 1e-3  # the weights tell images apart
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in extractor.modules())
    assert extractor.weight_hash == hashlib.sha256(weights.read_bytes()).hexdigest()[:12]
    assert extractor.protocol["resize"].startswith("bilinear 299")


def digits(n: int, first: int = 0) -> torch.Tensor:
    """Handwritten digits, uint8 [n, 3, 8, 8]."""
    grey = load_digits().images[first : first + n] / 16 * 255
    return torch.from_numpy(grey.round().astype(np.uint8))[:, None].repeat(1, 3, 1, 1)


def our_scores(extractor: Extractor, real: torch.Tensor, fake: torch.Tensor, metrics: list[str], **more: Any) -> list:  # type: ignore[type-arg]
    reference = measure_reference([(part, None) for part in real.split(16)], extractor, "m", parts=[REAL_FEATURES])
    return evaluate(lambda i: (fake[i], None), extractor, reference, metrics, len(fake), 16, **more)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["digits", "noise"])
def test_scores_are_torch_fidelitys(kind: str, weights: Path, extractor: InceptionExtractor) -> None:
    """All five that it has. Its subsets of KID are drawn otherwise, so they are to be all images."""
    n = 40 if kind == "digits" else 24
    real, fake = (digits(n), digits(n, n) // 2 + 20) if kind == "digits" else (images(n), images(n, seed=1) // 2)
    mine = our_scores(extractor, real, fake, ["fid", "is", "kid", "precision", "recall"], splits=2)
    theirs = torch_fidelity.calculate_metrics(
        input1=Images(fake),
        input2=Images(real),
        fid=True,
        isc=True,
        kid=True,
        prc=True,
        isc_splits=2,
        kid_subset_size=n,
        kid_subsets=2,
        samples_shuffle=False,
        feature_extractor="inception-v3-compat",
        feature_layer_prc="2048",
        feature_extractor_weights_path=str(weights),
        batch_size=16,
        cuda=False,
        cache=False,
        verbose=False,
        save_cpu_ram=True,
    )
    keys = ["frechet_inception_distance", "inception_score_mean", "kernel_inception_distance_mean"]
    for score, key in zip(mine, [*keys, "precision", "recall"], strict=True):
        assert score.value == pytest.approx(theirs[key], rel=1e-4), key
    assert mine[1].std == pytest.approx(theirs["inception_score_std"], rel=1e-4, abs=1e-9)
    assert mine[0].value > 1e-3


@pytest.mark.long
@pytest.mark.parametrize("protocol", ["tf1", "antialias"])
def test_distances_are_torchmetrics(protocol: str, weights: Path) -> None:
    """Of uint8 images, which it takes as they are, and larger ones, for antialias to matter."""
    real, fake = (digits(24, 24 * i).repeat_interleave(40, 2).repeat_interleave(40, 3) // (1 + i) for i in range(2))
    rules = conventions(protocol)
    extractor = InceptionExtractor(weights, rules.inception_resize)
    (mine,) = our_scores(extractor, real, fake, ["fid"], conventions=rules)
    with torch.random.fork_rng():
        theirs = FrechetInceptionDistance(
            feature=2048, feature_extractor_weights_path=str(weights), antialias=protocol == "antialias"
        )
    theirs.update(real, real=True)
    theirs.update(fake, real=False)
    assert mine.value == pytest.approx(float(theirs.compute()), rel=1e-4)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of torch.hub and no network."""

    def offline(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    return tmp_path / "checkpoints"


def test_offline_without_a_file_the_error_says_which_file_goes_where(hub: Path) -> None:
    assert not is_available("inception")
    assert is_available("inception", "s3://some/weights.pth")
    with pytest.raises(OSError, match=r"put it at .*checkpoints/weights-inception-2015-12-05-6726825d\.pth"):
        InceptionExtractor()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"missing\.pth"):
        InceptionExtractor(tmp_path / "missing.pth")


def test_the_hash_in_the_name_is_checked(hub: Path, weights: Path) -> None:
    hub.mkdir()
    (hub / "weights-inception-2015-12-05-6726825d.pth").write_bytes(weights.read_bytes())
    assert is_available("inception")
    with pytest.raises(ValueError, match="SHA-256"):
        InceptionExtractor()


class Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, ("open('/tmp/bigtrain-was-here', 'w')",)


@pytest.mark.parametrize("content", [pickle.dumps({"weights": Malicious()}), b"", b"not a file of weights"])
def test_nothing_is_unpickled_but_tensors(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="not a file of tensors only"):
        InceptionExtractor(path)
    assert not Path("/tmp/bigtrain-was-here").exists()


@pytest.mark.parametrize("state", [{"fc.bias": torch.zeros(1008)}, {}])
def test_other_weights_are_refused(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="not those of torch-fidelity's Inception-v3"):
        InceptionExtractor(tmp_path / "weights.pth")
    torch.save([torch.zeros(1)], tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="not a state dict"):
        InceptionExtractor(tmp_path / "weights.pth")


def test_a_faster_order_of_the_channels_changes_no_score() -> None:
    plain, fast = trained(), trained()
    fast.hasten(channels_last=True)
    assert fast.network.stages[0][0].weight.is_contiguous(memory_format=torch.channels_last)
    assert not plain.network.stages[0][0].weight.is_contiguous(memory_format=torch.channels_last)
    assert_same_scores(plain, fast)


@pytest.mark.long
def test_a_compiled_extractor_changes_no_score() -> None:
    compiled = trained()
    compiled.hasten(channels_last=True, compiled=True)
    assert_same_scores(trained(), compiled)


def trained() -> ClassifierExtractor:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Classifier(16, 3, 10)
    return ClassifierExtractor(network, ClassifierCard(16, 3, 10, 100, 0.9, 0, "some manifest"))


def assert_same_scores(first: ClassifierExtractor, second: ClassifierExtractor) -> None:
    """To 1e-6, of features and of what they are measured for."""
    real, fake = images(400, size=16), images(300, size=16, seed=1) // 2
    for one, other in zip(first.measure(real)[:2], second.measure(real)[:2], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    values = []
    for extractor in (first, second):
        reference = measure_reference([(part, None) for part in real.split(50)], extractor, "m")
        scores = evaluate(lambda i: (fake[i], None), extractor, reference, ["fid", "is"], num=300, batch_size=50)
        values.append([score.value for score in scores])
    assert values[0] == pytest.approx(values[1], rel=1e-6)


def test_inception_has_spatial_features(extractor: InceptionExtractor) -> None:
    """The first seven channels of the last but one block of 17 by 17, whose first 192 channels are a ReLU's."""
    features, logits, spatial = extractor.measure(images(2))
    assert (features.shape, logits.shape, spatial.shape) == ((2, 2048), (2, 1008), (2, extractor.spatial_dim))
    assert spatial.std(dim=0).mean() > 1e-4
    assert spatial.min() == 0


@pytest.mark.long
def test_inception_can_be_resized_otherwise(weights: Path, extractor: InceptionExtractor) -> None:
    other = InceptionExtractor(weights, RESIZES["bicubic-float"])
    assert other.resize.startswith("bicubic 299")
    assert not torch.allclose(other.measure(images(2)).features, extractor.measure(images(2)).features, rtol=1e-2)
    assert content_key("m", 8, other) != content_key("m", 8, extractor)
