"""Small networks of each convolutional family, for tests that run them."""

from __future__ import annotations

import torch
from torch import nn

from bigtrain.networks import (
    DCGANDiscriminator,
    DCGANGenerator,
    SAGANDiscriminator,
    SAGANGenerator,
    SNGANDiscriminator,
    SNGANGenerator,
    WGANGPDiscriminator,
    WGANGPGenerator,
)
from bigtrain.networks.layers import ConditionalBatchNorm2d, SelfAttention2d

#: Name → generator, discriminator, their resolutions, and a small one's options.
FAMILIES = {
    "dcgan": (DCGANGenerator, DCGANDiscriminator, [16, 32, 64, 128], {"width": 2}),
    "sngan": (SNGANGenerator, SNGANDiscriminator, [32, 64, 128], {"width": 2}),
    "wgan-gp": (WGANGPGenerator, WGANGPDiscriminator, [32, 64, 128], {"width": 2}),
    "sagan": (SAGANGenerator, SAGANDiscriminator, [32, 64, 128], {"width": 4, "attention": [16]}),
}


def sizes(name, num_classes, resolution=None, channels=3):
    _, _, resolutions, options = FAMILIES[name]
    return {
        "resolution": resolution or resolutions[0],
        "image_channels": channels,
        "num_classes": num_classes,
        **options,
    }


def made(name, num_classes, resolution=None, **options):
    """A small discriminator. `options` are its own."""
    torch.manual_seed(0)
    return FAMILIES[name][1](**sizes(name, num_classes, resolution), **options)


def pair(name, num_classes, resolution=None):
    torch.manual_seed(0)
    generator = FAMILIES[name][0](**sizes(name, num_classes, resolution), latent_dim=8)
    return generator, made(name, num_classes, resolution)


def opened(network):
    """With what is 0 at first drawn: the classes' gains and biases, and the gate of attention."""
    for module in network.modules():
        if isinstance(module, ConditionalBatchNorm2d):
            nn.init.normal_(module.gain.weight, std=0.5)
            nn.init.normal_(module.bias.weight, std=0.5)
        elif isinstance(module, SelfAttention2d):
            nn.init.ones_(module.gamma)
    return network


def inputs(generator, n=4):
    label = torch.arange(n) % generator.num_classes if generator.num_classes else None
    return torch.randn(n, generator.latent_dim), label


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())
