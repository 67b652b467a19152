"""An extractor that is trained on the labelled shards themselves, for images that Inception was never shown."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from bigtrain.evaluation.classifier_network import Classifier
from bigtrain.evaluation.extractors import Extractor, hash_weights
from bigtrain.evaluation.tensor_file import pack, unpack
from bigtrain.randomness import permutation, seeded, words
from bigtrain.storage import Storage

BATCH_SIZE, MAX_EPOCHS, LEARNING_RATE = 128, 10, 4e-3
HOLD_OUT = 10  # every tenth image is kept from training
POOL_BYTES = 2**30
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClassifierCard:
    """What is known of a trained classifier; it is stored with the weights."""

    resolution: int
    channels: int
    num_classes: int
    num_images: int  # in the pool, hold-out included
    holdout_accuracy: float
    seed: int
    trained_on: str  # hash of the manifest


class ClassifierExtractor(Extractor):
    """A trained classifier as an extractor: the input of its head as features, its logits."""

    feature_dim = Classifier.feature_dim
    recognises_labels = True

    def __init__(self, network: Classifier, card: ClassifierCard) -> None:
        super().__init__()
        self.network, self.card = network, card
        self.channels, self.num_classes = card.channels, card.num_classes
        self.weight_hash = hash_weights(network.state_dict())
        self.name = f"classifier-{self.weight_hash}"
        self.resize, self.quantisation = "none", "uint8"
        self.holdout_accuracy = card.holdout_accuracy
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        if images.shape[2:] != (self.card.resolution, self.card.resolution):
            size = "x".join(map(str, images.shape[2:]))
            raise ValueError(f"images of {size} pixels: {self.name!r} was trained at resolution {self.card.resolution}")
        return self.network(images)

    def save(self, storage: Storage, key: str) -> None:
        """Writes weights and card as one safetensors object."""
        storage.write(key, pack(self.network.state_dict(), asdict(self.card)))

    @classmethod
    def load(cls, storage: Storage, key: str) -> ClassifierExtractor:
        """Reads what `save` wrote.

        Raises:
            FileNotFoundError: if there is no such object.
            ValueError: if it is damaged, or no classifier.
        """
        weights, stored = unpack(storage.read(key), storage.locate(key))
        try:
            card = ClassifierCard(**stored)
            with seeded(0, "classifier"):  # the constructor draws initial weights
                network = Classifier(card.resolution, card.channels, card.num_classes)
            network.load_state_dict(weights)
        except (TypeError, RuntimeError) as error:
            raise ValueError(
                f"{storage.locate(key)} is no classifier of `bigtrain evaluate train-extractor`"
            ) from error
        return cls(network, card)


def train_classifier(
    batches: Iterable[tuple[Tensor, Tensor]],
    num_classes: int,
    resolution: int,
    channels: int,
    seed: int = 0,
    *,
    trained_on: str = "",
    max_images: int = 200_000,
    max_steps: int = 1500,
    device: torch.device | str = "cpu",
) -> ClassifierExtractor:
    """Trains a classifier on the first images of a stream, which is read once and must not be sorted by class.

    The weights follow from images and seed (to the last bit only on the same machine, so save them rather than train
    them twice). Nothing of the training around it changes: global generators, grad mode and autocast are put back.

    Args:
        batches: uint8 images [n, channels, resolution, resolution] with int64 labels [n].
        num_classes: of the labels.
        resolution, channels: of the images.
        seed: of weights, order and shifts.
        trained_on: hash of the manifest of the images, for the card.
        max_images: read at most; fewer if they would fill more than 1 GiB.
        max_steps: of 128 images; fewer if that is more than ten epochs.
        device: where to train; the extractor stays there.

    Raises:
        ValueError: if there are fewer than 20 images, or images or labels are not as said.
    """
    images, labels = _pool(batches, num_classes, (channels, resolution, resolution), max_images)
    held_out = np.arange(len(images)) % HOLD_OUT == HOLD_OUT - 1
    with _isolated(seed, torch.device(device)):
        network = Classifier(resolution, channels, num_classes).to(device)
        _fit(network, images, labels, np.flatnonzero(~held_out), seed, max_steps)
        accuracy = _accuracy(network.eval(), images[held_out], labels[held_out])
    card = ClassifierCard(resolution, channels, num_classes, len(images), accuracy, seed, trained_on)
    return ClassifierExtractor(network, card)


@contextlib.contextmanager
def _isolated(seed: int, device: torch.device) -> Iterator[None]:
    """Trains as if nothing was around: own random numbers, gradients on, autocast off."""
    autocast = torch.autocast(device.type, enabled=False)
    with torch.inference_mode(False), torch.enable_grad(), autocast, seeded(seed, "classifier"):
        yield


def _pool(
    batches: Iterable[tuple[Tensor, Tensor]], num_classes: int, shape: tuple[int, int, int], max_images: int
) -> tuple[Tensor, Tensor]:
    """The first images and labels of the stream, as many as are wanted and fit."""
    limit = min(max_images, POOL_BYTES // math.prod(shape))
    kept: list[tuple[Tensor, Tensor]] = []
    count = 0
    for images, labels in batches:
        if images.dtype != torch.uint8 or images.shape[1:] != shape:
            wanted = f"uint8 [n, {', '.join(map(str, shape))}]"
            raise ValueError(f"images of type {images.dtype} and shape {list(images.shape)} must be {wanted}")
        kept.append((images.cpu(), labels.cpu().long()))
        count += len(images)
        if count >= limit:
            break
    if count < 20:
        raise ValueError(f"a classifier needs at least 20 labelled images; there are {count}")
    images, labels = (torch.cat(parts)[:limit] for parts in zip(*kept, strict=True))
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(f"labels from {labels.min()} to {labels.max()} must lie in [0, num_classes (={num_classes}))")
    if (seen := len(labels.unique())) < num_classes:
        _log.warning("the classifier learns from %d images of %d of the %d classes", len(labels), seen, num_classes)
    return images, labels


def _fit(
    network: Classifier, images: Tensor, labels: Tensor, indices: NDArray[np.int64], seed: int, max_steps: int
) -> None:
    """Adam with a cosine from LEARNING_RATE to 0 over a budget of steps; the indices are shuffled in each epoch."""
    device = next(network.parameters()).device
    batch_size = min(BATCH_SIZE, len(indices))
    steps = min(max_steps, math.ceil(MAX_EPOCHS * len(indices) / batch_size))
    epochs = math.ceil(steps * batch_size / len(indices))
    order = np.concatenate([indices[permutation(len(indices), seed, "classifier", epoch)] for epoch in range(epochs)])
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    for step in range(steps):
        places = np.arange(step * batch_size, (step + 1) * batch_size)
        chosen = torch.from_numpy(order[places])
        shifted = _shift(images[chosen], seed, places)
        _, logits = network(shifted.to(device))
        optimizer.zero_grad()
        F.cross_entropy(logits, labels[chosen].to(device)).backward()
        optimizer.step()
        schedule.step()


def _shift(images: Tensor, seed: int, places: NDArray[np.int64]) -> Tensor:
    """Each image moved by up to a 24th of its size each way, its border repeated."""
    n, _, height, width = images.shape
    reach = round(height / 24)
    drawn = words(seed, "classifier.shift", places, 2) % np.uint64(2 * reach + 1)
    offset = torch.from_numpy(drawn.astype(np.int64)) - reach  # [n, 2]
    rows = (torch.arange(height) + offset[:, :1]).clamp(0, height - 1)
    columns = (torch.arange(width) + offset[:, 1:]).clamp(0, width - 1)
    moved = images[torch.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None, :]]  # [n, h, w, c]
    return moved.permute(0, 3, 1, 2)


@torch.no_grad()
def _accuracy(network: Classifier, images: Tensor, labels: Tensor) -> float:
    """Fraction of the images that the network gives their label."""
    device = next(network.parameters()).device
    right = sum(
        int((network(some.to(device))[1].argmax(dim=1).cpu() == wanted).sum())
        for some, wanted in zip(images.split(512), labels.split(512), strict=True)
    )
    return right / len(images)
