"""Progressive GAN (Karras et al., "Progressive Growing of GANs", arXiv 1710.10196).

All resolutions are allocated at once; `forward` runs the path of one of them. Constants as in the paper's appendix A.
Where other trainers differ so that weights depend on it, an argument says it, named after who does so: `gan_zoo` is
facebookresearch/pytorch_GAN_zoo, `pro_gan` akanimax/pro_gan_pytorch from version 3 on, `pro_gan_2` before it.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bigtrain.networks.base import Discriminator, Generator, Network
from bigtrain.networks.layers import (
    EqualizedConv2d,
    EqualizedLinear,
    Gather,
    contiguous_stddev,
    minibatch_stddev,
    pixel_norm,
)

LEAK = 0.2
#: Where the generator normalizes before its first 3 × 3 convolution: the latent, and what the dense layer gives.
FirstNorms = Literal["original", "pro_gan", "pro_gan_2"]
_FIRST_NORMS: dict[FirstNorms, tuple[bool, bool]] = {
    "original": (True, True),
    "pro_gan": (True, False),
    "pro_gan_2": (False, False),
}
#: Minibatch standard deviation: of strided groups, of contiguous ones with the unbiased variance, or none.
Stddev = Literal["original", "gan_zoo", "none"]
#: What the discriminator does with the label.
LabelUse = Literal["projection", "classifier"]


def _channels(resolution: int, fmap_base: int, fmap_max: int, channels: list[int] | None) -> list[int]:
    """Feature maps at 4², 8², … : the given ones, or fmap_base / (resolution / 2), at most fmap_max."""
    sizes = [4 << i for i in range(resolution.bit_length() - 2)]
    if channels is None:
        return [max(1, min(fmap_max, 2 * fmap_base // size)) for size in sizes]
    if len(channels) != len(sizes) or min(channels) < 1:
        raise ValueError(f"channels (={channels}) must be {len(sizes)} numbers of at least 1, one for each of {sizes}")
    return channels


def _check_choice(name: str, value: Any, kind: Any) -> None:
    if value not in get_args(kind):
        raise ValueError(f"{name} (={value!r}) must be one of {sorted(get_args(kind))}")


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

    def __init__(self, in_channels: int, out_channels: int, leak: float) -> None:
        super().__init__()
        self.conv1 = EqualizedConv2d(in_channels, out_channels, 3)
        self.conv2 = EqualizedConv2d(out_channels, out_channels, 3)
        self.leak = leak

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(x, scale_factor=2, mode="nearest")
        x = pixel_norm(F.leaky_relu(self.conv1(x), self.leak))
        return pixel_norm(F.leaky_relu(self.conv2(x), self.leak))


class _FirstGeneratorBlock(nn.Module):
    """The dense layer to 4² (its gain is √2/4, as in the original code) and one convolution."""

    def __init__(self, in_features: int, channels: int, leak: float, norm: bool) -> None:
        super().__init__()
        self.dense = EqualizedLinear(in_features, channels * 16, gain=math.sqrt(2) / 4)
        self.conv = EqualizedConv2d(channels, channels, 3)
        self.leak, self.norm = leak, norm

    def forward(self, x: Tensor) -> Tensor:
        x = self.dense(x).unflatten(1, (-1, 4, 4))  # [n, channels, 4, 4]
        x = F.leaky_relu(x, self.leak)
        x = pixel_norm(x) if self.norm else x
        return pixel_norm(F.leaky_relu(self.conv(x), self.leak))


class ProgressiveGenerator(Generator):
    """The generator. With classes, a learned vector of each class stands beside the latent, both normalized.

    Args:
        resolution: at full growth, a power of two from 4.
        image_channels: 1 or 3.
        num_classes: 0 for an unconditional generator.
        latent_dim: of the latent, and of the classes' vectors.
        fmap_base: there are fmap_base / (resolution / 2) feature maps at a resolution,
        fmap_max: and at most so many.
        channels: feature maps at 4², 8², … instead.
        leak: of the leaky ReLUs.
        tanh: whether images go through a tanh at last (gan_zoo's do, for two of its losses).
        first_norms: `original`: the latent is normalized, and what the dense layer gives; `pro_gan`: only the latent;
            `pro_gan_2`: neither.
        attributes: the numbers of values of attributes that a label is made of, label = (first · n₂ + second) · n₃ + …;
            their one-hot vectors stand beside the latent and are normalized with it (as in gan_zoo).
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
        channels: list[int] | None = None,
        leak: float = LEAK,
        tanh: bool = False,
        first_norms: FirstNorms = "original",
        attributes: list[int] | None = None,
    ) -> None:
        super().__init__(resolution, image_channels, num_classes, latent_dim)
        _check_choice("first_norms", first_norms, FirstNorms)
        if attributes and math.prod(attributes) != num_classes:
            raise ValueError(
                f"num_classes (={num_classes}) must be {math.prod(attributes)} for attributes {attributes}"
            )
        widths = _channels(resolution, fmap_base, fmap_max, channels)
        self.tanh, self.attributes = tanh, attributes
        self.norm_latent, norm_dense = _FIRST_NORMS[first_norms]
        self.label_embedding = nn.Embedding(num_classes, latent_dim) if num_classes and not attributes else None
        label_dim = sum(attributes) if attributes else latent_dim * bool(num_classes)
        self.blocks = nn.ModuleList([_FirstGeneratorBlock(latent_dim + label_dim, widths[0], leak, norm_dense)])
        self.blocks.extend(_GeneratorBlock(a, b, leak) for a, b in pairwise(widths))
        self.to_rgb = nn.ModuleList(EqualizedConv2d(width, image_channels, 1, gain=1.0) for width in widths)

    def activate(self, resolution: int, fading: bool) -> None:
        last = _check_resolution(self, resolution)
        rgb = self.to_rgb[last - 1 : last + 1] if fading else self.to_rgb[last : last + 1]
        embedding = [] if self.label_embedding is None else [self.label_embedding]
        _train_only(self, [*self.blocks[: last + 1], *rgb, *embedding])

    def embed_label(self, label: Tensor) -> Tensor:
        if not self.num_classes:
            return super().embed_label(label)
        if label.is_floating_point():
            return label
        return self._one_hots(label) if self.label_embedding is None else self.label_embedding(label)

    def _one_hots(self, label: Tensor) -> Tensor:
        """Those of the label's attributes, beside each other: [n, Σ attributes]."""
        vectors = []
        for size in reversed(self.attributes or []):
            vectors.append(F.one_hot(label % size, size))
            label = label // size
        return torch.cat(vectors[::-1], dim=1).to(next(self.parameters()).dtype)

    def _embed(self, latent: Tensor, label: Tensor | None) -> Tensor:
        """What the first block takes: the latent, and beside it the label's vector."""
        if self.attributes:
            latent = torch.cat((latent, self.embed_label(self.needed_label(label))), dim=1)
        x = pixel_norm(latent) if self.norm_latent else latent
        if self.label_embedding is None:
            return x
        return torch.cat((x, pixel_norm(self.embed_label(self.needed_label(label)))), dim=1)

    def forward(
        self, latent: Tensor, label: Tensor | None = None, resolution: int | None = None, alpha: float = 1.0
    ) -> Tensor:
        """Images [n, image_channels, resolution, resolution].

        Args:
            latent: [n, latent_dim]; only its direction counts (unless first_norms is `pro_gan_2`).
            label: [n], for a conditional generator; or vectors of such, as `embed_label` gives them.
            resolution: of the images; at full growth if None.
            alpha: weight of the last block while it fades in; at 0 the images are the upsampled ones of half the
                resolution, at 1 its own.
        """
        last = _check_resolution(self, resolution)
        x = self._embed(latent, label)
        for block in self.blocks[:last]:
            x = self.through(block, x)
        images = self.to_rgb[last](self.through(self.blocks[last], x))
        if alpha < 1 and last > 0:
            old = F.interpolate(self.to_rgb[last - 1](x), scale_factor=2, mode="nearest")
            images = torch.lerp(old, images, alpha)
        return torch.tanh(images) if self.tanh else images


