"""What every extractor is: a fixed network, and arithmetic that does not depend on what is around it."""

from __future__ import annotations

import contextlib
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from bigtrain.randomness import words


def hash_weights(state: Mapping[str, Tensor]) -> str:
    """The first 12 hex digits of the SHA-256 over names, types, shapes and values, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:12]


def probe(channels: int, resolution: int) -> Tensor:
    """Two images of random pixels, uint8 [2, c, h, w], to see what a network makes of some."""
    pixels = words(0, "extractor.probe", range(2), channels * resolution**2)
    return torch.from_numpy(pixels.astype(np.uint8)).reshape(2, channels, resolution, resolution)


@contextlib.contextmanager
def exact_arithmetic(device: torch.device) -> Iterator[None]:
    """No gradients, no autocast, no TF32: what is measured must not depend on how the network is trained."""
    tf32, precision = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    try:
        torch.backends.cudnn.allow_tf32 = False
        torch.set_float32_matmul_precision("highest")
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.backends.cudnn.allow_tf32 = tf32
        torch.set_float32_matmul_precision(precision)


class Measures(NamedTuple):
    """What an extractor makes of n images."""

    features: Tensor  # [n, d]
    logits: Tensor  # [n, k]
    spatial: Tensor | None = None  # [n, s]: of a layer that still knows where in the image


class Extractor(nn.Module, ABC):
    """A fixed network whose features and logits are measured, always in eval mode and without gradients.

    Attributes:
        name: of the network, as scores print it.
        weight_hash: the first 12 hex digits of the SHA-256 of its weights; part of the name of every cached statistic.
        channels: of the images that it takes; grey images are repeated to three.
        feature_dim: length d of its features.
        num_classes: length k of its logits; 0 if it has none.
        spatial_dim: length of its spatial features; 0 if it has none.
        recognises_labels: whether its classes are those of the data, so that it can tell a right label from a wrong.
        holdout_accuracy: of a network that was trained here; None for published weights.
        resize, quantisation: what it does to images before the first layer, in words.
    """

    name: str
    weight_hash: str
    channels: int
    feature_dim: int
    num_classes: int
    spatial_dim: int = 0
    recognises_labels: bool = False
    holdout_accuracy: float | None = None
    resize: str
    quantisation: str
    _compiled: Callable[[Tensor], tuple[Tensor, ...]] | None = None

    @abstractmethod
    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Features [n, d], logits [n, k], and spatial features if it has any, of uint8 images [n, channels, h, w]."""

    def hasten(self, channels_last: bool = False, compiled: bool = False) -> None:
        """Changes how it computes, not what, but for the last digits of float32.

        Args:
            channels_last: keep weights and activations with the channels innermost, as fast convolutions want them.
            compiled: by torch.compile, at the first images; worth it for many of them.
        """
        if channels_last:
            self.to(memory_format=torch.channels_last)
        self._compiled = torch.compile(self.forward, dynamic=False) if compiled else None

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def protocol(self) -> dict[str, str]:
        """How it treats images, for the protocol of a score."""
        return {"resize": self.resize, "quantisation": self.quantisation}

    def measure(self, images: Tensor, batch_size: int | None = None) -> Measures:
        """What it makes of images, float32, on its device.

        An image's features depend in the last digits on the number of images beside it: give always the same number,
        or say to which it is to be padded.

        Args:
            images: uint8 [n, c, h, w]; c is the extractor's number of channels, or 1.
            batch_size: the last image is repeated up to so many, and what comes of them is dropped.

        Raises:
            ValueError: if they are of another type or shape, or what it makes of them is not finite.
        """
        if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1] not in (1, self.channels):
            raise ValueError(
                f"images of type {images.dtype} and shape {list(images.shape)} must be uint8 [n, c, h, w] "
                f"with c = {self.channels} or 1 for the extractor {self.name!r}"
            )
        n = len(images)
        if batch_size is not None:
            images = images[torch.arange(batch_size, device=images.device).clamp(max=n - 1)]
        self.eval()  # whatever mode the module around it has been put in
        with exact_arithmetic(self.device):
            found = (self._compiled or self)(images.to(self.device).expand(-1, self.channels, -1, -1))
        measures = Measures(*(output[:n].float() for output in found))
        if not all(output.isfinite().all() for output in measures if output is not None):
            raise ValueError(
                f"the extractor {self.name!r} makes numbers that are not finite (NaN or infinite) of images: scores of "
                "them would mean nothing"
            )
        return measures
