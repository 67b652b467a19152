"""A convolutional classifier of images of any size, small enough to be trained on the side."""

from __future__ import annotations

import math

from torch import Tensor, nn


class Classifier(nn.Module):
    """Convolutions with stride 2 down to 4x4 or less and one more, then a global average; the head makes logits.

    Args:
        resolution: of the images in pixels, at least 4.
        channels: of the images.
        num_classes: of the logits.
    """

    feature_dim = 128

    def __init__(self, resolution: int, channels: int, num_classes: int) -> None:
        super().__init__()
        if resolution < 4 or channels < 1 or num_classes < 2:
            raise ValueError(
                f"a classifier needs resolution (={resolution}) of at least 4, channels (={channels}) of at least 1 "
                f"and num_classes (={num_classes}) of at least 2"
            )
        halvings = max(1, math.ceil(math.log2(resolution / 4)))
        widths = [max(32, self.feature_dim >> left) for left in reversed(range(halvings))]
        stages = [_stage(*pair, stride=2) for pair in zip([channels, *widths[:-1]], widths, strict=True)]
        self.stages = nn.Sequential(*stages, _stage(widths[-1], self.feature_dim, stride=1))
        self.head = nn.Linear(self.feature_dim, num_classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features [n, 128] and logits [n, num_classes] of uint8 images [n, channels, h, w]."""
        features = self.stages(images.float() / 127.5 - 1).mean(dim=(2, 3))
        return features, self.head(features)


def _stage(channels: int, width: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(channels, width, kernel_size=3, stride=stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True))
