"""Progressive GAN (Karras et al., "Progressive Growing of GANs", arXiv 1710.10196).

All resolutions are allocated at once; `forward` runs the path of one of them. Constants as in the paper's appendix A.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bigtrain.networks.base import Discriminator, Generator, Network
from bigtrain.networks.layers import EqualizedConv2d, EqualizedLinear, Gather, minibatch_stddev, pixel_norm

LEAK = 0.2


def _channels(resolution: int, fmap_base: int, fmap_max: int) -> int:
    """Feature maps at a resolution: fmap_base / (resolution / 2), at most fmap_max."""
    return max(1, min(fmap_max, 2 * fmap_base // resolution))


def _check_resolution(network: Network, resolution: int | None) -> int:
    """The index of the block for that resolution, 0 for 4²; the network's own resolution if none is given."""
    resolution = network.resolution if resolution is None else resolution
    if resolution < 4 or resolution > network.resolution or resolution & (resolution - 1):
        raise ValueError(f"resolution (={resolution}) must be a power of two from 4 to {network.resolution}")
    return resolution.bit_length() - 3


def _train_only(network: Network, active: list[nn.Module]) -> None:
    """Freezes every parameter outside the active modules."""
    network.requires_grad_(False)
    for module in active:
        module.requires_grad_(True)


class _GeneratorBlock(nn.Module):
    """Upsamples by 2, then two convolutions, each with leaky ReLU and pixel norm."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = EqualizedConv2d(in_channels, out_channels, 3)
        self.conv2 = EqualizedConv2d(out_channels, out_channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(x, scale_factor=2, mode="nearest")
        x = pixel_norm(F.leaky_relu(self.conv1(x), LEAK))
        return pixel_norm(F.leaky_relu(self.conv2(x), LEAK))


class _FirstGeneratorBlock(nn.Module):
    """The dense layer to 4² (its gain is √2/4, as in the original code) and one convolution."""

    def __init__(self, in_features: int, channels: int) -> None:
        super().__init__()
        self.dense = EqualizedLinear(in_features, channels * 16, gain=math.sqrt(2) / 4)
        self.conv = EqualizedConv2d(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.dense(x).reshape(len(x), -1, 4, 4)  # [n, channels, 4, 4]
        x = pixel_norm(F.leaky_relu(x, LEAK))
        return pixel_norm(F.leaky_relu(self.conv(x), LEAK))


class ProgressiveGenerator(Generator):
    """The generator. With classes, a learned vector of each class stands beside the latent, both normalized.

    Args:
        resolution: at full growth, a power of two from 4.
        image_channels: 1 or 3.
        num_classes: 0 for an unconditional generator.
        latent_dim: of the latent, and of the classes' vectors.
        fmap_base: there are fmap_base / (resolution / 2) feature maps at a resolution,
        fmap_max: and at most so many.
    """

    progressive = True

    def __init__(
        self,
        resolution: int,
        image_channels: int = 3,
        num_classes: int = 0,
        latent_dim: int = 512,
        fmap_base: int = 8192,
        fmap_max: int = 512,
    ) -> None:
        super().__init__(resolution, image_channels, num_classes, latent_dim)
        widths = [_channels(4 << i, fmap_base, fmap_max) for i in range(resolution.bit_length() - 2)]
        self.label_embedding = nn.Embedding(num_classes, latent_dim) if num_classes else None
        self.blocks = nn.ModuleList([_FirstGeneratorBlock(latent_dim * (2 if num_classes else 1), widths[0])])
        self.blocks.extend(_GeneratorBlock(a, b) for a, b in pairwise(widths))
        self.to_rgb = nn.ModuleList(EqualizedConv2d(width, image_channels, 1, gain=1.0) for width in widths)

    def activate(self, resolution: int, fading: bool) -> None:
        last = _check_resolution(self, resolution)
        rgb = self.to_rgb[last - 1 : last + 1] if fading else self.to_rgb[last : last + 1]
        embedding = [] if self.label_embedding is None else [self.label_embedding]
        _train_only(self, [*self.blocks[: last + 1], *rgb, *embedding])

    def embed_label(self, label: Tensor) -> Tensor:
        if self.label_embedding is None:
            return super().embed_label(label)
        return label if label.is_floating_point() else self.label_embedding(label)

    def forward(
        self, latent: Tensor, label: Tensor | None = None, resolution: int | None = None, alpha: float = 1.0
    ) -> Tensor:
        """Images [n, image_channels, resolution, resolution].

        Args:
            latent: [n, latent_dim]; only its direction counts.
            label: [n], for a conditional generator; or vectors of such, as `embed_label` gives them.
            resolution: of the images; at full growth if None.
            alpha: weight of the last block while it fades in; at 0 the images are the upsampled ones of half the
                resolution, at 1 its own.
        """
        last = _check_resolution(self, resolution)
        x = pixel_norm(latent)
        if self.label_embedding is not None:
            x = torch.cat((x, pixel_norm(self.embed_label(self.needed_label(label)))), dim=1)
        for block in self.blocks[:last]:
            x = self.through(block, x)
        new = self.to_rgb[last](self.through(self.blocks[last], x))
        if alpha >= 1 or last == 0:
            return new
        old = F.interpolate(self.to_rgb[last - 1](x), scale_factor=2, mode="nearest")
        return torch.lerp(old, new, alpha)


class _DiscriminatorBlock(nn.Module):
    """Two convolutions with leaky ReLU, then average pooling by 2."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = EqualizedConv2d(in_channels, in_channels, 3)
        self.conv2 = EqualizedConv2d(in_channels, out_channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.conv1(x), LEAK)
        return F.avg_pool2d(F.leaky_relu(self.conv2(x), LEAK), 2)


