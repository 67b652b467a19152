"""From uint8 images to the features and logits that every metric is computed from, in one pass."""

from __future__ import annotations

import contextlib
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn


def hash_weights(state: Mapping[str, Tensor]) -> str:
    """The first 12 hex digits of the SHA-256 over names, types, shapes and values, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:12]


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


class Extractor(nn.Module, ABC):
    """A fixed network whose features and logits are measured, always in eval mode and without gradients.

    Attributes:
        name: of the network, as scores print it.
        weight_hash: the first 12 hex digits of the SHA-256 of its weights; part of the name of every cached statistic.
        channels: of the images that it takes; grey images are repeated to three.
        feature_dim: length d of its features.
        num_classes: length k of its logits.
        recognises_labels: whether its classes are those of the data, so that it can tell a right label from a wrong.
        holdout_accuracy: of a network that was trained here; None for published weights.
        resize, quantisation: what it does to images before the first layer, in words.
    """

    name: str
    weight_hash: str
    channels: int
    feature_dim: int
    num_classes: int
    recognises_labels: bool = False
    holdout_accuracy: float | None = None
    resize: str
    quantisation: str

    @abstractmethod
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features [n, d] and logits [n, k] of uint8 images [n, channels, h, w]."""

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def protocol(self) -> dict[str, str]:
        """How it treats images, for the protocol of a score."""
        return {"resize": self.resize, "quantisation": self.quantisation}

    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features, float32 [n, d], and logits, float32 [n, k], on the extractor's device.

        An image's features depend in the last digits on the number of images beside it: give always the same number.

        Args:
            images: uint8 [n, c, h, w]; c is the extractor's number of channels, or 1.

        Raises:
            ValueError: if they are of another type or shape.
        """
        if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1] not in (1, self.channels):
            raise ValueError(
                f"images of type {images.dtype} and shape {list(images.shape)} must be uint8 [n, c, h, w] "
                f"with c = {self.channels} or 1 for the extractor {self.name!r}"
            )
        self.eval()  # whatever mode the module around it has been put in
        with exact_arithmetic(self.device):
            features, logits = self(images.to(self.device).expand(-1, self.channels, -1, -1))
        return features.float(), logits.float()

    def padded_features(self, images: Tensor, batch_size: int) -> tuple[Tensor, Tensor]:
        """As `features`, with the last image repeated up to `batch_size` on the way and dropped from the result."""
        n = len(images)
        last = torch.arange(batch_size, device=images.device).clamp(max=n - 1)
        features, logits = self.features(images[last])
        return features[:n], logits[:n]
