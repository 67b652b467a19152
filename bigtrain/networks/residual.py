"""What the residual networks of SNGAN, WGAN-GP and SAGAN have in common, and BigGAN's discriminator with them."""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bigtrain.networks.blocks import (
    DiscriminatorBlock,
    GeneratorBlock,
    Norm,
    attention_after_blocks,
    kind_of,
    self_attention,
)
from bigtrain.networks.conditioning import Conditioning, LabelledDiscriminator, OneHotGenerator
from bigtrain.networks.initialisers import Init, initialise
from bigtrain.networks.layers import BatchNorm2d, ConditionalBatchNorm2d

#: Of the 3 × 3 convolutions of the blocks in SNGAN's and WGAN-GP's code; 1 of all other layers, and of all of SAGAN's.
RESIDUAL_GAIN = math.sqrt(2)


def _scale(blocks: nn.ModuleList, residual_gain: float) -> None:
    """Multiplies the weights of the blocks' convolutions beside the shortcut."""
    with torch.no_grad():
        for name, weight in blocks.named_parameters():
            if name.endswith(("conv1.weight", "conv2.weight")):
                weight.mul_(residual_gain)


class ResidualGenerator(OneHotGenerator):
    """A dense layer to 4², then blocks that each double the resolution. Each class has gains and biases of its own.

    Args:
        resolution: of the images.
        image_channels: 1 or 3.
        num_classes: 0 for an unconditional generator.
        latent_dim: of the latent.
        channels: at each resolution from 4² upwards.
        attention: resolutions after whose block self-attention stands.
        residual_gain: what the initial 3 × 3 weights of the blocks are multiplied with.
        bn_eps: ε of batch norm.
        sn_eps: ε of spectral norm; None: there is none.
    """

    def __init__(
        self,
        resolution: int,
        image_channels: int,
        num_classes: int,
        latent_dim: int,
        channels: list[int],
        attention: list[int],
        residual_gain: float,
        bn_eps: float,
        sn_eps: float | None,
    ) -> None:
        super().__init__(resolution, image_channels, num_classes, latent_dim)
        kind = kind_of(sn_eps)
        norm: Norm = partial(BatchNorm2d, eps=bn_eps)
        if num_classes:
            norm = partial(ConditionalBatchNorm2d, condition_dim=num_classes, eps=bn_eps, sn_eps=None)
        self.first = kind.linear(latent_dim, channels[0] * 16)
        self.blocks = nn.ModuleList(GeneratorBlock(a, b, kind, norm) for a, b in pairwise(channels))
        self.attention = self_attention(attention, {8 << i: c for i, c in enumerate(channels[1:])}, sn_eps)
        self.last_norm = BatchNorm2d(channels[-1], eps=bn_eps)
        self.last = kind.conv(channels[-1], image_channels, 3)
        initialise(self, "xavier")
        _scale(self.blocks, residual_gain)

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        condition = [self.embed_label(self.needed_label(label))] if self.num_classes else []  # [n, num_classes]
        x = self.first(latent).unflatten(1, (-1, 4, 4))  # [n, channels, 4, 4]
        for block in self.blocks:
            x = self.through(block, x, *condition)
            if str(x.shape[-1]) in self.attention:
                x = self.attention[str(x.shape[-1])](x)
        return torch.tanh(self.last(F.relu(self.last_norm(x))))


class ResidualDiscriminator(LabelledDiscriminator):
    """Blocks, of which the first ones halve the resolution, then a pooling of all pixels.

    Args:
        resolution: of the images.
        image_channels: 1 or 3.
        num_classes: 0 for an unconditional discriminator.
        conditioning: what it does with the label: `projection`, `concatenation`, `classifier` or `none`.
        channels: after each block.
        downs: how many of the blocks halve the resolution.
        attention: resolutions after whose block self-attention stands.
        thin: whether a block's first convolution gives as many channels as the block is given, not as it gives.
        norm: before each ReLU in the blocks but the first one.
        pool: how features are brought together over the pixels.
        residual_gain: what the initial 3 × 3 weights of the blocks are multiplied with.
        sn_eps: ε of spectral norm; None: there is none.
        init: of the weights.
        attention_after: blocks, counted from 1, after which self-attention stands too.
    """

    def __init__(
        self,
        resolution: int,
        image_channels: int,
        num_classes: int,
        conditioning: Conditioning,
        channels: list[int],
        downs: int,
        attention: list[int],
        thin: bool,
        norm: Norm,
        pool: Literal["sum", "mean"],
        residual_gain: float,
        sn_eps: float | None,
        init: Init = "xavier",
        attention_after: list[int] = [],  # noqa: B006 (read only)
    ) -> None:
        super().__init__(resolution, image_channels, num_classes, conditioning)
        kind = kind_of(sn_eps)
        self.blocks = nn.ModuleList(
            DiscriminatorBlock(a, b, kind, first=i == 0, down=i < downs, thin=thin, norm=norm)
            for i, (a, b) in enumerate(self._block_channels([image_channels, *channels]))
        )
        self.attention = self_attention(attention, {resolution >> (i + 1): channels[i] for i in range(downs)}, sn_eps)
        self.attention.update(attention_after_blocks(attention_after, channels, sn_eps))
        self.pool = pool
        self._make_head(channels[-1], kind)
        initialise(self, init)
        _scale(self.blocks, residual_gain)

    def forward(self, images: Tensor, label: Tensor | None = None) -> Tensor:
        x = images
        for index, block in enumerate(self.blocks):
            x = self.through(block, self._beside_label(index, x, label))
            if block.down and str(x.shape[-1]) in self.attention:
                x = self.attention[str(x.shape[-1])](x)
            if f"after_{index + 1}" in self.attention:
                x = self.attention[f"after_{index + 1}"](x)
        x = F.relu(x)
        features = x.sum(dim=(2, 3)) if self.pool == "sum" else x.mean(dim=(2, 3))  # [n, channels]
        return self._logits(features, label)