class _LastDiscriminatorBlock(nn.Module):
    """Minibatch standard deviation, a convolution and a dense layer: [n, channels, 4, 4] → features [n, channels]."""

    gather: Gather | None = None

    def __init__(self, channels: int, stddev_group: int | None) -> None:
        super().__init__()
        self.conv = EqualizedConv2d(channels + 1, channels, 3)
        self.dense = EqualizedConv2d(channels, channels, 4, padding=0)
        self.stddev_group = stddev_group

    def forward(self, x: Tensor) -> Tensor:
        x = minibatch_stddev(x, self.stddev_group, self.gather)
        x = F.leaky_relu(self.conv(x), LEAK)
        return F.leaky_relu(self.dense(x), LEAK).flatten(1)


class ProgressiveDiscriminator(Discriminator):
    """The discriminator. With classes, a projection of the features on a vector of the class is added to the logits.

    (Miyato and Koyama, arXiv 1802.05637; the original's auxiliary classifier comes with the family of networks.)

    Args:
        resolution: at full growth, a power of two from 4.
        image_channels: 1 or 3.
        num_classes: 0 for an unconditional discriminator.
        fmap_base: there are fmap_base / (resolution / 2) feature maps at a resolution,
        fmap_max: and at most so many.
        stddev_group: images in a group of the minibatch standard deviation; None for the whole batch.
    """

    progressive = True

    def __init__(
        self,
        resolution: int,
        image_channels: int = 3,
        num_classes: int = 0,
        fmap_base: int = 8192,
        fmap_max: int = 512,
        stddev_group: int | None = 4,
    ) -> None:
        super().__init__(resolution, image_channels, num_classes)
        if stddev_group is not None and stddev_group < 1:
            raise ValueError(f"stddev_group (={stddev_group}) must be at least 1, or null for the whole batch")
        self.batch_group = stddev_group or 1
        widths = [_channels(4 << i, fmap_base, fmap_max) for i in range(resolution.bit_length() - 2)]
        self.from_rgb = nn.ModuleList(EqualizedConv2d(image_channels, width, 1) for width in widths)
        self.blocks = nn.ModuleList([_LastDiscriminatorBlock(widths[0], stddev_group)])
        self.blocks.extend(_DiscriminatorBlock(b, a) for a, b in pairwise(widths))
        self.logit = EqualizedLinear(widths[0], 1, gain=1.0)
        self.projection = nn.Embedding(num_classes, widths[0]) if num_classes else None

    def activate(self, resolution: int, fading: bool) -> None:
        last = _check_resolution(self, resolution)
        rgb = self.from_rgb[last - 1 : last + 1] if fading else self.from_rgb[last : last + 1]
        projection = [] if self.projection is None else [self.projection]
        _train_only(self, [*self.blocks[: last + 1], *rgb, self.logit, *projection])

    def forward(
        self, images: Tensor, label: Tensor | None = None, resolution: int | None = None, alpha: float = 1.0
    ) -> Tensor:
        """Logits [n] of images [n, image_channels, resolution, resolution]; `alpha` as in the generator."""
        last = _check_resolution(self, resolution)
        x = F.leaky_relu(self.from_rgb[last](images), LEAK)
        if last > 0:
            x = self.through(self.blocks[last], x)
            if alpha < 1:
                old = F.leaky_relu(self.from_rgb[last - 1](F.avg_pool2d(images, 2)), LEAK)
                x = torch.lerp(old, x, alpha)
            for block in reversed(self.blocks[1:last]):
                x = self.through(block, x)
        features = self.through(self.blocks[0], x)  # [n, channels]
        logits = self.logit(features).squeeze(1)
        if self.projection is not None:
            vector = self.projection(self.needed_label(label))  # [n, channels], ~ N(0, 1) at first: equalized by √c
            logits = logits + (vector * features).sum(dim=1) / math.sqrt(features.shape[1])
        return logits
