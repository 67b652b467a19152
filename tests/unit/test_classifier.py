"""The classifier that is trained on the side: accurate, repeatable, and without a trace in the training around it."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits

from bigtrain.evaluation import classifier
from bigtrain.evaluation.classifier import ClassifierExtractor, train_classifier
from bigtrain.evaluation.classifier_network import Classifier
from bigtrain.evaluation.tensor_file import pack, unpack
from bigtrain.storage import Storage

Batch = tuple[torch.Tensor, torch.Tensor]


def digits() -> list[Batch]:
    data = load_digits()
    images = torch.nn.functional.interpolate(torch.from_numpy(data.images)[:, None], size=16, mode="bilinear")
    pixels = (images * 255 / 16).round().to(torch.uint8)
    return list(zip(pixels.split(250), torch.from_numpy(data.target).split(250), strict=True))


def stripes(n: int, resolution: int = 8, channels: int = 1) -> list[Batch]:
    """Images with horizontal (0) or vertical (1) stripes and some noise."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 2, (n,), generator=generator)
    rows = (torch.arange(resolution) % 2 * 200).expand(resolution, resolution)
    clean = torch.where(labels[:, None, None] == 1, rows, rows.T)
    noise = torch.randint(0, 50, (n, channels, resolution, resolution), generator=generator)
    return list(zip((clean[:, None] + noise).to(torch.uint8).split(32), labels.split(32), strict=True))


def quick(n: int = 64, seed: int = 0) -> ClassifierExtractor:
    return train_classifier(stripes(n), 2, 8, 1, seed, trained_on="some manifest", max_steps=3)


def test_it_learns_digits() -> None:
    extractor = train_classifier(digits(), 10, 16, 1)
    assert extractor.card.holdout_accuracy >= 0.97
    assert extractor.card.num_images == 1797
    images, labels = digits()[0]
    features, logits, _ = extractor.measure(images)
    assert features.shape == (250, 128)
    assert (logits.argmax(1) == labels).float().mean() > 0.97


def test_the_weights_follow_from_the_seed() -> None:
    first, again, other = quick(), quick(), quick(seed=1)
    assert first.name == again.name == f"classifier-{first.weight_hash}"
    assert first.weight_hash != other.weight_hash


def test_the_hold_out_is_not_trained_on() -> None:
    """Other images at the held-out places give the same weights; at any other place they give others."""
    images, labels = (torch.cat(parts) for parts in zip(*stripes(64), strict=True))
    held_out = torch.arange(64) % 10 == 9
    weights = [
        train_classifier(
            [(torch.where(mask[:, None, None, None], 0, images), labels)], 2, 8, 1, max_steps=3
        ).weight_hash
        for mask in (torch.zeros(64, dtype=torch.bool), held_out, ~held_out)
    ]
    assert weights[0] == weights[1] != weights[2]


def test_training_leaves_no_trace() -> None:
    before, weight = torch.get_rng_state(), torch.ones(1, requires_grad=True)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        inside = quick()
        assert not torch.is_grad_enabled()
        assert torch.is_autocast_enabled("cpu")
    assert torch.equal(torch.get_rng_state(), before)
    assert (2 * weight).requires_grad
    assert inside.weight_hash == quick().weight_hash
    with torch.inference_mode():
        assert quick().weight_hash == inside.weight_hash


def test_no_more_is_read_than_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = iter(stripes(320))
    assert train_classifier(stream, 2, 8, 1, max_images=40, max_steps=1).card.num_images == 40
    assert len(list(stream)) == 8  # of the 10 batches of 32
    monkeypatch.setattr(classifier, "POOL_BYTES", 8 * 8 * 50)
    assert train_classifier(stripes(320), 2, 8, 1, max_steps=1).card.num_images == 50


def test_it_is_stored_without_pickle(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    made = quick()
    made.save(storage, "evaluation/classifier.safetensors")
    before = torch.get_rng_state()
    loaded = ClassifierExtractor.load(storage, "evaluation/classifier.safetensors")
    assert torch.equal(torch.get_rng_state(), before)
    assert (loaded.card, loaded.name) == (made.card, made.name)
    assert loaded.card.trained_on == "some manifest"
    images, _ = stripes(5)[0]
    for mine, theirs in zip(made.measure(images)[:2], loaded.measure(images)[:2], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        ClassifierExtractor.load(storage, "nowhere")


def test_tensors_and_card_come_back() -> None:
    tensors = {"a": torch.arange(6).reshape(2, 3).T, "b": torch.zeros(())}
    back, card = unpack(pack(tensors, {"name": "Σ", "numbers": [1, None]}))
    assert card == {"name": "Σ", "numbers": [1, None]}
    for name, tensor in tensors.items():
        torch.testing.assert_close(back[name], tensor)


@pytest.mark.parametrize(("resolution", "channels"), [(4, 1), (5, 2), (16, 3), (28, 1), (64, 3), (256, 3)])
def test_any_resolution_and_channels(resolution: int, channels: int) -> None:
    network = Classifier(resolution, channels, num_classes=7).eval()
    image = torch.zeros(2, channels, resolution, resolution, dtype=torch.uint8)
    features, logits = network(image)
    assert (features.shape, logits.shape) == ((2, 128), (2, 7))
    assert max(network.stages(image.float()).shape[2:]) <= 4


@pytest.mark.parametrize(
    ("batches", "changes", "message"),
    [
        (stripes(19), {}, "at least 20"),
        (stripes(64), {"resolution": 16}, r"must be uint8 \[n, 1, 16, 16\]"),
        (stripes(64), {"num_classes": 1}, r"num_classes \(=1\)"),
        ([(i.float(), y) for i, y in stripes(64)], {}, "must be uint8"),
        ([(i, y + 1) for i, y in stripes(64)], {}, r"labels from 1 to 2"),
        ([(torch.zeros(64, 1, 2, 2, dtype=torch.uint8), torch.arange(64) % 2)], {"resolution": 2}, "at least 4"),
    ],
)
def test_what_cannot_be_learnt_is_refused(batches: list[Batch], changes: dict[str, int], message: str) -> None:
    arguments = {"num_classes": 2, "resolution": 8, "channels": 1} | changes
    with pytest.raises(ValueError, match=message):
        train_classifier(batches, **arguments)  # type: ignore[arg-type]


def test_classes_that_are_never_seen_are_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        train_classifier(stripes(64), 5, 8, 1, max_steps=1)
    assert "64 images of 2 of the 5 classes" in caplog.text


def test_another_resolution_is_refused() -> None:
    with pytest.raises(ValueError, match=r"16x16 pixels: 'classifier-.*' was trained at resolution 8"):
        quick().measure(torch.zeros(2, 1, 16, 16, dtype=torch.uint8))


def test_the_card_counts_in_no_hash() -> None:
    made = quick()
    assert ClassifierExtractor(made.network, replace(made.card, trained_on="other")).weight_hash == made.weight_hash
