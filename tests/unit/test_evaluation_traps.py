"""Mistakes by which the scores of other libraries went wrong, each of which must stay impossible here."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

import bigtrain
from bigtrain.callbacks.evaluation import Evaluating
from bigtrain.callbacks.scoring import Scorer
from bigtrain.callbacks.scoring_base import Measurement
from bigtrain.data.datamodule import ShardDataModule
from bigtrain.evaluation.evaluate import evaluate, index_batches
from bigtrain.evaluation.extractors import Extractor
from bigtrain.evaluation.metrics import frechet_distance_of, inception_score, kernel_distance, precision_recall
from bigtrain.evaluation.metrics.neighbours import Pairs
from bigtrain.evaluation.reference import REAL_FEATURES, measure_reference
from bigtrain.evaluation.statistics import LogitStatistics
from bigtrain.sampling.pixels import to_uint8
from bigtrain.schedules import Constant
from tests.unit.made_source import Made, build_made
from tests.unit.tiny import progressive_game


class Layers(Extractor):
    """Features, logits and spatial features of one length, so that none can be taken for another by its shape."""

    name, weight_hash, channels, feature_dim, num_classes, spatial_dim = "layers", "0" * 12, 1, 4, 4, 4
    resize, quantisation = "none", "uint8"

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.convolution, self.norm = nn.Conv2d(1, 12, 3, stride=2), nn.BatchNorm2d(12)
        self.settings: list[tuple[bool, str, bool]] = []

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        autocast = torch.is_autocast_enabled(images.device.type)
        self.settings.append((torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision(), autocast))
        found = self.norm(self.convolution(images / 64)).sigmoid().mean((2, 3))
        return found[:, :4], 3 * found[:, 4:8], found[:, 8:]


def images(n: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    levels = torch.randint(1, 256, (n, 1, 1, 1), generator=generator)
    return (torch.rand(n, 1, 8, 8, generator=generator) * levels).to(torch.uint8)


def test_each_metric_of_the_shared_pass_reads_its_own_layer() -> None:
    """torchmetrics' FeatureShare gives the Inception Score the features instead of the logits."""
    extractor, real, fake = Layers(), images(50), images(40, 1) // 2
    reference = measure_reference([(real, None)], extractor, "m", parts=[REAL_FEATURES])
    names = ["fid", "sfid", "is", "kid", "precision", "recall"]
    fid, sfid, score, kid, precision, recall = (
        found.value for found in evaluate(lambda i: (fake[i], None), extractor, reference, names, 40, 40, splits=2)
    )
    (features, _, spatial), (fakes, logits, fake_spatial) = (
        extractor.measure(some, len(some)) for some in (real, fake)
    )
    statistics = LogitStatistics(40, 4, 2)
    statistics.update(logits, torch.arange(40))
    assert score == pytest.approx(inception_score(statistics)[0], rel=1e-9)
    assert fid == pytest.approx(frechet_distance_of(features, fakes), rel=1e-6)
    assert sfid == pytest.approx(frechet_distance_of(spatial, fake_spatial), rel=1e-6)  # type: ignore[arg-type]
    assert kid == pytest.approx(kernel_distance(features, fakes)[0], rel=1e-9)
    assert (precision, recall) == precision_recall(Pairs(features, fakes))
    assert len({round(value, 4) for value in (fid, sfid, score)}) == 3


def test_what_stands_beside_an_image_or_pads_the_batch_leaves_its_features_to_the_bit() -> None:
    """In training mode too, in which a batch norm would see the others; FID of torchmetrics depends on the tail."""
    extractor = Layers().train()
    whole = extractor.measure(images(16))
    averages = extractor.norm.running_mean.clone()
    for found, expected in zip(extractor.measure(images(16)[:5], 16), whole, strict=True):
        assert torch.equal(found, expected[:5])
    others = torch.cat((images(16)[:5], images(11, 3)))
    assert torch.equal(extractor.measure(others).features[:5], whole.features[:5])
    assert torch.equal(extractor.norm.running_mean, averages)