class _DiscriminatorBlock(nn.Module):
    """Two convolutions with leaky ReLU, then average pooling by 2."""

    def __init__(self, in_channels: int, out_channels: int, leak: float) -> None:
        super().__init__()
        self.conv1 = EqualizedConv2d(in_channels, in_channels, 3)
        self.conv2 = EqualizedConv2d(in_channels, out_channels, 3)
        self.leak = leak

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.conv1(x), self.leak)
        return F.avg_pool2d(F.leaky_relu(self.conv2(x), self.leak), 2)


class _LastDiscriminatorBlock(nn.Module):
    """Minibatch standard deviation, a convolution and a dense layer: [n, channels, 4, 4] → [n, features]."""

    gather: Gather | None = None
    rank: int = 0

    def __init__(self, channels: int, features: int, leak: float, stddev: Stddev, stddev_group: int | None) -> None:
        super().__init__()
        self.conv = EqualizedConv2d(channels + (stddev != "none"), channels, 3)
        self.dense = EqualizedConv2d(channels, features, 4, padding=0)
        self.leak, self.stddev, self.stddev_group = leak, stddev, stddev_group

    def forward(self, x: Tensor) -> Tensor:
        if self.stddev == "original":
            x = minibatch_stddev(x, self.stddev_group, self.gather)
        elif self.stddev == "gan_zoo":
            x = contiguous_stddev(x, self.stddev_group, self.gather, self.rank)
        x = F.leaky_relu(self.conv(x), self.leak)
        return F.leaky_relu(self.dense(x), self.leak).flatten(1)


