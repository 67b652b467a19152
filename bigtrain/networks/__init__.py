"""Networks: plain `nn.Module`s on one device, which know nothing of scale, training or files."""

from bigtrain.networks.base import Discriminator, Generator
from bigtrain.networks.biggan import BigGANDiscriminator, BigGANGenerator
from bigtrain.networks.biggan_deep import BigGANDeepDiscriminator, BigGANDeepGenerator, DeepGenerator
from bigtrain.networks.dcgan import DCGANDiscriminator, DCGANGenerator
from bigtrain.networks.progressive import ProgressiveDiscriminator, ProgressiveGenerator
from bigtrain.networks.resnet import SNGANDiscriminator, SNGANGenerator, WGANGPDiscriminator, WGANGPGenerator
from bigtrain.networks.sagan import SAGANDiscriminator, SAGANGenerator

__all__ = [
    "BigGANDeepDiscriminator",
    "BigGANDeepGenerator",
    "BigGANDiscriminator",
    "BigGANGenerator",
    "DCGANDiscriminator",
    "DCGANGenerator",
    "DeepGenerator",
    "Discriminator",
    "Generator",
    "ProgressiveDiscriminator",
    "ProgressiveGenerator",
    "SAGANDiscriminator",
    "SAGANGenerator",
    "SNGANDiscriminator",
    "SNGANGenerator",
    "WGANGPDiscriminator",
    "WGANGPGenerator",
]
