"""The ResNets of SNGAN and of WGAN-GP.

SNGAN: Miyato et al., "Spectral Normalization for Generative Adversarial Networks", arXiv 1802.05957, with the labels of
Miyato and Koyama, arXiv 1802.05637; layouts, initial weights and ε of batch norm of their code (sngan_projection).
WGAN-GP: Gulrajani et al., "Improved Training of Wasserstein GANs", arXiv 1704.00028, and its code.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

from torch import nn

from bigtrain.networks.blocks import Norm
from bigtrain.networks.conditioning import Conditioning
from bigtrain.networks.layouts import layout
from bigtrain.networks.residual import RESIDUAL_GAIN, ResidualDiscriminator, ResidualGenerator

#: Multiples of `width` at each resolution from 4² upwards.
SNGAN_GENERATOR_WIDTHS = {32: (4, 4, 4, 4), 64: (16, 8, 4, 2, 1), 128: (16, 16, 8, 4, 2, 1)}
WGANGP_GENERATOR_WIDTHS = {32: (2, 2, 2, 2), 64: (8, 8, 4, 2, 1), 128: (16, 16, 8, 4, 2, 1)}
#: Multiples of `width` after each block, and how many of the blocks halve the resolution.
SNGAN_DISCRIMINATOR_WIDTHS = {32: ((2, 2, 2, 2), 2), 64: ((1, 2, 4, 8, 16), 5), 128: ((1, 2, 4, 8, 16, 16), 5)}
WGANGP_DISCRIMINATOR_WIDTHS = {32: ((2, 2, 2, 2), 2), 64: ((1, 2, 4, 8, 8), 4), 128: ((1, 2, 4, 8, 16, 16), 5)}


def multiplied(multiples: tuple[int, ...], width: int) -> list[int]:
    """Channels of that width; an error if there are none."""
    if width < 1:
        raise ValueError(f"width (={width}) must be at least 1")
    return [multiple * width for multiple in multiples]


class SNGANGenerator(ResidualGenerator):
    """SNGAN's generator, without spectral norm.

    Args:
        resolution: 32, 64 or 128.
        image_channels: 1 or 3.
        num_classes: 0 for an unconditional generator; each class has gains and biases of batch norm of its own.
        latent_dim: of the latent.
        width: the number that the channels are multiples of; with 64 there are 256 at all resolutions up to 32², and
            1024 to 64 at those up to 128².
        bn_eps: ε of batch norm.
    """

    def __init__(
        self,
        resolution: int,
        image_channels: int = 3,
        num_classes: int = 0,
        latent_dim: int = 128,
        width: int = 64,
        bn_eps: float = 2e-5,
    ) -> None:
        channels = multiplied(layout(SNGAN_GENERATOR_WIDTHS, resolution), width)
        super().__init__(
            resolution, image_channels, num_classes, latent_dim, channels, [], RESIDUAL_GAIN, bn_eps, sn_eps=None
        )


class SNGANDiscriminator(ResidualDiscriminator):
    """SNGAN's discriminator: spectral norm in all layers, features summed over the pixels.

    Its last layer has a bias also at 32², where the public code has none.

    Args:
        resolution: 32, 64 or 128.
        image_channels: 1 or 3.
        num_classes: 0 for an unconditional discriminator.
        width: the number that the channels are multiples of; with 64 there are 128 after all blocks at 32², and 64 to
            1024 at 128².
        conditioning: what it does with the label: `projection`, `concatenation`, `classifier` or `none`.
        sn_eps: ε of spectral norm.
    """

    def __init__(
        self,
        resolution: int,
        image_channels: int = 3,
        num_classes: int = 0,
        width: int = 64,
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
            attention=[],
            thin=True,
            norm=nn.Identity,
            pool="sum",
            residual_gain=RESIDUAL_GAIN,
            sn_eps=sn_eps,
        )


class WGANGPGenerator(ResidualGenerator):
    """WGAN-GP's generator.

    Args:
        resolution: 32, 64 or 128 (of which the authors' code has the first two).
        image_channels: 1 or 3.
        num_classes: 0 for an unconditional generator; each class has gains and biases of batch norm of its own.
        latent_dim: of the latent.
        width: the number that the channels are multiples of; with 64 there are 128 at all resolutions up to 32².
        bn_eps: ε of batch norm.
    """

    def __init__(
        self,
        resolution: int,
        image_channels: int = 3,
        num_classes: int = 0,
        latent_dim: int = 128,
        width: int = 64,
        bn_eps: float = 1e-5,
    ) -> None:
        channels = multiplied(layout(WGANGP_GENERATOR_WIDTHS, resolution), width)
        super().__init__(
            resolution, image_channels, num_classes, latent_dim, channels, [], RESIDUAL_GAIN, bn_eps, sn_eps=None
        )


class WGANGPDiscriminator(ResidualDiscriminator):
    """WGAN-GP's critic: no batch norm, as the penalty is of each image by itself; features averaged over the pixels.

    It is that of 32² at all resolutions. (At 64² the authors' code begins with a convolution and does not average.)

    Args:
        resolution: 32, 64 or 128.
        image_channels: 1 or 3.
        num_classes: 0 for an unconditional critic.
        width: the number that the channels are multiples of; with 64 there are 128 after all blocks at 32².
        conditioning: what it does with the label: `projection`, `concatenation`, `classifier` or `none`.
        normalization: `none`, as the authors at 32², or `layer`, as they at 64²: layer norm over channels and pixels.
    """

    def __init__(
        self,
        resolution: int,
        image_channels: int = 3,
        num_classes: int = 0,
        width: int = 64,
        conditioning: Conditioning = "projection",
        normalization: Literal["none", "layer"] = "none",
    ) -> None:
        norms: dict[str, Norm] = {"none": nn.Identity, "layer": partial(nn.GroupNorm, 1)}
        if normalization not in norms:
            raise ValueError(f"normalization (={normalization!r}) must be one of {sorted(norms)}")
        multiples, downs = layout(WGANGP_DISCRIMINATOR_WIDTHS, resolution)
        super().__init__(
            resolution,
            image_channels,
            num_classes,
            conditioning,
            channels=multiplied(multiples, width),
            downs=downs,
            attention=[],
            thin=True,
            norm=norms[normalization],
            pool="mean",
            residual_gain=RESIDUAL_GAIN,
            sn_eps=None,
        )
