"""What every generator and discriminator promises."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from bigtrain.networks.recompute import recomputed


class Network(nn.Module):
    """A network for images of one final resolution, conditional if `num_classes` is greater than 0.

    Attributes:
        resolution: of the images at full growth, in pixels.
        image_channels: 1 for grey, 3 for colour.
        num_classes: classes of the labels; 0 for an unconditional network.
        progressive: whether `forward` also takes `resolution` and `alpha`.
        recompute: whether the blocks' activations are computed again in backward instead of being kept.
    """

    progressive = False
    recompute = False

    def __init__(self, resolution: int, image_channels: int, num_classes: int) -> None:
        super().__init__()
        if resolution < 4 or resolution & (resolution - 1):
            raise ValueError(f"resolution (={resolution}) must be a power of two of at least 4")
        if image_channels < 1 or num_classes < 0:
            raise ValueError(
                f"image_channels (={image_channels}) must be at least 1 and num_classes (={num_classes}) at least 0"
            )
        self.resolution, self.image_channels, self.num_classes = resolution, image_channels, num_classes

    def needed_label(self, label: Tensor | None) -> Tensor:
        """The label of a conditional network; an error if it is not given."""
        if label is None:
            raise ValueError(f"{type(self).__name__} is conditional (num_classes={self.num_classes}): give a label")
        return label

    def through(self, block: nn.Module, *inputs: Tensor) -> Tensor:
        """What one of the network's blocks gives: all passes through them go this way."""
        return recomputed(block, *inputs) if self.recompute and torch.is_grad_enabled() else block(*inputs)

    def activate(self, resolution: int, fading: bool) -> None:
        """Freezes what has no part in that resolution. Nothing for networks that do not grow."""


class Generator(Network, ABC):
    """`forward(latent [n, latent_dim], label [n] | None) -> images [n, image_channels, resolution, resolution]`.

    Images lie in about [-1, 1]. Latents are standard normal.
    """

    def __init__(self, resolution: int, image_channels: int, num_classes: int, latent_dim: int) -> None:
        super().__init__(resolution, image_channels, num_classes)
        if latent_dim < 1:
            raise ValueError(f"latent_dim (={latent_dim}) must be at least 1")
        self.latent_dim = latent_dim

    def embed_label(self, label: Tensor) -> Tensor:
        """Labels [n] as the vectors [n, dim] that the network sees in their place; such vectors are left as they are.

        A generator that has this takes vectors in `forward` too, also those that lie between classes.

        Raises:
            ValueError: if the generator has no vectors of its classes.
        """
        raise ValueError(
            f"{type(self).__name__} (num_classes={self.num_classes}) has no vectors of its classes to go between: "
            "only latents can change"
        )

    @abstractmethod
    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor: ...


class Discriminator(Network, ABC):
    """`forward(images [n, image_channels, resolution, resolution] in [-1, 1], label [n] | None) -> logits [n]`.

    One that classifies gives [n, 1 + num_classes]: the first column is the logit of real against fake, the others are
    those of the classes.
    """

    #: Whether it also says which class it sees, an auxiliary classifier (arXiv 1610.09585), and looks at no label.
    classifies = False
    #: How many images of a batch a layer looks at together: a batch must be a multiple of it. 1: each by itself.
    batch_group = 1

    @abstractmethod
    def forward(self, images: Tensor, label: Tensor | None = None) -> Tensor: ...
