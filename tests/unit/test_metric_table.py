"""Every metric of the table: one pass, the same numbers on any number of ranks, and what is missing is told at once."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bigtrain.evaluation import evaluate as evaluating
from bigtrain.evaluation import kept
from bigtrain.evaluation.evaluate import NEEDS, STATISTICS, Evaluation, evaluate
from bigtrain.evaluation.extractors import Extractor
from bigtrain.evaluation.kept import Choice, KeptFeatures
from bigtrain.evaluation.metrics import Pairs, frechet_distance, precision_recall
from bigtrain.evaluation.protocol import Provenance, Score
from bigtrain.evaluation.reference import PARTS, Reference, measure_reference
from bigtrain.evaluation.statistics import FeatureStatistics, Sums
from bigtrain.evaluation.table import METRICS, check_metrics, expanded
from bigtrain.randomness import words

SIZE, CLASSES, NUM = 16, 3, 61
Samples = tuple[Tensor, Tensor]


class Halved(Extractor):
    """Means of 4x4 squares as features, of the same as spatial features; logits by the brightness."""

    name, weight_hash, channels, feature_dim, num_classes = "halved", "0123456789ab", 1, 16, CLASSES
    resize, quantisation, recognises_labels = "none", "uint8", True
    spatial_dim = 64

    def __init__(self) -> None:
        super().__init__()
        self.levels = nn.Parameter(torch.tensor([40.0, 120.0, 200.0]))
        self.halve = nn.AvgPool2d(2)
        self.calls = 0

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        self.calls += 1
        halves = self.halve(images.float())
        logits = -(images.float().mean((1, 2, 3))[:, None] - self.levels).abs() / 20
        return nn.functional.avg_pool2d(halves, 2).flatten(1), logits, halves.flatten(1)


def sampler(indices: NDArray[np.int64]) -> Samples:
    """Of label y, noise around the y-th level; every seventh is of another class than asked for."""
    labels = indices % CLASSES
    shown = np.where(indices % 7 == 0, (labels + 1) % CLASSES, labels)
    noise = words(0, "test", indices, SIZE * SIZE) % np.uint64(61)
    images = (10 + 80 * shown)[:, None] + noise.astype(np.int64)
    return torch.from_numpy(images.astype(np.uint8)).reshape(-1, 1, SIZE, SIZE), torch.from_numpy(labels)


def real_batches(n: int = 90, size: int = 16) -> list[Samples]:
    images, labels = sampler(np.arange(10_001, 10_001 + n))
    return list(zip(images.split(size), labels.split(size), strict=True))


@pytest.fixture(scope="module")
def reference() -> Reference:
    return measure_reference(real_batches(), Halved(), "some manifest", CLASSES, parts=PARTS)


@pytest.fixture(scope="module")
def whole(reference: Reference) -> dict[str, Score]:
    extractor = Halved()
    scores = evaluate(sampler, extractor, reference, list(METRICS), NUM, 16, splits=5)
    assert extractor.calls == math.ceil(NUM / 16), "one pass for all metrics"
    return dict(zip(METRICS, scores, strict=True))


def test_all_metrics_are_numbers_with_a_protocol(whole: dict[str, Score]) -> None:
    for name, score in whole.items():
        assert math.isfinite(score.value), name
        assert score.metric == f"{name}{NUM}" + "_full" * ("reference" in METRICS[name].needs)
        assert (score.num_real, score.protocol.num_real) == (
            (90, 90) if "reference" in METRICS[name].needs else (None, None)
        )
        json.dumps(score.to_dict(), allow_nan=False)
    assert whole["precision"].protocol.settings == "k 3, <="
    for name in ("recognition", "intra_fid", "cas", "modes", "mis", "ms_ssim"):
        per_class = whole[name].per_class
        assert per_class is not None
        assert len(per_class) == CLASSES


def test_values_that_are_known(whole: dict[str, Score], reference: Reference) -> None:
    images, labels = sampler(np.arange(NUM))
    features = Halved()(images)[0]
    real = torch.cat([Halved()(images)[0] for images, _ in real_batches()])
    shown = np.where(np.arange(NUM) % 7 == 0, (labels.numpy() + 1) % CLASSES, labels.numpy())
    assert whole["modes"].value == CLASSES
    assert whole["modes"].per_class == pytest.approx(np.bincount(shown) / NUM)
    assert whole["precision"].value == pytest.approx(precision_recall(Pairs(real, features))[0])
    spatial = nn.functional.avg_pool2d(images.double(), 2).flatten(1)
    fake, true = FeatureStatistics(64), FeatureStatistics(64)
    fake.update(spatial)
    true.update(torch.cat([nn.functional.avg_pool2d(some.double(), 2).flatten(1) for some, _ in real_batches()]))
    assert whole["sfid"].value == pytest.approx(frechet_distance(true, fake), rel=1e-6)
    assert whole["kid"].value == pytest.approx(whole["kid_all"].value, abs=3 * (whole["kid"].std or 0) + 1e-9)
    assert whole["mode_score"].value == pytest.approx(whole["is"].value, rel=0.2), "equal but for the splits"
    posterior = torch.cat([Halved()(some)[1] for some, _ in real_batches()]).double().softmax(1).mean(0)
    torch.testing.assert_close(reference.posterior, posterior)


@pytest.mark.parametrize("world_size", [2, 3, 8])
def test_ranks_with_uneven_tails_get_what_one_gets(
    world_size: int, whole: dict[str, Score], reference: Reference
) -> None:
    slow = () if world_size == 3 else ("cas", "swd")  # of the same kept images as ms_ssim
    names = [name for name in METRICS if name not in slow]
    evaluation = Evaluation(Halved(), reference, names, NUM, batch_size=4, splits=5)
    parts = [evaluation.gather(sampler, rank, world_size) for rank in range(world_size)]
    for part in parts[1:]:
        for name, sums in part.items():
            parts[0][name].merge_state(sums)
    for score in evaluation.scores(parts[0], Provenance()):
        expected = next(one for one in whole.values() if one.metric == score.metric)
        assert score.value == pytest.approx(expected.value, rel=1e-6, abs=1e-9)
        assert score.std == (None if expected.std is None else pytest.approx(expected.std, rel=1e-6))
        assert replace(score, value=0, std=None, per_class=None) == replace(expected, value=0, std=None, per_class=None)


def test_kept_rows_of_ranks_are_in_the_order_of_the_index_to_the_bit(tmp_path) -> None:  # type: ignore[no-untyped-def]
    features, labels = torch.randn(10, 3, generator=torch.Generator().manual_seed(0)), torch.arange(10)
    merged = KeptFeatures(8, 3)
    for rank in (2, 0, 1):
        part, indices = KeptFeatures(8, 3), torch.arange(rank, 10, 3).flip(0)
        part.update(features[indices], labels[indices], indices)
        merged.merge_state(part)
    assert torch.equal(merged.rows, features[:8])
    assert torch.equal(merged.labels, labels[:8])
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        merged.add_ranks()
    finally:
        torch.distributed.destroy_process_group()
    assert torch.equal(merged.rows, features[:8])
    assert int(merged.count) == 8


def test_more_samples_than_are_kept(reference: Reference, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums see all, pairs the first; each score says of how many it is, and `_full` only of a whole reference."""
    monkeypatch.setattr(evaluating, "KEPT", 40)
    kid, fid = evaluate(sampler, Halved(), reference, ["kid", "fid"], NUM, 16)
    assert (kid.metric, kid.num_fake, fid.metric, fid.num_fake) == ("kid40_full", 40, "fid61_full", NUM)
    monkeypatch.setattr("bigtrain.evaluation.reference.KEPT", 50)
    some = measure_reference(real_batches(), Halved(), "some manifest", CLASSES, parts=PARTS)
    kid, fid = evaluate(sampler, Halved(), some, ["kid", "fid"], NUM, 16)
    assert (kid.metric, kid.num_real, fid.metric, fid.num_real) == ("kid40", 50, "fid61_full", 90)


