"""DCGAN (Radford et al., "Unsupervised Representation Learning with Deep Convolutional GANs", arXiv 1511.06434).

Kernels are of 4 × 4 and batch norm's gains ~ N(1, 0.02²) as in dcgan.torch, by one of its authors (the paper's figure 1
has 5 × 5), and there are no biases, as in PyTorch's example. Latents are normal, not uniform.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bigtrain.networks.blocks import PLAIN, Norm
from bigtrain.networks.conditioning import Conditioning, LabelledDiscriminator, OneHotGenerator
from bigtrain.networks.initialisers import initialise
from bigtrain.networks.layers import BatchNorm2d, ConditionalBatchNorm2d

LEAK = 0.2
RESOLUTIONS = [16, 32, 64, 128]


def _widths(resolution: int, width: int) -> list[int]:
    """Channels at each resolution from 4² up to half of the images': `width` at the last, twice as many at each before.

    512, 256, 128, 64 for 64² and a width of 64.
    """
    if resolution not in RESOLUTIONS:
        raise ValueError(f"resolution (={resolution}) of DCGAN must be one of {RESOLUTIONS}")
    if width < 1:
        raise ValueError(f"width (={width}) of DCGAN must be at least 1")
    blocks = resolution.bit_length() - 3
    return [width << i for i in reversed(range(blocks))]


def _initialise(network: nn.Module) -> None:
    initialise(network, "normal")
    for module in network.modules():
        if isinstance(module, BatchNorm2d):
            nn.init.normal_(module.weight, 1, 0.02)


class _GeneratorBlock(nn.Module):
    """Batch norm, ReLU, and a transposed convolution that doubles the resolution."""

    def __init__(self, in_channels: int, out_channels: int, norm: Norm) -> None:
        super().__init__()
        self.norm = norm(in_channels)
        self.conv = nn.ConvTranspose2d(in_channels, out_channels, 4, stride=2, padding=1, bias=False)

    def forward(self, x: Tensor, *condition: Tensor) -> Tensor:
        return self.conv(F.relu(self.norm(x, *condition)))


class DCGANGenerator(OneHotGenerator):
    """The generator.

    Args:
        resolution: 16, 32, 64 or 128.
        image_channels: 1 or 3.
        num_classes: 0 for an unconditional generator.
        latent_dim: of the latent.
        width: channels at half of the images' resolution; twice as many at each before it.
        conditioning: by `concatenation`, the label stands one-hot beside the latent; by `batch_norm`, each class has
            gains and biases of its own.
    """

    def __init__(
        self,
        resolution: int,
        image_channels: int = 3,
        num_classes: int = 0,
        latent_dim: int = 100,
        width: int = 64,
        conditioning: Literal["concatenation", "batch_norm"] = "concatenation",
    ) -> None:
        super().__init__(resolution, image_channels, num_classes, latent_dim)
        if conditioning not in ("concatenation", "batch_norm"):
            raise ValueError(f"conditioning (={conditioning!r}) must be one of ['batch_norm', 'concatenation']")
        widths = _widths(resolution, width)
        self.conditioning = conditioning if num_classes else "none"
        concatenated = num_classes if self.conditioning == "concatenation" else 0
        norm: Norm = BatchNorm2d
        if self.conditioning == "batch_norm":
            norm = partial(ConditionalBatchNorm2d, condition_dim=num_classes, sn_eps=None)
        self.first = nn.Linear(latent_dim + concatenated, widths[0] * 16, bias=False)
        self.blocks = nn.ModuleList(_GeneratorBlock(a, b, norm) for a, b in pairwise([*widths, image_channels]))
        _initialise(self)

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        seen = [self.embed_label(self.needed_label(label))] if self.num_classes else []
        condition = seen if self.conditioning == "batch_norm" else []
        if self.conditioning == "concatenation":
            latent = torch.cat((latent, *seen), dim=1)  # [n, latent_dim + num_classes]
        x = self.first(latent).unflatten(1, (-1, 4, 4))  # [n, channels, 4, 4]
        for block in self.blocks:
            x = self.through(block, x, *condition)
        return torch.tanh(x)


class _DiscriminatorBlock(nn.Module):
    """A convolution that halves the resolution, batch norm unless it sees the images, and leaky ReLU."""

    def __init__(self, in_channels: int, out_channels: int, first: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 4, stride=2, padding=1, bias=False)
        self.norm = nn.Identity() if first else BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.norm(self.conv(x)), LEAK)


class DCGANDiscriminator(LabelledDiscriminator):
    """The discriminator: its last features are those of all pixels at 4².

    Batch norm makes the logit of an image depend on the batch around it, which a gradient penalty does not allow for.

    Args:
        resolution: 16, 32, 64 or 128.
        image_channels: 1 or 3.
        num_classes: 0 for an unconditional discriminator.
        width: channels at half of the images' resolution; twice as many at each after it.
        conditioning: what it does with the label: `projection`, `concatenation`, `classifier` or `none`.
    """

    def __init__(
        self,
        resolution: int,
        image_channels: int = 3,
        num_classes: int = 0,
        width: int = 64,
        conditioning: Conditioning = "projection",
    ) -> None:
        super().__init__(resolution, image_channels, num_classes, conditioning)
        widths = _widths(resolution, width)[::-1]
        self.blocks = nn.ModuleList(
            _DiscriminatorBlock(a, b, first=i == 0)
            for i, (a, b) in enumerate(self._block_channels([image_channels, *widths]))
        )
        self._make_head(widths[-1] * 16, PLAIN._replace(linear=partial(nn.Linear, bias=False)))
        _initialise(self)

    def forward(self, images: Tensor, label: Tensor | None = None) -> Tensor:
        x = images
        for index, block in enumerate(self.blocks):
            x = self.through(block, self._beside_label(index, x, label))
        return self._logits(x.flatten(1), label)  # [n, channels · 16]
