"""How many weights the convolutional networks have at their published sizes, and what they start from."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from bigtrain.networks import DCGANDiscriminator, DCGANGenerator, SAGANDiscriminator, SAGANGenerator
from tests.unit.convolutional import FAMILIES, count


def conv(in_channels, out_channels, kernel=3):
    return in_channels * out_channels * kernel**2 + out_channels


def attention(channels):
    return 2 * channels * (channels // 8) + 2 * channels * (channels // 2) + 1


def generator_count(channels, num_classes):
    """Latents of 128 numbers; a gain and a bias a channel, and class, in each of a block's two batch norms."""
    blocks = sum(
        conv(a, b) + conv(b, b) + conv(a, b, 1) + 2 * (a + b) * max(1, num_classes) for a, b in pairwise(channels)
    )
    return conv(128, 16 * channels[0], 1) + blocks + 2 * channels[-1] + conv(channels[-1], 3)


def discriminator_count(channels, downs, num_classes, thin):
    total = conv(channels[-1], 1, 1) + num_classes * channels[-1]
    for i, (a, b) in enumerate(pairwise([3, *channels])):
        hidden = a if thin and i > 0 else b
        total += conv(a, hidden) + conv(hidden, b) + (conv(a, b, 1) if i < downs or a != b else 0)
    return total


def test_dcgan_has_the_published_number_of_parameters():
    """3,576,704 and 2,765,568 in PyTorch's example at 64²."""
    with torch.device("meta"):
        assert count(DCGANGenerator(64)) == 3_576_704
        assert count(DCGANDiscriminator(64)) == 2_765_568
        # A row more of the dense layer for each class; 512 · 4 · 4 features to project on.
        assert count(DCGANGenerator(64, 3, 10)) == 3_576_704 + 10 * 512 * 16
        assert count(DCGANDiscriminator(64, 3, 10)) == 2_765_568 + 10 * 512 * 16


TO_128 = [64, 128, 256, 512, 1024, 1024]


@pytest.mark.parametrize(
    ("name", "resolution", "num_classes", "generator", "discriminator", "downs"),
    [
        ("sngan", 32, 0, [256] * 4, [128] * 4, 2),
        ("sngan", 32, 10, [256] * 4, [128] * 4, 2),
        ("sngan", 64, 0, [1024, 512, 256, 128, 64], TO_128[:5], 5),
        ("sngan", 128, 1000, TO_128[::-1], TO_128, 5),
        ("wgan-gp", 32, 0, [128] * 4, [128] * 4, 2),
        ("wgan-gp", 64, 0, [512, 512, 256, 128, 64], [64, 128, 256, 512, 512], 4),
    ],
)
def test_resnets_have_as_many_parameters_as_those_of_the_authors_code(
    name, resolution, num_classes, generator, discriminator, downs
):
    make_generator, make_discriminator, *_ = FAMILIES[name]
    with torch.device("meta"):
        assert count(make_generator(resolution, 3, num_classes)) == generator_count(generator, num_classes)
        assert count(make_discriminator(resolution, 3, num_classes)) == discriminator_count(
            discriminator, downs, num_classes, thin=True
        )


def test_sagan_128_has_the_published_number_of_parameters():
    """81.5 M for both together, in the first row of table 1 of arXiv 1809.11096."""
    with torch.device("meta"):
        generator, discriminator = count(SAGANGenerator(128, 3, 1000)), count(SAGANDiscriminator(128, 3, 1000))
    assert generator == generator_count(TO_128[::-1], 1000) + attention(128)
    assert discriminator == discriminator_count(TO_128, 5, 1000, thin=False) + attention(64)
    assert generator + discriminator == pytest.approx(81.5e6, abs=0.05e6)


def test_dcgan_starts_from_normal_weights():
    for network in (DCGANGenerator(32, width=32), DCGANDiscriminator(32, width=32)):
        for module in network.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
                assert module.weight.std().item() == pytest.approx(0.02, rel=0.1)
                assert module.weight.mean().item() == pytest.approx(0, abs=0.002)
                assert module.bias is None
            elif isinstance(module, nn.BatchNorm2d):
                assert module.weight.mean().item() == pytest.approx(1, abs=0.02)
                assert 0.01 < module.weight.std().item() < 0.03
                assert not module.bias.any()


@pytest.mark.parametrize(("name", "gain"), [("sngan", math.sqrt(2)), ("wgan-gp", math.sqrt(2)), ("sagan", 1)])
def test_residual_networks_start_from_xaviers_weights(name, gain):
    for make in FAMILIES[name][:2]:
        network = make(32, width=16, **({"attention": [16]} if name == "sagan" else {}))
        for key, parameter in network.named_parameters():
            if parameter.ndim > 1:
                fan = (parameter.shape[0] + parameter.shape[1]) * parameter[0, 0].numel()
                scale = gain if "conv" in key else 1
                assert parameter.abs().max().item() <= scale * math.sqrt(6 / fan)
                assert parameter.std().item() == pytest.approx(scale * math.sqrt(2 / fan), rel=0.15), key
            elif key.endswith("bias"):
                assert not parameter.any(), key