def test_samples_and_features_are_made_in_full_float32() -> None:
    """Whatever a training has set: TF32 keeps ten places of a factor, bfloat16 seven."""
    extractor, seen = Layers(), []

    def sampler(indices: NDArray[np.int64]) -> tuple[Tensor, None]:
        seen.append(
            (torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision(), torch.is_autocast_enabled("cpu"))
        )
        return images(64)[indices], None

    tf32, precision = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    try:
        torch.backends.cudnn.allow_tf32 = True
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            evaluate(sampler, extractor, None, ["vendi"], 20, 8)
            assert (torch.get_float32_matmul_precision(), torch.is_autocast_enabled("cpu")) == ("medium", True)
    finally:
        torch.backends.cudnn.allow_tf32 = tf32
        torch.set_float32_matmul_precision(precision)
    assert set(seen) == set(extractor.settings) == {(False, "highest", False)}


@given(num=st.integers(1, 200), batch_size=st.integers(1, 40), world_size=st.integers(1, 9))
def test_no_sample_is_measured_twice_or_left_out(num: int, batch_size: int, world_size: int) -> None:
    """A DistributedSampler doubles some to fill the last batch, and who cuts as many off again cuts others."""
    counts = np.zeros(num, dtype=int)
    for rank in range(world_size):
        for indices, valid in index_batches(num, batch_size, rank, world_size):
            np.add.at(counts, indices[:valid], 1)
    assert (counts == 1).all()


def scorer(folder: Path) -> Scorer:
    found = Scorer(ShardDataModule(str(folder), Constant(8, 8, 1)).shards, 8, Measurement("classifier", batch_size=8))
    found.extractor = Layers()
    return found


class Darker(Made):
    def load(self, index: int) -> Image.Image:
        return super().load(index).point(lambda value: value // 2)

    def fingerprint(self) -> str:
        return "darker " + super().fingerprint()


def test_statistics_of_other_shards_under_the_same_name_are_not_taken(tmp_path: Path) -> None:
    """Others keep them under the name of the data set, where they go stale."""
    build_made(Made(), tmp_path / "first")
    build_made(Darker(), tmp_path / "second")
    place = tmp_path / "shards"
    (tmp_path / "first").rename(place)
    before = scorer(place).reference(["fid"])
    kept = place / "evaluation"
    assert len(list(kept.iterdir())) == 1
    kept.rename(tmp_path / "second" / "evaluation")
    place.rename(tmp_path / "gone")
    (tmp_path / "second").rename(place)
    after = scorer(place).reference(["fid"])
    assert before is not None
    assert after is not None
    assert after.manifest != before.manifest
    assert not torch.allclose(after.features.mean, before.features.mean, rtol=1e-3)
    assert len(list((place / "evaluation").iterdir())) == 2


def test_the_extractor_is_no_part_of_what_is_trained_or_stored(tmp_path: Path) -> None:
    """Inception's weights are in the state of a LightningModule that a metric of torchmetrics hangs on."""
    build_made(Made(), tmp_path / "shards")
    game, measured = progressive_game(class_counts=[7, 7, 6]), scorer(tmp_path / "shards")
    records: list[dict[str, object]] = []
    before = [set(game.state_dict()), set(game.training_state()), len(list(game.modules()))]
    Evaluating(0, measured, records, ["fid"], 12).act(SimpleNamespace(loggers=[]), game)  # type: ignore[arg-type]
    assert [record["metric"] for record in records] == ["fid12_full"]
    assert [set(game.state_dict()), set(game.training_state()), len(list(game.modules()))] == before
    assert not any(isinstance(part, Extractor) for part in game.modules())


def test_pixels_are_rounded_and_clamped() -> None:
    """torchmetrics' `normalize=True` cuts off, half a level too dark, and lets what exceeds 1 wrap around."""
    levels = torch.arange(256)
    assert torch.equal(to_uint8((levels + 0.49) / 127.5 - 1).long(), levels)
    assert torch.equal(to_uint8((levels - 0.49) / 127.5 - 1).long(), levels)
    assert to_uint8(torch.tensor([-1.3, 1.3, 9.0])).tolist() == [0, 255, 255]


def test_no_root_of_a_matrix_is_scipys() -> None:
    """`scipy.linalg.sqrtm(disp=…)` is gone in SciPy 1.18, and with it the FID of most libraries."""
    sources = [path.read_text() for path in Path(bigtrain.__file__).parent.rglob("*.py")]
    assert len(sources) > 50
    assert not [text for text in sources if "sqrtm" in text or "scipy" in text]
