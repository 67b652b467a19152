"""BigGAN (Brock et al., "Large Scale GAN Training for High Fidelity Natural Image Synthesis", arXiv 1809.11096).

Block layouts of appendix B and of the authors' PyTorch code; 32² is the layout they use for CIFAR-10.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bigtrain.networks.base import Discriminator, Generator, Network
from bigtrain.networks.layers import (
    BatchNorm2d,
    ConditionalBatchNorm2d,
    SelfAttention2d,
    SpectralConv2d,
    SpectralEmbedding,
    SpectralLinear,
    SpectralNorm,
)

Init = Literal["orthogonal", "normal", "xavier"]
AnyNetwork = TypeVar("AnyNetwork", bound=Network)

#: Multiples of `width` at each resolution from 4² upwards.
GENERATOR_WIDTHS = {
    32: (4, 4, 4, 4),
    64: (16, 16, 8, 4, 2),
    128: (16, 16, 8, 4, 2, 1),
    256: (16, 16, 8, 8, 4, 2, 1),
    512: (16, 16, 8, 8, 4, 2, 1, 1),
}
#: Multiples of `width` after each block, and how many of the blocks halve the resolution.
DISCRIMINATOR_WIDTHS = {
    32: ((4, 4, 4, 4), 2),
    64: ((1, 2, 4, 8, 16), 4),
    128: ((1, 2, 4, 8, 16, 16), 5),
    256: ((1, 2, 4, 8, 8, 16, 16), 6),
    512: ((1, 1, 2, 4, 8, 8, 16, 16), 7),
}


def _initialise(network: nn.Module, init: Init) -> None:
    """Draws every weight under spectral norm by the initialiser of that name."""
    draw: dict[str, Callable[[Tensor], Tensor]] = {
        "orthogonal": nn.init.orthogonal_,
        "normal": _normal,
        "xavier": nn.init.xavier_uniform_,
    }
    if init not in draw:
        raise ValueError(f"init (={init!r}) must be one of {sorted(draw)}")
    for module in network.modules():
        if isinstance(module, SpectralNorm):
            draw[init](module.weight)


def _normal(weight: Tensor) -> Tensor:
    return nn.init.normal_(weight, std=0.02)


def _layout(table: dict[int, tuple], resolution: int) -> tuple:
    if resolution not in table:
        raise ValueError(f"resolution (={resolution}) of BigGAN must be one of {sorted(table)}")
    return table[resolution]


def _check_attention(attention: list[int], resolutions: list[int]) -> None:
    unknown = sorted(set(attention) - set(resolutions))
    if unknown:
        raise ValueError(f"attention (={attention}) must name resolutions among {sorted(set(resolutions))}")


class _GeneratorBlock(nn.Module):
    """Norm, ReLU, upsample, convolution, norm, ReLU, convolution, beside an upsampled 1 × 1 shortcut."""

    def __init__(self, in_channels: int, out_channels: int, condition_dim: int, bn_eps: float, sn_eps: float) -> None:
        super().__init__()
        self.norm1 = _batch_norm(in_channels, condition_dim, bn_eps, sn_eps)
        self.conv1 = SpectralConv2d(in_channels, out_channels, 3, eps=sn_eps)
        self.norm2 = _batch_norm(out_channels, condition_dim, bn_eps, sn_eps)
        self.conv2 = SpectralConv2d(out_channels, out_channels, 3, eps=sn_eps)
        self.shortcut = SpectralConv2d(in_channels, out_channels, 1, eps=sn_eps)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        h = F.interpolate(F.relu(self.norm1(x, condition)), scale_factor=2, mode="nearest")
        h = self.conv2(F.relu(self.norm2(self.conv1(h), condition)))
        return h + F.interpolate(self.shortcut(x), scale_factor=2, mode="nearest")  # 1 × 1 first: it is the same


def _batch_norm(channels: int, condition_dim: int, bn_eps: float, sn_eps: float) -> nn.Module:
    if condition_dim:
        return ConditionalBatchNorm2d(channels, condition_dim, bn_eps, sn_eps)
    return BatchNorm2d(channels, eps=bn_eps)


class BigGANGenerator(Generator):
    """The generator: class-conditional batch norm by a shared embedding and hierarchical latents.

    Args:
        resolution: 32, 64, 128, 256 or 512.
        image_channels: 1 or 3.
        num_classes: 0 for an unconditional generator, whose batch norms see their part of the latent only.
        latent_dim: with `hierarchical`, a multiple of the number of blocks + 1.
        shared_dim: of the embedding of the classes that all blocks share.
        width: the number that the channels are multiples of (`ch`).
        hierarchical: each block's batch norms see a part of the latent of their own; otherwise the first layer sees
            the whole latent and the others none.
        attention: resolutions after whose block self-attention stands.
        init: of the weights.
        bn_eps: ε of batch norm.
        sn_eps: ε of spectral norm.
    """

    def __init__(
        self,
        resolution: int,
        image_channels: int = 3,
        num_classes: int = 0,
        latent_dim: int = 120,
        shared_dim: int = 128,
        width: int = 96,
        hierarchical: bool = True,
        attention: list[int] = [64],  # noqa: B006 (read only; the configuration shows it)
        init: Init = "orthogonal",
        bn_eps: float = 1e-5,
        sn_eps: float = 1e-6,
    ) -> None:
        super().__init__(resolution, image_channels, num_classes, latent_dim)
        channels = [width * multiple for multiple in _layout(GENERATOR_WIDTHS, resolution)]
        num_blocks = len(channels) - 1
        resolutions = [8 << i for i in range(num_blocks)]
        _check_attention(attention, resolutions)
        if hierarchical and latent_dim % (num_blocks + 1):
            raise ValueError(
                f"latent_dim (={latent_dim}) must be a multiple of {num_blocks + 1} (blocks + 1) at {resolution}² "
                f"with hierarchical latents, such as {latent_dim // (num_blocks + 1) * (num_blocks + 1)}"
            )
        self.chunk = latent_dim // (num_blocks + 1) if hierarchical else latent_dim
        self.hierarchical = hierarchical
        condition_dim = (shared_dim if num_classes else 0) + (self.chunk if hierarchical else 0)
        self.shared = nn.Embedding(num_classes, shared_dim) if num_classes else None
        self.first = SpectralLinear(self.chunk, channels[0] * 16, eps=sn_eps)
        self.blocks = nn.ModuleList(_GeneratorBlock(a, b, condition_dim, bn_eps, sn_eps) for a, b in pairwise(channels))
        self.attention = nn.ModuleDict(
            {str(at): SelfAttention2d(channels[resolutions.index(at) + 1], sn_eps) for at in attention}
        )
        self.last_norm = BatchNorm2d(channels[-1], eps=bn_eps)
        self.last = SpectralConv2d(channels[-1], image_channels, 3, eps=sn_eps)
        _initialise(self, init)
        if self.shared is not None:
            nn.init.orthogonal_(self.shared.weight) if init == "orthogonal" else _normal(self.shared.weight)

    def conditions(self, latent: Tensor, label: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """What the first layer sees, and what the batch norms of each block see."""
        parts = list(latent.split(self.chunk, dim=1)) if self.hierarchical else [latent]
        shared = [] if self.shared is None else [self.shared(self.needed_label(label))]
        seen = [shared + ([part] if self.hierarchical else []) for part in (parts[1:] or [latent] * len(self.blocks))]
        return parts[0], [torch.cat(tensors, dim=1) if tensors else latent for tensors in seen]

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        first, conditions = self.conditions(latent, label)
        x = self.first(first).reshape(len(latent), -1, 4, 4)  # [n, channels, 4, 4]
        for block, condition in zip(self.blocks, conditions, strict=True):
            x = self.through(block, x, condition)
            if str(x.shape[-1]) in self.attention:
                x = self.attention[str(x.shape[-1])](x)
        return torch.tanh(self.last(F.relu(self.last_norm(x))))


class _DiscriminatorBlock(nn.Module):
    """ReLU, convolution, ReLU, convolution, pooling, beside a shortcut; the first block has no ReLU before it."""

    def __init__(self, in_channels: int, out_channels: int, first: bool, down: bool, eps: float) -> None:
        super().__init__()
        self.conv1 = SpectralConv2d(in_channels, out_channels, 3, eps=eps)
        self.conv2 = SpectralConv2d(out_channels, out_channels, 3, eps=eps)
        learned = down or in_channels != out_channels
        self.shortcut = SpectralConv2d(in_channels, out_channels, 1, eps=eps) if learned else nn.Identity()
        self.first, self.down = first, down

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv2(F.relu(self.conv1(x if self.first else F.relu(x))))
        if self.down:  # pooling and the 1 × 1 shortcut commute
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        return h + self.shortcut(x)


class BigGANDiscriminator(Discriminator):
    """The projection discriminator: logit(h) + embedding(label)·h, where h sums the last features over the pixels.

    Args:
        resolution: 32, 64, 128, 256 or 512.
        image_channels: 1 or 3.
        num_classes: 0 for an unconditional discriminator.
        width: the number that the channels are multiples of (`ch`).
        attention: resolutions after whose block self-attention stands.
        init: of the weights.
        sn_eps: ε of spectral norm.
    """

    def __init__(
        self,
        resolution: int,
        image_channels: int = 3,
        num_classes: int = 0,
        width: int = 96,
        attention: list[int] = [64],  # noqa: B006
        init: Init = "orthogonal",
        sn_eps: float = 1e-6,
    ) -> None:
        super().__init__(resolution, image_channels, num_classes)
        multiples, downs = _layout(DISCRIMINATOR_WIDTHS, resolution)
        channels = [image_channels, *(width * multiple for multiple in multiples)]
        _check_attention(attention, [resolution >> (i + 1) for i in range(downs)])
        self.blocks = nn.ModuleList(
            _DiscriminatorBlock(a, b, first=i == 0, down=i < downs, eps=sn_eps)
            for i, (a, b) in enumerate(pairwise(channels))
        )
        self.attention = nn.ModuleDict(
            {str(at): SelfAttention2d(channels[_block_at(resolution, at)], sn_eps) for at in attention}
        )
        self.logit = SpectralLinear(channels[-1], 1, eps=sn_eps)
        self.projection = SpectralEmbedding(num_classes, channels[-1], eps=sn_eps) if num_classes else None
        _initialise(self, init)

    def forward(self, images: Tensor, label: Tensor | None = None) -> Tensor:
        x = images
        for block in self.blocks:
            x = self.through(block, x)
            if block.down and str(x.shape[-1]) in self.attention:
                x = self.attention[str(x.shape[-1])](x)
        features = F.relu(x).sum(dim=(2, 3))  # [n, channels]
        logits = self.logit(features).squeeze(1)
        if self.projection is not None:
            logits = logits + (self.projection(self.needed_label(label)) * features).sum(dim=1)
        return logits


def _block_at(resolution: int, attention: int) -> int:
    """How many blocks stand before the attention at that resolution."""
    return (resolution // attention).bit_length() - 1
