"""LPIPS (Zhang et al., arXiv 1801.03924): features of VGG16 whose squared distance is how unlike two images look."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bigtrain.evaluation.extractors.base import Extractor, hash_weights
from bigtrain.evaluation.extractors.encoders import ENCODERS
from bigtrain.evaluation.extractors.weights import Published, load_weights

#: What the channels of each layer count: version 0.1 of the authors, as torch-fidelity keeps it.
CHANNELS = Published("https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-vgg16-lpips.pth")
#: Behind which layers of VGG16 it looks: relu1_2, relu2_2, relu3_3, relu4_3 and relu5_3.
LAYERS = (3, 8, 15, 22, 29)
SMALLEST, LARGEST = 16, 256  # pixels: below, the last layer is empty; what is above, StyleGAN makes smaller


class LpipsExtractor(Extractor):
    """VGG16's LPIPS features. They are as long as images are large, so only distances are taken of them.

    LPIPS is Σ_layers mean_pixels Σ_c w_c·(â_c - b̂_c)² of the activations â and b̂ of two images, scaled to length one at
    each pixel, so the features are √(w_c / pixels)·â_c.

    Args:
        resolution: of the images that it will be given.

    Raises:
        OSError: if the weights are not there and cannot be downloaded; the message says which file to put where.
        ValueError: if they are not of this network, or the images are too small for it.
    """

    channels = 3
    num_classes = 0
    name = "lpips-vgg16"
    resize, quantisation = f"mean over areas to {LARGEST} if larger", "uint8"
    mean: Tensor
    deviation: Tensor

    def __init__(self, resolution: int) -> None:
        super().__init__()
        if resolution < SMALLEST:
            raise ValueError(f"LPIPS needs images of at least {SMALLEST} pixels; these have {resolution}")
        network, channels = load_weights(None, ENCODERS["vgg16"].published), load_weights(None, CHANNELS)
        try:
            self.network = _vgg16(network.tensors)
            weights = [channels.tensors[f"lin{i}.model.1.weight"].flatten() for i in range(len(LAYERS))]
        except (KeyError, RuntimeError) as error:
            raise ValueError(
                f"weights {network.source!r} and {channels.source!r} are not those of LPIPS: {error}"
            ) from error
        if any((weight < 0).any() for weight in weights):
            raise ValueError(f"weights {channels.source!r} are not those of LPIPS: some are negative")
        self.weights = nn.ParameterList(weight.sqrt()[:, None, None] for weight in weights)
        self.register_buffer("mean", torch.tensor([-0.030, -0.088, -0.188])[:, None, None])
        self.register_buffer("deviation", torch.tensor([0.458, 0.448, 0.450])[:, None, None])
        self.weight_hash = hash_weights(self.state_dict())
        self.requires_grad_(False).eval()
        blank = torch.zeros(1, 3, resolution, resolution, dtype=torch.uint8)
        self.feature_dim = self.measure(blank).features.shape[1]

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = images.to(self.mean.dtype)
        if x.shape[-1] > LARGEST:
            x = F.interpolate(x, (LARGEST, LARGEST), mode="area")
        x = (x / 127.5 - 1 - self.mean) / self.deviation
        found, first = [], 0
        for last, weight in zip(LAYERS, self.weights, strict=True):
            x = self.network[first : last + 1](x)
            first = last + 1
            unit = x / (x.square().sum(dim=1, keepdim=True).sqrt() + 1e-10)
            found.append((unit * weight / x[0, 0].numel() ** 0.5).flatten(1))
        features = torch.cat(found, dim=1)
        return features, features.new_empty(len(features), 0)


def _vgg16(state: dict[str, Tensor]) -> nn.Sequential:
    """Its convolutions up to the last ReLU."""
    from torchvision.models import vgg16  # noqa: PLC0415 (slow)

    with torch.device("meta"):
        network = vgg16().features[: LAYERS[-1] + 1]
    wanted = "features."
    network.load_state_dict(
        {name.removeprefix(wanted): value for name, value in state.items() if name.startswith(wanted)}, assign=True
    )
    return network
