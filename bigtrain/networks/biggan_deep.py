"""BigGAN-deep (Brock et al., "Large Scale GAN Training for High Fidelity Natural Image Synthesis", arXiv 1809.11096).

Appendix B and tables 7 to 9: blocks with a bottleneck, of which `depth` stand at each resolution, and skips that keep
their input as it is. The generator's last block of a resolution doubles it; the discriminator's first one halves it.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bigtrain.networks.blocks import self_attention, spectral
from bigtrain.networks.conditioning import LabelledDiscriminator, SharedEmbeddingGenerator
from bigtrain.networks.initialisers import Init, initialise
from bigtrain.networks.layers import BatchNorm2d, ConditionalBatchNorm2d, SpectralConv2d, SpectralLinear
from bigtrain.networks.layouts import DISCRIMINATOR_WIDTHS, GENERATOR_WIDTHS, layout

#: A block has a quarter of its channels inside.
BOTTLENECK = 4


def _check_sizes(width: int, depth: int) -> None:
    if width < BOTTLENECK:
        raise ValueError(f"width (={width}) of BigGAN-deep must be at least {BOTTLENECK}: blocks narrow to a quarter")
    if depth < 1:
        raise ValueError(f"depth (={depth}) of BigGAN-deep must be at least 1")


class _GeneratorBlock(nn.Module):
    """Four times norm, ReLU and a convolution (1 × 1, 3 × 3, 3 × 3, 1 × 1), beside a skip that drops channels."""

    def __init__(
        self, in_channels: int, out_channels: int, up: bool, condition_dim: int, bn_eps: float, sn_eps: float
    ) -> None:
        super().__init__()
        hidden = in_channels // BOTTLENECK
        self.norm1 = ConditionalBatchNorm2d(in_channels, condition_dim, bn_eps, sn_eps)
        self.conv1 = SpectralConv2d(in_channels, hidden, 1, eps=sn_eps)
        self.norm2 = ConditionalBatchNorm2d(hidden, condition_dim, bn_eps, sn_eps)
        self.conv2 = SpectralConv2d(hidden, hidden, 3, eps=sn_eps)
        self.norm3 = ConditionalBatchNorm2d(hidden, condition_dim, bn_eps, sn_eps)
        self.conv3 = SpectralConv2d(hidden, hidden, 3, eps=sn_eps)
        self.norm4 = ConditionalBatchNorm2d(hidden, condition_dim, bn_eps, sn_eps)
        self.conv4 = SpectralConv2d(hidden, out_channels, 1, eps=sn_eps)
        self.out_channels, self.up = out_channels, up

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        h = self.conv1(F.relu(self.norm1(x, condition)))
        h = F.relu(self.norm2(h, condition))
        x = x[:, : self.out_channels]
        if self.up:
            h, x = (F.interpolate(tensor, scale_factor=2, mode="nearest") for tensor in (h, x))
        h = self.conv3(F.relu(self.norm3(self.conv2(h), condition)))
        return x + self.conv4(F.relu(self.norm4(h, condition)))


class BigGANDeepGenerator(SharedEmbeddingGenerator):
    """The generator. The first layer and all batch norms see the whole latent beside the embedding of the class.

    Args:
        resolution: 32, 64, 128, 256 or 512.
        image_channels: 1 or 3.
        num_classes: 0 for an unconditional generator, whose condition is the latent alone.
        latent_dim: of the latent.
        shared_dim: of the embedding of the classes.
        width: the number that the channels are multiples of (`ch`).
        depth: blocks at each resolution.
        attention: resolutions at which self-attention stands, after the block that doubles to them.
        init: of the weights.
        bn_eps: ε of batch norm.
        sn_eps: ε of spectral norm.
    """

    def __init__(
        self,
        resolution: int,
        image_channels: int = 3,
        num_classes: int = 0,
        latent_dim: int = 128,
        shared_dim: int = 128,
        width: int = 128,
        depth: int = 2,
        attention: list[int] = [64],  # noqa: B006 (read only; the configuration shows it)
        init: Init = "orthogonal",
        bn_eps: float = 1e-5,
        sn_eps: float = 1e-6,
    ) -> None:
        super().__init__(resolution, image_channels, num_classes, latent_dim)
        _check_sizes(width, depth)
        channels = [width * multiple for multiple in layout(GENERATOR_WIDTHS, resolution)]
        resolutions = [4 << i for i in range(len(channels))]
        condition_dim = latent_dim + (shared_dim if num_classes else 0)
        self.shared = nn.Embedding(num_classes, shared_dim) if num_classes else None
        self.first = SpectralLinear(condition_dim, channels[0] * 16, eps=sn_eps)
        self.blocks = nn.ModuleList(
            _GeneratorBlock(a, b if last else a, last, condition_dim, bn_eps, sn_eps)
            for a, b in pairwise(channels)
            for last in [False] * (depth - 1) + [True]
        )
        self.attention = self_attention(attention, dict(zip(resolutions[1:], channels[1:], strict=True)), sn_eps)
        #: The attention's resolution by the number of blocks before it.
        self.attention_after = {depth * resolutions.index(at): str(at) for at in attention}
        self.last_norm = BatchNorm2d(channels[-1], eps=bn_eps)
        self.last = SpectralConv2d(channels[-1], image_channels, 3, eps=sn_eps)
        self._initialise(init)

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        condition = torch.cat([latent, *self._seen_of(label)], dim=1)  # [n, condition_dim]
        x = self.first(condition).reshape(len(latent), -1, 4, 4)  # [n, channels, 4, 4]
        for count, block in enumerate(self.blocks, start=1):
            x = self.through(block, x, condition)
            if count in self.attention_after:
                x = self.attention[self.attention_after[count]](x)
        return torch.tanh(self.last(F.relu(self.last_norm(x))))


class _DiscriminatorBlock(nn.Module):
    """Four times ReLU and a convolution (1 × 1, 3 × 3, 3 × 3, 1 × 1), beside a skip that adds channels to its input."""

    def __init__(self, in_channels: int, out_channels: int, down: bool, eps: float) -> None:
        super().__init__()
        hidden = out_channels // BOTTLENECK
        self.conv1 = SpectralConv2d(in_channels, hidden, 1, eps=eps)
        self.conv2 = SpectralConv2d(hidden, hidden, 3, eps=eps)
        self.conv3 = SpectralConv2d(hidden, hidden, 3, eps=eps)
        self.conv4 = SpectralConv2d(hidden, out_channels, 1, eps=eps)
        added = out_channels - in_channels
        self.added = SpectralConv2d(in_channels, added, 1, eps=eps) if added else None
        self.down = down

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv2(F.relu(self.conv1(F.relu(x))))
        h = F.relu(self.conv3(F.relu(h)))
        if self.down:  # of the residual between ReLU and the last convolution
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        if self.added is not None:
            x = torch.cat((x, self.added(x)), dim=1)
        return x + self.conv4(h)


class BigGANDeepDiscriminator(LabelledDiscriminator):
    """The projection discriminator, with a convolution before its blocks.

    Args:
        resolution: 32, 64, 128, 256 or 512.
        image_channels: 1 or 3.
        num_classes: 0 for an unconditional discriminator.
        width: the number that the channels are multiples of (`ch`).
        depth: blocks at each resolution.
        attention: resolutions at which self-attention stands, after `depth` blocks there.
        init: of the weights.
        sn_eps: ε of spectral norm.
    """

    def __init__(
        self,
        resolution: int,
        image_channels: int = 3,
        num_classes: int = 0,
        width: int = 128,
        depth: int = 2,
        attention: list[int] = [64],  # noqa: B006
        init: Init = "orthogonal",
        sn_eps: float = 1e-6,
    ) -> None:
        super().__init__(resolution, image_channels, num_classes, "projection")
        _check_sizes(width, depth)
        multiples, downs = layout(DISCRIMINATOR_WIDTHS, resolution)
        channels = [width * multiple for multiple in multiples]
        resolutions = [resolution >> i for i in range(downs + 1)]
        self.first = SpectralConv2d(image_channels, channels[0], 3, eps=sn_eps)
        self.blocks = nn.ModuleList(
            _DiscriminatorBlock(a if first else b, b, down=first and i < downs, eps=sn_eps)
            for i, (a, b) in enumerate(pairwise(channels))
            for first in [True] + [False] * (depth - 1)
        )
        self.attention = self_attention(attention, dict(zip(resolutions[1:], channels[1:], strict=False)), sn_eps)
        #: The attention's resolution by the number of blocks before it.
        self.attention_after = {depth * resolutions.index(at): str(at) for at in attention}
        self._make_head(channels[-1], spectral(sn_eps))
        initialise(self, init)

    def forward(self, images: Tensor, label: Tensor | None = None) -> Tensor:
        x = self.first(images)
        for count, block in enumerate(self.blocks, start=1):
            x = self.through(block, x)
            if count in self.attention_after:
                x = self.attention[self.attention_after[count]](x)
        return self._logits(F.relu(x).sum(dim=(2, 3)), label)
