"""One pass over the samples: the right numbers, the right names, and the same ones however the samples are spread."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bigtrain.evaluation.evaluate import Evaluation, evaluate, index_batches
from bigtrain.evaluation.extractors import Extractor
from bigtrain.evaluation.metrics import frechet_distance
from bigtrain.evaluation.places import Places
from bigtrain.evaluation.protocol import Provenance, score_name
from bigtrain.evaluation.reference import (
    REAL_FEATURES,
    REAL_IMAGES,
    Reference,
    content_key,
    measure_reference,
    reference_statistics,
)
from bigtrain.evaluation.statistics import FeatureStatistics
from bigtrain.randomness import words
from bigtrain.storage import Storage

Samples = tuple[torch.Tensor, torch.Tensor]
SIZE, CLASSES = 4, 3
ALL = ["fid", "is", "recognition"]


class Brightness(Extractor):
    """Pixels as features; the logits say how close an image's brightness is to 40, 120 and 200."""

    name, weight_hash, channels, feature_dim, num_classes = "brightness", "0123456789ab", 1, SIZE * SIZE, CLASSES
    resize, quantisation, recognises_labels, holdout_accuracy = "none", "uint8", True, 0.99

    def __init__(self) -> None:
        super().__init__()
        self.levels = torch.nn.Parameter(torch.tensor([40.0, 120.0, 200.0]))

    def forward(self, images: torch.Tensor) -> Samples:
        return images.flatten(1).float(), -(images.float().mean((1, 2, 3))[:, None] - self.levels).abs() / 20


def sampler(indices: NDArray[np.int64]) -> Samples:
    """Of label y, noise around the y-th level; every seventh is of another class than asked for."""
    labels = indices % CLASSES
    shown = np.where(indices % 7 == 0, (labels + 1) % CLASSES, labels)
    noise = words(0, "test", indices, SIZE * SIZE) % np.uint64(31)
    images = (25 + 80 * shown)[:, None] + noise.astype(np.int64)
    return torch.from_numpy(images.astype(np.uint8)).reshape(-1, 1, SIZE, SIZE), torch.from_numpy(labels)


def unlabelled(indices: NDArray[np.int64]) -> tuple[torch.Tensor, None]:
    return sampler(indices)[0], None


def real_batches(n: int = 100) -> list[Samples]:
    images, labels = sampler(np.arange(10_000, 10_000 + n))
    return list(zip(images.split(16), labels.split(16), strict=True))


@pytest.fixture
def reference() -> Reference:
    return measure_reference(real_batches(), Brightness(), "some manifest", CLASSES)


def test_scores_are_those_of_all_samples_at_once(reference: Reference) -> None:
    scores = evaluate(sampler, Brightness(), reference, ["recognition", "fid", "is"], num=50, batch_size=16)
    assert [score.metric for score in scores] == ["recognition50", "fid50_full", "is50"]
    images, _ = sampler(np.arange(50))
    fake = FeatureStatistics(SIZE * SIZE)
    fake.update(images.flatten(1))
    recognition, fid, inception = scores
    assert recognition.value == pytest.approx(1 - 8 / 50)  # 0, 7 … 49 are of another class
    assert fid.value == pytest.approx(frechet_distance(reference.features, fake), rel=1e-9)
    assert 1 < inception.value < CLASSES
    assert inception.std is not None
    assert fid.std is None


@pytest.mark.parametrize("num", [50, 9, 2])
def test_three_ranks_get_what_one_gets(reference: Reference, num: int) -> None:
    """With uneven tails: of 9 samples the last rank has no valid one in some batches, of 2 it has none at all."""
    evaluation = Evaluation(Brightness(), reference, ALL, num, batch_size=2, splits=2)
    parts = [evaluation.gather(sampler, rank, world_size=3) for rank in range(3)]
    for part in parts[1:]:
        for name, sums in part.items():
            parts[0][name].merge_state(sums)
    whole = evaluate(sampler, Brightness(), reference, ALL, num, batch_size=8, splits=2)
    for score, expected in zip(evaluation.scores(parts[0], Provenance()), whole, strict=True):
        assert score.value == pytest.approx(expected.value, rel=1e-6)
        assert replace(score, value=0, std=None) == replace(expected, value=0, std=None)


@pytest.mark.parametrize(("num", "batch_size", "world_size"), [(10, 4, 1), (10, 4, 3), (12, 4, 3), (1, 4, 2)])
def test_index_batches(num: int, batch_size: int, world_size: int) -> None:
    """Every index once, all batches of one size, all ranks with equally many, the tail filled with the last index."""
    ranks = [list(index_batches(num, batch_size, rank, world_size)) for rank in range(world_size)]
    assert len({len(batches) for batches in ranks}) == 1
    valid = [int(i) for batches in ranks for indices, valid in batches for i in indices[:valid]]
    assert sorted(valid) == list(range(num))
    for batches in ranks:
        for indices, count in batches:
            assert len(indices) == batch_size
            assert set(indices[count:]) <= {num - 1}


