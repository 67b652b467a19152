"""BigGAN (Brock et al., "Large Scale GAN Training for High Fidelity Natural Image Synthesis", arXiv 1809.11096).

Block layouts of appendix B and of the authors' PyTorch code; 32² is the layout they use for CIFAR-10.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bigtrain.networks.blocks import GeneratorBlock, Norm, kind_of, self_attention
from bigtrain.networks.conditioning import SharedEmbeddingGenerator
from bigtrain.networks.initialisers import Init
from bigtrain.networks.layers import BatchNorm2d, ConditionalBatchNorm2d
from bigtrain.networks.layouts import DISCRIMINATOR_WIDTHS, GENERATOR_WIDTHS, layout
from bigtrain.networks.residual import ResidualDiscriminator


class BigGANGenerator(SharedEmbeddingGenerator):
    """The generator: class-conditional batch norm by a shared embedding and hierarchical latents.

    Args:
        resolution: 32, 64, 128, 256 or 512.
        image_channels: 1 or 3.
        num_classes: 0 for an unconditional generator, whose batch norms see their part of the latent only.
        latent_dim: with `hierarchical`, a multiple of the number of blocks + 1.
        shared_dim: of the embedding of the classes that all blocks share; 0: there is none, and each batch norm has a
            gain and a bias of its own for each class, without spectral norm (the authors' CIFAR-10 run).
        width: the number that the channels are multiples of (`ch`).
        hierarchical: each block's batch norms see a part of the latent of their own; otherwise the first layer sees
            the whole latent and the others none.
        attention: resolutions after whose block self-attention stands.
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
        latent_dim: int = 120,
        shared_dim: int = 128,
        width: int = 96,
        hierarchical: bool = True,
        attention: list[int] = [64],  # noqa: B006 (read only; the configuration shows it)
        init: Init = "orthogonal",
        bn_eps: float = 1e-5,
        sn_eps: float | None = 1e-6,
        last_bn_eps: float | None = None,
        gain_added: bool = False,
    ) -> None:
        super().__init__(resolution, image_channels, num_classes, latent_dim)
        if not shared_dim and num_classes and hierarchical:
            raise ValueError(
                "shared_dim (=0) is for a generator with hierarchical (=true) set to false: there each "
                "batch norm sees the class alone"
            )
        channels = [width * multiple for multiple in layout(GENERATOR_WIDTHS, resolution)]
        num_blocks = len(channels) - 1
        if hierarchical and latent_dim % (num_blocks + 1):
            raise ValueError(
                f"latent_dim (={latent_dim}) must be a multiple of {num_blocks + 1} (blocks + 1) at {resolution}² "
                f"with hierarchical latents, such as {latent_dim // (num_blocks + 1) * (num_blocks + 1)}"
            )
        self.chunk = latent_dim // (num_blocks + 1) if hierarchical else latent_dim
        self.hierarchical = hierarchical
        condition_dim = (self.chunk if hierarchical else 0) + (shared_dim or num_classes if num_classes else 0)
        self.shared = nn.Embedding(num_classes, shared_dim) if num_classes and shared_dim else None
        norm: Norm = partial(BatchNorm2d, eps=bn_eps)
        if condition_dim:
            eps = None if num_classes and not shared_dim else sn_eps
            norm = partial(
                ConditionalBatchNorm2d, condition_dim=condition_dim, eps=bn_eps, sn_eps=eps, gain_added=gain_added
            )
        kind = kind_of(sn_eps)
        self.first = kind.linear(self.chunk, channels[0] * 16)
        self.blocks = nn.ModuleList(GeneratorBlock(a, b, kind, norm) for a, b in pairwise(channels))
        self.attention = self_attention(attention, {8 << i: c for i, c in enumerate(channels[1:])}, sn_eps)
        self.last_norm = BatchNorm2d(channels[-1], eps=bn_eps if last_bn_eps is None else last_bn_eps)
        self.last = kind.conv(channels[-1], image_channels, 3)
        self._initialise(init)

    def conditions(self, latent: Tensor, label: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """What the first layer sees, and what the batch norms of each block see."""
        parts = list(latent.split(self.chunk, dim=1)) if self.hierarchical else [latent]
        shared = self._seen_of(label)
        seen = [shared + ([part] if self.hierarchical else []) for part in (parts[1:] or [latent] * len(self.blocks))]
        return parts[0], [torch.cat(tensors, dim=1) if tensors else latent for tensors in seen]

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        first, conditions = self.conditions(latent, label)
        x = self.first(first).unflatten(1, (-1, 4, 4))  # [n, channels, 4, 4]
        for block, condition in zip(self.blocks, conditions, strict=True):
            x = self.through(block, x, condition)
            if str(x.shape[-1]) in self.attention:
                x = self.attention[str(x.shape[-1])](x)
        return torch.tanh(self.last(F.relu(self.last_norm(x))))


class BigGANDiscriminator(ResidualDiscriminator):
    """The projection discriminator: logit(h) + embedding(label)·h, where h sums the last features over the pixels.

    Args:
        resolution: 32, 64, 128, 256 or 512.
        image_channels: 1 or 3.
        num_classes: 0 for an unconditional discriminator.
        width: the number that the channels are multiples of (`ch`).
        attention: resolutions after whose block self-attention stands.
        init: of the weights.
        sn_eps: ε of spectral norm.
        attention_after: blocks, counted from 1, after which self-attention stands too (the authors' code has it after
            all four at 32², where it takes them all to be at 16²).
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
        attention_after: list[int] = [],  # noqa: B006
    ) -> None:
        multiples, downs = layout(DISCRIMINATOR_WIDTHS, resolution)
        super().__init__(
            resolution,
            image_channels,
            num_classes,
            "projection",
            channels=[width * multiple for multiple in multiples],
            downs=downs,
            attention=attention,
            thin=False,
            norm=nn.Identity,
            pool="sum",
            residual_gain=1.0,
            sn_eps=sn_eps,
            init=init,
            attention_after=attention_after,
        )
