"""torch-fidelity's Inception-v3 with weights of chance, as a file, and images as its measures want them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3


class Unloaded(FeatureExtractorInceptionV3):
    """The network with the weights that the constructor draws."""

    def __init__(self) -> None:
        no_weights = io.BytesIO()
        torch.save({}, no_weights)
        no_weights.seek(0)
        super().__init__("unloaded", ["2048"], feature_extractor_weights_path=no_weights)

    def load_state_dict(self, *_: Any, **__: Any) -> None:
        pass


def random_weights(folder: Path) -> Path:
    """A file of weights that keep the variance, so that features and logits depend on the image.

    No running average is what it is before a training: what is left out or folded wrongly changes the features.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        network = Unloaded()
    for value in network.state_dict().values():
        if value.dim() > 1:
            value.normal_(0, (2 / value[0].numel()) ** 0.5, generator=generator)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for value in (layer.running_mean, layer.bias):
                value.normal_(0, 0.1, generator=generator)
            for value in (layer.running_var, layer.weight):
                value.uniform_(0.7, 1.4, generator=generator)
    torch.save(network.state_dict(), folder / "random.pth")
    return folder / "random.pth"


class Images(Dataset[Tensor]):
    """uint8 [n, 3, h, w], one by one."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]
