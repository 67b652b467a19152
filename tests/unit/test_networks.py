"""The architectures: shapes, conditions, what is trained. (Growth: test_growth.py.)"""

import pytest
import torch

from bigtrain.networks import (
    BigGANDiscriminator,
    BigGANGenerator,
    ProgressiveDiscriminator,
    ProgressiveGenerator,
)
from bigtrain.networks.layers import ConditionalBatchNorm2d

CLASSES = [0, 3]


def progressive(num_classes, channels=1):
    torch.manual_seed(0)
    sizes = {"fmap_base": 64, "fmap_max": 16}
    return (
        ProgressiveGenerator(16, channels, num_classes, 8, **sizes),
        ProgressiveDiscriminator(16, channels, num_classes, **sizes),
    )


def biggan(num_classes, resolution=32, **options):
    torch.manual_seed(0)
    generator = BigGANGenerator(resolution, 3, num_classes, 40, 8, 4, attention=[16], **options)
    return generator, BigGANDiscriminator(resolution, 3, num_classes, 4, attention=[16])


def inputs(generator, n=4):
    label = torch.arange(n) % generator.num_classes if generator.num_classes else None
    return torch.randn(n, generator.latent_dim), label


@pytest.mark.parametrize("num_classes", CLASSES)
@pytest.mark.parametrize("resolution", [4, 8, 16])
def test_progressive_shapes(num_classes, resolution):
    generator, discriminator = progressive(num_classes)
    latent, label = inputs(generator)
    images = generator(latent, label, resolution, 0.3)
    assert images.shape == (4, 1, resolution, resolution)
    assert discriminator(images, label, resolution, 0.3).shape == (4,)


@pytest.mark.parametrize("num_classes", CLASSES)
@pytest.mark.parametrize("options", [{}, {"hierarchical": False}, {"init": "normal"}, {"init": "xavier"}])
def test_biggan_shapes(num_classes, options):
    generator, discriminator = biggan(num_classes, **options)
    latent, label = inputs(generator)
    images = generator(latent, label)
    assert images.shape == (4, 3, 32, 32)
    assert images.abs().max() <= 1
    assert discriminator(images, label).shape == (4,)