def test_every_batch_is_full_and_progress_counts_the_valid(reference: Reference) -> None:
    sizes, progress = [], []

    def counting(indices: NDArray[np.int64]) -> Samples:
        assert not torch.is_grad_enabled()
        sizes.append(len(indices))
        return sampler(indices)

    def report(done: int, total: int) -> None:
        progress.append((done, total))

    with torch.enable_grad():
        evaluate(counting, Brightness(), reference, ["fid"], num=10, batch_size=4, progress=report)
    assert sizes == [4, 4, 4]
    assert progress == [(4, 10), (8, 10), (10, 10), (10, 10)]  # once more after the metric


def test_the_global_random_state_is_untouched(reference: Reference) -> None:
    before = torch.get_rng_state(), repr(np.random.get_state())  # noqa: NPY002
    evaluate(sampler, Brightness(), reference, ALL, num=20, batch_size=8)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert repr(np.random.get_state()) == before[1]  # noqa: NPY002


def test_a_score_carries_its_protocol(reference: Reference) -> None:
    provenance = Provenance(
        seed=3, label_distribution="uniform", kimg=120.5, truncation=0.5, standing_stats="9 batches of 8", ema=True
    )
    fid, inception = evaluate(sampler, Brightness(), reference, ["fid", "is"], 1000, 100, provenance, splits=5)
    row = json.loads(json.dumps(fid.to_dict()))
    assert list(row) == ["metric", "value", "std", "num_fake", "num_real", "kimg", "truncation", "protocol"]
    assert (row["metric"], row["num_fake"], row["num_real"]) == ("fid1k_full", 1000, 100)
    assert (row["kimg"], row["truncation"]) == (120.5, 0.5)
    assert row["protocol"] == {
        "name": "tf1",
        "extractor": "brightness",
        "weight_hash": "0123456789ab",
        "holdout_accuracy": 0.99,
        "resize": "none",
        "quantisation": "uint8",
        "ddof": 1,
        "splits": None,
        "num_real": 100,
        "left_out": 0,
        "num_fake": 1000,
        "reference": "some manifest",
        "truncation": 0.5,
        "standing_stats": "9 batches of 8",
        "ema": True,
        "label_distribution": "uniform",
        "seed": 3,
        "prepared": None,
        "settings": None,
    }
    assert (inception.num_real, inception.protocol.reference, inception.protocol.splits) == (None, None, 5)


@pytest.mark.parametrize(
    ("metric", "num", "full", "name"),
    [
        ("fid", 50_000, True, "fid50k_full"),
        ("fid", 50_000, False, "fid50k"),
        ("fid", 500, False, "fid500"),
        ("fid", 1500, True, "fid1500_full"),
        ("is", 1000, True, "is1k"),
        ("recognition", 2000, False, "recognition2k"),
    ],
)
def test_score_names(metric: str, num: int, full: bool, name: str) -> None:
    assert score_name(metric, num, full) == name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metrics": ["fid", "fdi"]}, r"\['fdi'\] are unknown; valid are am, c2st, .*vendi"),
        ({"metrics": []}, "valid are"),
        ({"num": 1}, r"num \(=1\)"),
        ({"batch_size": 0}, r"batch_size \(=0\)"),
        ({"num": 5}, r"splits \(=10\)"),
        ({"reference": None}, "need a reference"),
        ({"sampler": unlabelled}, "need the labels"),
        ({"sampler": lambda i: sampler(i[1:])}, "3 images of 4 indices"),
    ],
)
def test_what_cannot_be_measured_is_refused(reference: Reference, changes: dict[str, object], message: str) -> None:
    arguments = {
        "sampler": sampler,
        "extractor": Brightness(),
        "reference": reference,
        "metrics": ALL,
        "num": 20,
        "batch_size": 4,
    }
    with pytest.raises(ValueError, match=message):
        evaluate(**(arguments | changes))  # type: ignore[arg-type]


def test_recognition_needs_a_classifier_of_the_datas_classes() -> None:
    extractor = Brightness()
    extractor.recognises_labels = False
    with pytest.raises(ValueError, match="classifier of the data's own classes; the extractor is 'brightness'"):
        evaluate(sampler, extractor, None, ["recognition"], num=20, batch_size=4)


def test_ranks_that_were_not_added_up_are_noticed(reference: Reference) -> None:
    evaluation = Evaluation(Brightness(), reference, ["fid"], num=10, batch_size=4)
    with pytest.raises(AssertionError, match="of 10 were gathered"):
        evaluation.scores(evaluation.gather(sampler, rank=0, world_size=2), Provenance())