def test_which_reals_are_kept_is_by_chance_and_not_by_the_cut(reference: Reference) -> None:
    def kept_of(size: int, limit: int) -> Tensor:
        choice, rows = Choice(limit), torch.arange(5000)
        for part in rows.split(size):
            choice.update(part.numpy(), part, part)
        assert sum(len(part[0]) for part in choice.parts) <= 1.25 * limit + 1024, "bounded"
        return choice.rows_and_labels()[0]

    some = kept_of(64, 1000)
    assert torch.equal(some, kept_of(999, 1000))
    assert torch.equal(some, some.sort().values)
    assert set(kept_of(64, 300).tolist()) < set(some.tolist())
    assert [int((some // 1000 == thousand).sum()) for thousand in range(5)] == pytest.approx([200] * 5, abs=50)
    assert len(reference.kept.rows) == len(reference.images.rows) == 90


def test_a_reference_is_the_same_in_any_batches(reference: Reference) -> None:
    other = measure_reference(real_batches(size=23), Halved(), "some manifest", CLASSES, parts=PARTS)
    for mine, theirs in zip(other.kept + other.images, reference.kept + reference.images, strict=True):
        assert torch.equal(mine, theirs)
    torch.testing.assert_close(other.features.covariance, reference.features.covariance, rtol=1e-9, atol=1e-9)


def test_images_that_are_kept_are_bounded() -> None:
    assert kept.kept_images((3, 32, 32)) == 21845
    assert kept.kept_images((3, 1024, 1024)) * 3 * 1024**2 <= 2**26
    assert kept.kept_images((1, 4, 4)) == kept.KEPT


def test_the_table_and_its_companions_agree() -> None:
    assert {need for metric in METRICS.values() for need in metric.needs} == set(NEEDS)
    assert {statistic for metric in METRICS.values() for statistic in metric.statistics} == set(STATISTICS)


def test_nothing_that_is_not_asked_for_is_gathered(reference: Reference) -> None:
    unread = partial(pytest.fail, "the kept reals are read only if a metric needs them")
    lazy = replace(reference, load=dict.fromkeys(PARTS, unread))
    gathered: Sequence[Sums] = list(Evaluation(Halved(), lazy, ["fid", "is"], 9, 4, 3).gather(sampler).values())
    assert [type(sums).__name__ for sums in gathered] == ["FeatureStatistics", "LogitStatistics"]
    evaluate(sampler, Halved(), lazy, ["fid", "is", "vendi", "am"], NUM, 16)


def without(**changes: object) -> Callable[[Reference], Reference]:
    return lambda reference: replace(reference, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("metrics", "change", "message"),
    [
        (["kid", "fid"], without(load={}), r"\['kid'\] need single real images"),
        (["am"], without(posterior=None), r"\['am'\] need the classes that the real images"),
        (["sfid"], without(spatial=None), r"\['sfid'\] need an extractor with spatial features"),
        (["cas"], without(class_counts=torch.zeros(0)), r"\['cas'\] need labels of the real images"),
        (["vendi", "kid", "am"], lambda _: None, r"\['kid', 'am'\] need a reference"),
    ],
)
def test_what_a_reference_lacks_is_told_before_anything_is_measured(
    metrics: list[str], change: Callable[[Reference], Reference | None], message: str, reference: Reference
) -> None:
    with pytest.raises(ValueError, match=message):
        Evaluation(Halved(), change(reference), metrics, NUM, 16)


def test_what_an_extractor_or_the_samples_lack_is_told(reference: Reference) -> None:
    extractor = Halved()
    extractor.recognises_labels = False
    with pytest.raises(ValueError, match=r"\['modes'\] need a classifier"):
        Evaluation(extractor, reference, ["modes", "fid"], NUM, 16)
    extractor.num_classes = 0
    with pytest.raises(ValueError, match=r"\['mis'\] need an extractor with logits"):
        Evaluation(extractor, reference, ["mis"], NUM, 16)
    with pytest.raises(ValueError, match=r"\['intra_fid'\] need the labels"):
        evaluate(lambda indices: (sampler(indices)[0], None), Halved(), reference, ["fid", "intra_fid"], NUM, 16)
    with pytest.raises(ValueError, match="'coverage' needs at least 6 samples and real images; there are 5"):
        Evaluation(Halved(), reference, ["coverage"], 5, 16)


def test_one_name_stands_for_four() -> None:
    assert expanded(["fid", "prdc", "is"]) == ["fid", "precision", "recall", "density", "coverage", "is"]
    with pytest.raises(ValueError, match="recall is there twice"):
        check_metrics(expanded(["recall", "prdc"]))
    with pytest.raises(ValueError, match=r"valid are .*, prdc, "):
        check_metrics(expanded(["prcd"]))
