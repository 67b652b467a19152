"""BigGAN-deep (Brock et al., "Large Scale GAN Training for High Fidelity Natural Image Synthesis", arXiv 1809.11096).

Appendix B and tables 7 to 9: blocks with a bottleneck, of which `depth` stand at each resolution, and skips that keep
their input as it is. The generator's last block of a resolution doubles it; the discriminator's first one halves it.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bigtrain.networks.blocks import Kind, Norm, attention_after_blocks, kind_of, self_attention, spectral
from bigtrain.networks.conditioning import LabelledDiscriminator, SharedEmbeddingGenerator
from bigtrain.networks.initialisers import Init, initialise
from bigtrain.networks.layers import BatchNorm2d, ConditionalBatchNorm2d, SpectralConv2d
from bigtrain.networks.layouts import DISCRIMINATOR_WIDTHS, GENERATOR_WIDTHS, layout

#: A block has a quarter of its channels inside.
BOTTLENECK = 4


def _check_sizes(width: int, depth: int) -> None:
    if width < BOTTLENECK:
        raise ValueError(f"width (={width}) of BigGAN-deep must be at least {BOTTLENECK}: blocks narrow to a quarter")
    if depth < 1:
        raise ValueError(f"depth (={depth}) of BigGAN-deep must be at least 1")


def _check_attention(attention: list[int], resolutions: list[int]) -> None:
    if set(attention) - set(resolutions):
        raise ValueError(f"attention (={attention}) must name resolutions among {resolutions}")


class _GeneratorBlock(nn.Module):
    """Four times norm, ReLU and a convolution (1 × 1, 3 × 3, 3 × 3, 1 × 1), beside a skip that drops channels."""

    def __init__(self, in_channels: int, out_channels: int, up: bool, kind: Kind, norm: Norm) -> None:
        super().__init__()
        hidden = in_channels // BOTTLENECK
        self.norm1 = norm(in_channels)
        self.conv1 = kind.conv(in_channels, hidden, 1)
        self.norm2 = norm(hidden)
        self.conv2 = kind.conv(hidden, hidden, 3)
        self.norm3 = norm(hidden)
        self.conv3 = kind.conv(hidden, hidden, 3)
        self.norm4 = norm(hidden)
        self.conv4 = kind.conv(hidden, out_channels, 1)
        self.out_channels, self.up = out_channels, up

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        h = self.conv1(F.relu(self.norm1(x, condition)))
        h = F.relu(self.norm2(h, condition))
        x = x[:, : self.out_channels]
        if self.up:
            h, x = (F.interpolate(tensor, scale_factor=2, mode="nearest") for tensor in (h, x))
        h = self.conv3(F.relu(self.norm3(self.conv2(h), condition)))
        return x + self.conv4(F.relu(self.norm4(h, condition)))


class DeepGenerator(SharedEmbeddingGenerator):
    """BigGAN-deep's generator of any blocks: what `BigGANDeepGenerator` is at the paper's widths.

    The first layer and all batch norms see the whole latent beside the embedding of the class.

    Args:
        resolution: of the images.
        image_channels: 1 or 3.
        num_classes: 0 for an unconditional generator, whose condition is the latent alone.
        latent_dim: of the latent.
        shared_dim: of the embedding of the classes.
        channels: before the first block and after each; a block keeps the first of those that it is given.
        doubles: of each block, whether it doubles the resolution, which is 4² before the first.
        attention: after how many blocks self-attention stands.
        init: of the weights.
        bn_eps: ε of batch norm.
        sn_eps: ε of spectral norm; null: there is none.
        last_bn_eps: ε of the last batch norm; null for that of the others.
        gain_added: whether class-conditional batch norms add their gain (see `ConditionalBatchNorm2d`).

    Raises:
        ValueError: if the blocks do not fit together.
    """

    def __init__(
        self,
        resolution: int,
        image_channels: int,
        num_classes: int,
        latent_dim: int,
        shared_dim: int,
        channels: list[int],
        doubles: list[bool],
        attention: list[int],
        init: Init = "orthogonal",
        bn_eps: float = 1e-5,
        sn_eps: float | None = 1e-6,
        last_bn_eps: float | None = None,
        gain_added: bool = False,
    ) -> None:
        super().__init__(resolution, image_channels, num_classes, latent_dim)
        resolutions = _resolutions(resolution, channels, doubles)
        condition_dim = latent_dim + (shared_dim if num_classes else 0)
        kind = kind_of(sn_eps)
        norm = partial(
            ConditionalBatchNorm2d, condition_dim=condition_dim, eps=bn_eps, sn_eps=sn_eps, gain_added=gain_added
        )
        self.shared = nn.Embedding(num_classes, shared_dim) if num_classes else None
        self.first = kind.linear(condition_dim, channels[0] * 16)
        self.blocks = nn.ModuleList(
            _GeneratorBlock(a, b, up, kind, norm) for (a, b), up in zip(pairwise(channels), doubles, strict=True)
        )
        #: The attention's resolution by the number of blocks before it.
        self.attention_after = _attended(attention, resolutions)
        places = {resolutions[count]: channels[count] for count in attention}
        self.attention = self_attention(list(places), places, sn_eps)
        self.last_norm = BatchNorm2d(channels[-1], eps=bn_eps if last_bn_eps is None else last_bn_eps)
        self.last = kind.conv(channels[-1], image_channels, 3)
        self._initialise(init)

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        condition = torch.cat([latent, *self._seen_of(label)], dim=1)  # [n, condition_dim]
        x = self._attend(0, self.first(condition).unflatten(1, (-1, 4, 4)))  # [n, channels, 4, 4]
        for count, block in enumerate(self.blocks, start=1):
            x = self._attend(count, self.through(block, x, condition))
        return torch.tanh(self.last(F.relu(self.last_norm(x))))

    def _attend(self, count: int, x: Tensor) -> Tensor:
        """After so many blocks."""
        return self.attention[self.attention_after[count]](x) if count in self.attention_after else x


def _resolutions(resolution: int, channels: list[int], doubles: list[bool]) -> list[int]:
    """Before the first block and after each."""
    found = [4 << sum(doubles[:count]) for count in range(len(doubles) + 1)]
    if found[-1] != resolution or len(channels) != len(found):
        raise ValueError(
            f"doubles (={doubles}) makes {found[-1]}² of 4² in {len(doubles)} blocks: resolution (={resolution}) "
            f"must be that, and channels (={channels}) one more than the blocks"
        )
    if any(b > a for a, b in pairwise(channels)) or channels[-1] < 1 or min(channels[:-1]) < BOTTLENECK:
        raise ValueError(
            f"channels (={channels}) must not grow from block to block, and a block must be given {BOTTLENECK} or more"
        )
    return found


def _attended(attention: list[int], resolutions: list[int]) -> dict[int, str]:
    """The resolution of each attention by the number of blocks before it."""
    found = {count: str(resolutions[count]) for count in attention if 0 <= count < len(resolutions)}
    if len(set(found.values())) < len(attention):
        raise ValueError(
            f"attention (={attention}) must be numbers of blocks from 0 to {len(resolutions) - 1}, one at a resolution"
        )
    return found


class BigGANDeepGenerator(DeepGenerator):
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
        sn_eps: ε of spectral norm; null: there is none.
        last_bn_eps: ε of the last batch norm; null for that of the others.
        gain_added: whether class-conditional batch norms add their gain (see `ConditionalBatchNorm2d`).
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
        sn_eps: float | None = 1e-6,
        last_bn_eps: float | None = None,
        gain_added: bool = False,
    ) -> None:
        _check_sizes(width, depth)
        stages = [width * multiple for multiple in layout(GENERATOR_WIDTHS, resolution)]
        resolutions = [4 << i for i in range(len(stages))]
        _check_attention(attention, resolutions[1:])
        super().__init__(
            resolution,
            image_channels,
            num_classes,
            latent_dim,
            shared_dim,
            channels=[*(stage for stage in stages[:-1] for _ in range(depth)), stages[-1]],
            doubles=([False] * (depth - 1) + [True]) * (len(stages) - 1),
            attention=[depth * resolutions.index(at) for at in attention],
            init=init,
            bn_eps=bn_eps,
            sn_eps=sn_eps,
            last_bn_eps=last_bn_eps,
            gain_added=gain_added,
        )


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
        attention_after: blocks, counted from 1, after which self-attention stands too (as `BigGANDiscriminator`).
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
        attention_after: list[int] = [],  # noqa: B006
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
        given = [channel for channel in channels[1:] for _ in range(depth)]
        self.attention.update(attention_after_blocks(attention_after, given, sn_eps))
        self._make_head(channels[-1], spectral(sn_eps))
        initialise(self, init)

    def forward(self, images: Tensor, label: Tensor | None = None) -> Tensor:
        x = self.first(images)
        for count, block in enumerate(self.blocks, start=1):
            x = self.through(block, x)
            if count in self.attention_after:
                x = self.attention[self.attention_after[count]](x)
            if f"after_{count}" in self.attention:
                x = self.attention[f"after_{count}"](x)
        return self._logits(F.relu(x).sum(dim=(2, 3)), label)
