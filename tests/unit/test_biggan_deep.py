"""BigGAN-deep: sizes of the paper, blocks that keep what they are given, and a condition that all of them see."""

import pytest
import torch
from torch import nn

from bigtrain.networks import BigGANDeepDiscriminator, BigGANDeepGenerator, DeepGenerator
from tests.unit.tiny import biggan_deep_game, play

CLASSES = [0, 3]
SMALL = {"width": 4, "attention": [16]}


def networks(num_classes=3, depth=2, attention_of_d=(), **options):
    torch.manual_seed(0)
    sizes = {"depth": depth, **SMALL, **options}
    return (
        BigGANDeepGenerator(32, 1, num_classes, 6, 5, **sizes),
        BigGANDeepDiscriminator(32, 1, num_classes, **sizes, attention_after=list(attention_of_d)),
    )


def inputs(generator, n=4):
    label = torch.arange(n) % generator.num_classes if generator.num_classes else None
    return torch.randn(n, generator.latent_dim), label


@pytest.mark.parametrize("num_classes", CLASSES)
@pytest.mark.parametrize("options", [{}, {"depth": 1}, {"depth": 3}, {"init": "normal"}, {"init": "xavier"}])
def test_shapes(num_classes, options):
    generator, discriminator = networks(num_classes, **options)
    latent, label = inputs(generator)
    images = generator(latent, label)
    assert images.shape == (4, 1, 32, 32)
    assert images.abs().max() <= 1
    assert discriminator(images, label).shape == (4,)


def sizes_within(network, *given):
    """Pixels after each block, and those at which attention stands."""
    after, attended = [], []
    for block in network.blocks:
        block.register_forward_hook(lambda *args: after.append(args[-1].shape[-1]))
    for attention in network.attention.values():
        attention.register_forward_hook(lambda *args: attended.append((len(after), args[-1].shape[-1])))
    return network(*given), after, attended