def test_a_reference_is_measured_once_and_kept(tmp_path: Path) -> None:
    made = []

    def make() -> Reference:
        made.append(measure_reference(real_batches(), Brightness(), "some manifest", CLASSES, parts=[REAL_FEATURES]))
        return made[-1]

    first = reference_statistics(Places(Storage(tmp_path)), "key", make)
    again = reference_statistics(Places(Storage(tmp_path)), "key", make)
    assert len(made) == 1
    assert (tmp_path / "evaluation" / "key.safetensors").is_file()
    assert (again.num_real, again.manifest, again.full) == (100, "some manifest", True)
    assert again.class_counts.tolist() == first.class_counts.tolist() == [33, 34, 33]
    assert made[0].posterior is not None
    for mine, theirs in [
        (again.features.mean, first.features.mean),
        (again.root, first.root),
        (again.posterior, made[0].posterior),
        *zip(again.kept, made[0].kept, strict=True),
        *zip(first.kept, made[0].kept, strict=True),
    ]:
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0)


def test_of_single_images_a_reference_keeps_what_is_asked_for(tmp_path: Path) -> None:
    asked: list[tuple[str, ...]] = []

    def reference(*parts: str) -> Reference:
        def make() -> Reference:
            asked.append(parts)
            return measure_reference(real_batches(), Brightness(), "some manifest", CLASSES, parts=parts)

        return reference_statistics(Places(Storage(tmp_path)), "key", make, parts=parts)

    def files() -> list[str]:
        return sorted(path.name for path in (tmp_path / "evaluation").iterdir())

    assert reference().load == {}
    assert files() == ["key.safetensors"]
    kept = reference(REAL_FEATURES)
    assert files() == ["key-real_features.safetensors", "key.safetensors"]
    assert reference().load.keys() == reference(REAL_FEATURES).load.keys() == {REAL_FEATURES}
    assert (len(kept.kept.rows), asked) == (100, [(), (REAL_FEATURES,)])
    assert reference(REAL_IMAGES).load.keys() == {REAL_FEATURES, REAL_IMAGES}
    with pytest.raises(ValueError, match=r"\['kid'\] need single real images, and this reference has only sums"):
        evaluate(sampler, Brightness(), measure_reference(real_batches(), Brightness(), "m"), ["kid"], 10, 5)


def test_a_store_that_cannot_be_written_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made, write = [], Storage.write

    def make() -> Reference:
        made.append(measure_reference(real_batches(), Brightness(), "some manifest"))
        return made[-1]

    def refuse(storage: Storage, key: str, content: bytes) -> None:
        if storage.url.endswith("shards"):
            raise OSError("read-only")
        write(storage, key, content)

    shards, spare = Storage(tmp_path / "shards"), Storage(tmp_path / "run")
    monkeypatch.setattr(Storage, "write", refuse)
    with caplog.at_level(logging.WARNING):
        assert reference_statistics(Places(shards), "key", make) is made[0]
    assert caplog.text.count("cannot be stored") == caplog.text.count("read-only") == 1
    caplog.clear()
    for _ in range(2):
        found = reference_statistics(Places(shards, spare), "key", make)
    assert len(made) == 2
    torch.testing.assert_close(found.features.covariance, made[0].features.covariance, rtol=0, atol=0)
    assert [path.name for path in (tmp_path / "run" / "evaluation").iterdir()] == ["key.safetensors"]
    (told,) = [record.message for record in caplog.records]
    assert f"cannot be stored beside the shards, but in {tmp_path / 'run'}: read-only" in told


def test_the_content_key_is_of_everything_that_decides() -> None:
    def extractor(**changes: str) -> Extractor:
        made = Brightness()
        for name, value in changes.items():
            setattr(made, name, value)
        return made

    keys: list[Callable[[], str]] = [
        lambda: content_key("a", 4, extractor()),
        lambda: content_key("b", 4, extractor()),
        lambda: content_key("a", 8, extractor()),
        lambda: content_key("a", 4, extractor(), num_real=10),
        lambda: content_key("a", 4, extractor(name="other")),
        lambda: content_key("a", 4, extractor(weight_hash="other")),
        lambda: content_key("a", 4, extractor(resize="other")),
        lambda: content_key("a", 4, extractor(), damaged=True),
    ]
    assert len({key() for key in keys}) == len(keys)
    assert keys[0]() == "46baba9d458cdf3f", "raise VERSION only if what was measured by an older bigtrain is of no use"
    assert [key() for key in keys] == [key() for key in keys]


@pytest.mark.parametrize("batches", [[], real_batches(1)])
def test_a_reference_needs_two_images(batches: list[Samples]) -> None:
    with pytest.raises(ValueError, match="at least 2"):
        measure_reference(batches, Brightness(), "some manifest")
