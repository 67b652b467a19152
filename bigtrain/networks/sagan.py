"""SAGAN (Zhang et al., "Self-Attention Generative Adversarial Networks", arXiv 1805.08318).

SNGAN's networks with self-attention, with spectral norm in the generator too and with wide blocks in the discriminator;
initial weights are Xavier's in all layers. That is the authors' code at 128²; the layouts of 32² and 64² are SNGAN's.
ε of batch norm and of spectral norm are those of the SAGAN in BigGAN's PyTorch code.
"""

from __future__ import annotations

from torch import nn

from bigtrain.networks.conditioning import Conditioning
from bigtrain.networks.layouts import layout
from bigtrain.networks.residual import ResidualDiscriminator, ResidualGenerator
from bigtrain.networks.resnet import SNGAN_DISCRIMINATOR_WIDTHS, SNGAN_GENERATOR_WIDTHS, multiplied


class SAGANGenerator(ResidualGenerator):
    """The generator: spectral norm in all layers but the classes' gains and biases of batch norm.

    Args:
        resolution: 32, 64 or 128.
        image_channels: 1 or 3.
        num_classes: 0 for an unconditional generator; each class has gains and biases of batch norm of its own.
        latent_dim: of the latent.
        width: the number that the channels are multiples of.
        attention: resolutions after whose block self-attention stands.
        bn_eps: ε of batch norm.
        sn_eps: ε of spectral norm.
    """

    def __init__(
        self,
        resolution: int,
        image_channels: int = 3,
        num_classes: int = 0,
        latent_dim: int = 128,
        width: int = 64,
        attention: list[int] = [64],  # noqa: B006 (read only; the configuration shows it)
        bn_eps: float = 1e-5,
        sn_eps: float = 1e-8,
    ) -> None:
        channels = multiplied(layout(SNGAN_GENERATOR_WIDTHS, resolution), width)
        super().__init__(
            resolution, image_channels, num_classes, latent_dim, channels, attention, 1.0, bn_eps, sn_eps=sn_eps
        )


class SAGANDiscriminator(ResidualDiscriminator):
    """The discriminator: spectral norm in all layers, features summed over the pixels.

    Args:
        resolution: 32, 64 or 128.
        image_channels: 1 or 3.
        num_classes: 0 for an unconditional discriminator.
        width: the number that the channels are multiples of.
        attention: resolutions after whose block self-attention stands.
        conditioning: what it does with the label: `projection`, `concatenation`, `classifier` or `none`.
        sn_eps: ε of spectral norm.
    """

    def __init__(
        self,
        resolution: int,
        image_channels: int = 3,
        num_classes: int = 0,
        width: int = 64,
        attention: list[int] = [64],  # noqa: B006
        conditioning: Conditioning = "projection",
        sn_eps: float = 1e-8,
    ) -> None:
        multiples, downs = layout(SNGAN_DISCRIMINATOR_WIDTHS, resolution)
        super().__init__(
            resolution,
            image_channels,
            num_classes,
            conditioning,
            channels=multiplied(multiples, width),
            downs=downs,
            attention=attention,
            thin=False,
            norm=nn.Identity,
            pool="sum",
            residual_gain=1.0,
            sn_eps=sn_eps,
        )
