"""Networks: plain `nn.Module`s on one device, which know nothing of scale, training or files."""

from bigtrain.networks.base import Discriminator, Generator
from bigtrain.networks.biggan import BigGANDiscriminator, BigGANGenerator
from bigtrain.networks.progressive import ProgressiveDiscriminator, ProgressiveGenerator

__all__ = [
    "BigGANDiscriminator",
    "BigGANGenerator",
    "Discriminator",
    "Generator",
    "ProgressiveDiscriminator",
    "ProgressiveGenerator",
]