@pytest.mark.parametrize("resolution", [32, 64, 128, 256, 512])
def test_every_biggan_fits_together(resolution):
    """On the meta device, at the paper's width."""
    with torch.device("meta"):
        latent_dim = 4 * 5 * 6 * 7 * 8
        generator = BigGANGenerator(resolution, 3, 10, latent_dim, attention=[resolution // 2])
        discriminator = BigGANDiscriminator(resolution, 3, 10, attention=[resolution // 2])
        images = generator(torch.empty(2, latent_dim), torch.empty(2, dtype=torch.int64))
        assert images.shape == (2, 3, resolution, resolution)
        assert discriminator(images, torch.empty(2, dtype=torch.int64)).shape == (2,)


def test_biggan_128_has_the_published_number_of_parameters():
    """70.43 M and 87.98 M in the authors' PyTorch code at ImageNet-128, ch 96 (buffers of the spectral norm aside)."""
    with torch.device("meta"):
        generator, discriminator = BigGANGenerator(128, 3, 1000), BigGANDiscriminator(128, 3, 1000)
    assert sum(p.numel() for p in generator.parameters()) == pytest.approx(70.43e6, rel=1e-3)
    assert sum(p.numel() for p in discriminator.parameters()) == pytest.approx(87.98e6, rel=1e-3)


def test_progressive_1024_has_the_published_number_of_parameters():
    """23.1 M each (arXiv 1710.10196, table 2)."""
    with torch.device("meta"):
        generator, discriminator = ProgressiveGenerator(1024), ProgressiveDiscriminator(1024)
    assert sum(p.numel() for m in (generator.blocks, generator.to_rgb[-1:]) for p in m.parameters()) == pytest.approx(
        23.1e6, rel=2e-3
    )
    used = (discriminator.blocks, discriminator.from_rgb[-1:], discriminator.logit)
    assert sum(p.numel() for m in used for p in m.parameters()) == pytest.approx(23.1e6, rel=2e-3)


@pytest.mark.parametrize("fading", [False, True])
@pytest.mark.parametrize("resolution", [8, 16])
def test_exactly_the_active_path_has_gradients(resolution, fading):
    for network in progressive(3):
        network.activate(resolution, fading)
        x = (
            torch.randn(4, 8)
            if isinstance(network, ProgressiveGenerator)
            else torch.randn(4, 1, resolution, resolution)
        )
        network(x, torch.arange(4) % 3, resolution, 0.5 if fading else 1.0).square().sum().backward()
        for name, parameter in network.named_parameters():
            assert parameter.requires_grad == (parameter.grad is not None), name
            assert parameter.grad is None or parameter.grad.any(), name


@pytest.mark.parametrize("networks", [progressive, biggan])
def test_labels_matter_and_are_needed(networks):
    generator, discriminator = (network.eval() for network in networks(3))
    latent, label = inputs(generator)
    if networks is biggan:  # class-conditional gains start from an orthogonal, not from a zero, embedding
        assert generator.shared is not None
    images, other = generator(latent, label), generator(latent, (label + 1) % 3)
    assert not torch.allclose(images, other, atol=1e-4)
    assert not torch.allclose(discriminator(images, label), discriminator(images, (label + 1) % 3), atol=1e-6)
    for network, x in ((generator, latent), (discriminator, images)):
        with pytest.raises(ValueError, match="label"):
            network(x)


def test_hierarchical_latents_reach_their_own_block_only():
    generator = biggan(0)[0].eval()
    latent = torch.randn(1, 40)
    first, conditions = generator.conditions(latent, None)
    assert torch.equal(torch.cat((first, *conditions), dim=1), latent)


def test_without_shared_embedding_each_class_has_gains_and_biases_of_its_own():
    """As in BigGAN's CIFAR-10 run: drawn from N(0, 0.02²), without spectral norm, and one-hot labels can be mixed."""
    torch.manual_seed(0)
    generator = BigGANGenerator(32, 3, 10, 8, 0, 8, hierarchical=False, attention=[16], init="normal").eval()
    gain = generator.blocks[0].norm1.gain.weight
    assert gain.shape == (32, 10)
    assert gain.std().item() == pytest.approx(0.02, rel=0.2)
    latent, label = torch.randn(4, 8), torch.arange(4)
    images = generator(latent, label)
    assert torch.equal(images, generator(latent, torch.nn.functional.one_hot(label, 10).float()))
    assert not torch.allclose(images, generator(latent, label + 1), atol=1e-4)
    with torch.no_grad():
        for block in generator.blocks:
            for norm in (block.norm1, block.norm2):
                norm.gain.weight[:, 5:] = norm.gain.weight[:, :5]
                norm.bias.weight[:, 5:] = norm.bias.weight[:, :5]
    torch.testing.assert_close(generator(latent, label), generator(latent, label + 5))


def test_a_gain_may_be_added_and_norms_have_an_epsilon_of_their_own():
    norm = ConditionalBatchNorm2d(4, 3, sn_eps=None, gain_added=True).eval()
    norm.gain.weight.data.normal_()
    norm.bias.weight.data.normal_()
    x, condition = torch.randn(2, 4, 5, 5), torch.randn(2, 3)
    expected = x / (1 + 1e-5) ** 0.5 + 1 + (condition @ (norm.gain.weight + norm.bias.weight).T)[:, :, None, None]
    torch.testing.assert_close(norm(x, condition), expected)
    generator = BigGANGenerator(32, 3, 2, 8, 4, 4, attention=[], bn_eps=1e-3, last_bn_eps=1e-5, sn_eps=None)
    assert (generator.blocks[0].norm1.eps, generator.last_norm.eps) == (1e-3, 1e-5)
    assert not any(name.endswith(".u") for name in generator.state_dict())


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: ProgressiveGenerator(12), "resolution"),
        (lambda: ProgressiveGenerator(16, latent_dim=0), "latent_dim"),
        (lambda: ProgressiveGenerator(16, channels=[8, 4]), r"channels \(=\[8, 4\]\) must be 3"),
        (lambda: ProgressiveGenerator(16, first_norms="none"), "first_norms .*pro_gan_2"),
        (lambda: ProgressiveGenerator(16, num_classes=5, attributes=[2, 3]), "num_classes .* 6"),
        (lambda: ProgressiveDiscriminator(16, stddev_group=0), "stddev_group"),
        (lambda: ProgressiveDiscriminator(16, stddev="zoo"), "stddev .*gan_zoo"),
        (lambda: ProgressiveDiscriminator(16, image_channels=0), "image_channels"),
        (lambda: BigGANGenerator(16), "resolution"),
        (lambda: BigGANGenerator(32, latent_dim=121, attention=[]), "latent_dim"),
        (lambda: BigGANGenerator(32, attention=[64]), "attention"),
        (lambda: BigGANGenerator(32, 3, 10, shared_dim=0, attention=[]), "shared_dim"),
        (lambda: BigGANDiscriminator(32, width=8, attention=[], attention_after=[5]), "attention_after"),
        (lambda: BigGANDiscriminator(32, attention=[4]), "attention"),
        (lambda: BigGANGenerator(32, attention=[], init="zero"), "init"),
    ],
)
def test_mistakes_are_named(make, named):
    with pytest.raises(ValueError, match=named):
        make()
