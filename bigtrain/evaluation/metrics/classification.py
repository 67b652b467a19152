"""What a classifier that has seen only fakes is worth among real images."""

from __future__ import annotations

import torch
from torch import Tensor

from bigtrain.evaluation.classifier import train_classifier
from bigtrain.evaluation.statistics import RecognitionCount


def classification_accuracy(
    fake: Tensor,
    fake_labels: Tensor,
    real: Tensor,
    real_labels: Tensor,
    num_classes: int,
    device: torch.device | str = "cpu",
    max_steps: int = 1500,
) -> RecognitionCount:
    """Trains the classifier on fakes and counts the reals that it gives their label: Ravuri and Vinyals, 1905.10887.

    Args:
        fake, real: uint8 images [n, c, h, w] and [m, c, h, w] of one size.
        fake_labels, real_labels: int64 [n] and [m].
        num_classes: of the labels.
        device: of the training.
        max_steps: of it.

    Raises:
        ValueError: if there are fewer than 20 fakes.
    """
    channels, resolution = fake.shape[1:3]
    trained = train_classifier(
        [(fake, fake_labels)], num_classes, resolution, channels, trained_on="fakes", max_steps=max_steps, device=device
    )
    counts = RecognitionCount(num_classes)
    for images, labels in zip(real.split(500), real_labels.split(500), strict=True):
        counts.update(trained.measure(images).logits.cpu(), labels.cpu())
    return counts