@pytest.mark.parametrize("resolution", [32, 64, 128, 256, 512])
def test_every_resolution_fits_together(resolution):
    """On the meta device, at the paper's width: the second block of two doubles, the first of two halves."""
    at = 64 if resolution > 64 else 16
    with torch.device("meta"):
        generator = BigGANDeepGenerator(resolution, 3, 10, attention=[at])
        discriminator = BigGANDeepDiscriminator(resolution, 3, 10, attention=[at])
        label = torch.empty(2, dtype=torch.int64)
        images, up, above = sizes_within(generator, torch.empty(2, 128), label)
        logits, down, below = sizes_within(discriminator, images, label)
    assert images.shape == (2, 3, resolution, resolution)
    assert logits.shape == (2,)
    assert up == [size for i in range(len(up) // 2) for size in (4 << i, 8 << i)]
    halved = [max(resolution >> (i + 1), 4 if resolution > 32 else 8) for i in range(len(down) // 2)]
    assert down == [size for size in halved for _ in range(2)]
    assert above == [(up.index(at) + 1, at)]
    assert below == [(down.index(at) + 2, at)]


#: The authors' last convolution makes 128 channels, of which three are the image's (Hugging Face's `conv_to_rgb`, and
#: `experimental_fast_conv_to_rgb` in compare_gan); those that are thrown away have these weights and biases.
THROWN_AWAY = (128 - 3) * (128 * 9 + 1)


def count(network):
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(("resolution", "millions"), [(128, 50.4), (256, 55.9), (512, 56.2)])
def test_the_generator_has_the_published_number_of_parameters(resolution, millions):
    """That of the authors' models at ImageNet, as Hugging Face's pytorch-pretrained-BigGAN gives it (README)."""
    with torch.device("meta"):
        found = count(BigGANDeepGenerator(resolution, 3, 1000))
    assert round((found + THROWN_AWAY) / 1e6, 1) == millions


def test_both_have_the_parameters_of_another_implementation():
    """Google's compare_gan at 128²: resnet_biggan_deep_test.py."""
    with torch.device("meta"):
        generator, discriminator = BigGANDeepGenerator(128, 3, 1000), BigGANDeepDiscriminator(128, 3, 1000)
    assert (count(generator), count(discriminator)) == (50_244_484, 34_590_210)


@pytest.mark.parametrize("num_classes", CLASSES)
def test_gradients_reach_every_parameter(num_classes):
    for network in networks(num_classes):
        for attention in network.attention.values():
            nn.init.ones_(attention.gamma)  # at 0 it hides what is behind it
        x, label = inputs(network) if isinstance(network, BigGANDeepGenerator) else (torch.randn(4, 1, 32, 32), None)
        label = torch.arange(4) % 3 if num_classes else None
        network(x, label).square().sum().backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.any(), name


def silent(channels, out_channels):
    """In place of a residual's last convolution. (A weight of zeros under spectral norm is 0 / 0.)"""
    last = nn.Conv2d(channels, out_channels, 1)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return last


def test_blocks_keep_what_they_are_given():
    """Without their residuals: channels are dropped, or come after those that there are."""
    generator, discriminator = networks()
    x = torch.randn(2, 16, 8, 8)
    for block in (generator.blocks[0], discriminator.blocks[1]):
        block.conv4 = silent(4, 16)
    assert torch.equal(generator.blocks[0](x, torch.randn(2, 11)), x)
    assert torch.equal(discriminator.blocks[1](x), x)
    with torch.device("meta"):
        wide, deep = BigGANDeepGenerator(64, attention=[], width=4), BigGANDeepDiscriminator(64, attention=[], width=4)
    narrows, widens = wide.to_empty(device="cpu").blocks[3], deep.to_empty(device="cpu").blocks[2]
    for module in [*narrows.modules(), *widens.modules()]:
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            tensor.data.uniform_(0.5, 1)
    narrows.conv4, widens.conv4 = silent(16, 32), silent(4, 16)
    x = torch.randn(2, 64, 8, 8)
    assert torch.equal(narrows(x, torch.randn(2, 128))[:, :, ::2, 1::2], x[:, :32])
    x = torch.randn(2, 8, 8, 8)
    found = widens(x)
    assert torch.equal(found[:, :8], nn.functional.avg_pool2d(x, 2))
    assert found.shape == (2, 16, 4, 4)
    assert found[:, 8:].any()


def test_every_norm_sees_the_whole_latent_and_the_class():
    generator, _ = networks()
    latent, label = inputs(generator)
    seen = []
    for block in generator.blocks:
        block.register_forward_pre_hook(lambda _, given: seen.append(given[1]))
    generator(latent, label)
    expected = torch.cat((latent, generator.shared(label)), dim=1)
    assert len(seen) == 6
    assert all(torch.equal(condition, expected) for condition in seen)


def test_labels_matter_and_are_needed():
    generator, discriminator = (network.eval() for network in networks())
    latent, label = inputs(generator)
    images = generator(latent, label)
    assert torch.equal(images, generator(latent, generator.embed_label(label)))
    assert not torch.allclose(images, generator(latent, (label + 1) % 3), atol=1e-4)
    assert not torch.allclose(images, generator(-latent, label), atol=1e-4)
    assert not torch.allclose(discriminator(images, label), discriminator(images, (label + 1) % 3), atol=1e-6)
    for network, x in ((generator, latent), (discriminator, images)):
        with pytest.raises(ValueError, match="label"):
            network(x)


def test_a_step_stays_finite_and_trains_both():
    game = biggan_deep_game()
    before = {name: value.clone() for name, value in game.state_dict().items()}
    play(game, 1)
    after = game.state_dict()
    assert all(value.isfinite().all() for value in after.values())
    for player in ("generator", "discriminator"):
        assert not torch.equal(before[f"{player}.network.first.weight"], after[f"{player}.network.first.weight"])


def test_blocks_given_one_by_one_are_the_same_generator():
    torch.manual_seed(0)
    generator = BigGANDeepGenerator(32, 1, 3, 6, 5, **SMALL).eval()
    torch.manual_seed(0)
    same = DeepGenerator(32, 1, 3, 6, 5, [16] * 7, [False, True] * 3, attention=[4]).eval()
    latent, label = inputs(generator)
    assert torch.equal(generator(latent, label), same(latent, label))
    assert generator.state_dict().keys() == same.state_dict().keys()


def test_blocks_of_any_widths_with_attention_before_them_all():
    generator = DeepGenerator(16, 1, 0, 6, 5, [32, 16, 16, 8], [False, True, True], attention=[0, 2, 3], sn_eps=None)
    for attention in generator.attention.values():
        nn.init.ones_(attention.gamma)
    latent, _ = inputs(generator)
    images, after, attended = sizes_within(generator, latent)
    assert (images.shape, after, attended) == ((4, 1, 16, 16), [4, 8, 16], [(0, 4), (2, 8), (3, 16)])
    images.sum().backward()
    assert all(parameter.grad.any() for parameter in generator.parameters())


@pytest.mark.parametrize(
    ("channels", "doubles", "attention", "named"),
    [
        ([16, 16], [True], [], r"resolution \(=16\)"),
        ([16, 16], [True, True], [], r"channels \(=\[16, 16\]\)"),
        ([8, 8, 16], [True, True], [], "must not grow"),
        ([8, 3, 3], [True, True], [], "4 or more"),
        ([16, 16, 16], [True, True], [3], r"attention \(=\[3\]\)"),
        ([16, 16, 16, 16], [True, True, False], [2, 3], "one at a resolution"),
    ],
)
def test_blocks_that_do_not_fit_are_named(channels, doubles, attention, named):
    with pytest.raises(ValueError, match=named):
        DeepGenerator(16, 1, 0, 6, 5, channels, doubles, attention)


def test_attention_behind_numbered_blocks():
    _, discriminator = networks(attention_of_d=[2, 5])
    images = torch.randn(2, 1, 32, 32)
    _, after, attended = sizes_within(discriminator, images, torch.arange(2))
    assert after == [16, 16, 8, 8, 8, 8]
    assert sorted(attended) == [(2, 16), (2, 16), (5, 8)]
    with pytest.raises(ValueError, match=r"attention_after \(=\[7\]\) .* among \[1, 2, 3, 4, 5, 6\]"):
        networks(attention_of_d=[7])


@pytest.mark.parametrize("kind", [BigGANDeepGenerator, BigGANDeepDiscriminator])
@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"resolution": 16}, "resolution"),
        ({"width": 2}, r"width \(=2\)"),
        ({"depth": 0}, r"depth \(=0\)"),
        ({"attention": [4]}, "attention"),
        ({"init": "zero"}, "init"),
    ],
)
def test_mistakes_are_named(kind, options, named):
    with pytest.raises(ValueError, match=named):
        kind(**{"resolution": 32, **SMALL, **options})