class ProgressiveDiscriminator(Discriminator):
    """The discriminator. With classes, it looks at the label or says it.

    By `projection` the features times a vector of the class are added to the logit (Miyato and Koyama, arXiv
    1802.05637); the original code has a `classifier` (Odena et al., arXiv 1610.09585), linear in the same features.

    Args:
        resolution: at full growth, a power of two from 4.
        image_channels: 1 or 3.
        num_classes: 0 for an unconditional discriminator.
        fmap_base: there are fmap_base / (resolution / 2) feature maps at a resolution,
        fmap_max: and at most so many.
        stddev_group: images in a group of the minibatch standard deviation; None for the whole batch.
        channels: feature maps at 4², 8², … instead.
        features: of the last layer before the logit; as many as feature maps at 4² if None.
        leak: of the leaky ReLUs.
        stddev: the minibatch standard deviation: `original`; `gan_zoo`, of groups of neighbours, see
            `layers.contiguous_stddev`, also about many devices; or `none`.
        first_fade: the first resolution whose block fades in: 16 for gan_zoo's, which never fades at 8².
        leaky_logit: whether the logit without the projection goes through a leaky ReLU (as in pro_gan's with classes).
        conditioning: what it does with the label: `projection` or `classifier`.
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
        channels: list[int] | None = None,
        features: int | None = None,
        leak: float = LEAK,
        stddev: Stddev = "original",
        first_fade: int = 8,
        leaky_logit: bool = False,
        conditioning: LabelUse = "projection",
    ) -> None:
        super().__init__(resolution, image_channels, num_classes)
        _check_choice("stddev", stddev, Stddev)
        _check_choice("conditioning", conditioning, LabelUse)
        if stddev_group is not None and stddev_group < 1:
            raise ValueError(f"stddev_group (={stddev_group}) must be at least 1, or null for the whole batch")
        self.batch_group = (stddev_group or 1) if stddev == "original" else 1
        self.leak, self.first_fade, self.leaky_logit = leak, first_fade, leaky_logit
        widths = _channels(resolution, fmap_base, fmap_max, channels)
        features = features or widths[0]
        self.from_rgb = nn.ModuleList(EqualizedConv2d(image_channels, width, 1) for width in widths)
        self.blocks = nn.ModuleList([_LastDiscriminatorBlock(widths[0], features, leak, stddev, stddev_group)])
        self.blocks.extend(_DiscriminatorBlock(b, a, leak) for a, b in pairwise(widths))
        self.logit = EqualizedLinear(features, 1, gain=1.0)
        self.classifies = conditioning == "classifier" and num_classes > 0
        self.classifier = EqualizedLinear(features, num_classes, gain=1.0) if self.classifies else None
        self.projection = nn.Embedding(num_classes, features) if num_classes and not self.classifies else None

    def activate(self, resolution: int, fading: bool) -> None:
        last = _check_resolution(self, resolution)
        fading = fading and resolution >= self.first_fade
        rgb = self.from_rgb[last - 1 : last + 1] if fading else self.from_rgb[last : last + 1]
        of_label = [layer for layer in (self.projection, self.classifier) if layer is not None]
        _train_only(self, [*self.blocks[: last + 1], *rgb, self.logit, *of_label])

    def forward(
        self, images: Tensor, label: Tensor | None = None, resolution: int | None = None, alpha: float = 1.0
    ) -> Tensor:
        """Logits of images [n, image_channels, resolution, resolution]: [n], or [n, 1 + num_classes] if it classifies.

        `alpha` is as in the generator.
        """
        last = _check_resolution(self, resolution)
        x = F.leaky_relu(self.from_rgb[last](images), self.leak)
        if last > 0:
            x = self.through(self.blocks[last], x)
            if alpha < 1 and 4 << last >= self.first_fade:
                old = F.leaky_relu(self.from_rgb[last - 1](F.avg_pool2d(images, 2)), self.leak)
                x = torch.lerp(old, x, alpha)
            for block in reversed(self.blocks[1:last]):
                x = self.through(block, x)
        features = self.through(self.blocks[0], x)  # [n, features]
        if self.classifier is not None:
            return torch.cat((self.logit(features), self.classifier(features)), dim=1)  # [n, 1 + num_classes]
        logits = self.logit(features).squeeze(1)
        logits = F.leaky_relu(logits, self.leak) if self.leaky_logit else logits
        if self.projection is not None:
            vector = self.projection(self.needed_label(label))  # [n, features], ~ N(0, 1) at first: equalized by √c
            logits = logits + (vector * features).sum(dim=1) / math.sqrt(features.shape[1])
        return logits
