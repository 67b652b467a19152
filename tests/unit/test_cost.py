"""Parameters and multiply-adds, against networks that are counted by hand."""

import pytest
import torch

from bigtrain.networks import BigGANDeepDiscriminator, BigGANDiscriminator, ProgressiveDiscriminator
from bigtrain.networks import ProgressiveGenerator as Generator
from bigtrain.networks.cost import cost


def test_a_generator_is_counted_as_by_hand():
    """From 6 + 6 numbers to 4² of 16 channels, to 8² of 8."""
    generator = Generator(8, 3, 10, latent_dim=6, fmap_base=32, fmap_max=16)
    convolutions = [(12, 16 * 16, 1, 1), (16, 16, 9, 16), (16, 8, 9, 64), (8, 8, 9, 64), (8, 3, 1, 64)]
    found = cost(generator)
    assert found.multiply_adds == sum(a * b * kernel * pixels for a, b, kernel, pixels in convolutions)
    biases = 16 * 16 + 16 + 8 + 8 + 3
    unused = 16 * 3 + 3  # to_rgb of 4²
    assert found.parameters == sum(a * b * kernel for a, b, kernel, _ in convolutions) + biases + unused + 10 * 6


def test_a_discriminator_with_attention_is_counted_as_by_hand():
    discriminator = BigGANDiscriminator(32, 1, 10, width=2, attention=[16])
    blocks = [
        (1 * 8 * 9 + 8 * 8 * 9) * 32**2 + 1 * 8 * 16**2,  # the shortcut comes after pooling
        (8 * 8 * 9 + 8 * 8 * 9) * 16**2 + 8 * 8 * 8**2,
        2 * (8 * 8 * 9 + 8 * 8 * 9) * 8**2,
    ]
    projections = (8 * 1 + 8 * 1 + 8 * 4 + 4 * 8) * 16**2
    products = (1 + 4) * 16**2 * 8**2
    assert cost(discriminator).multiply_adds == sum(blocks) + projections + products + 8


def test_a_network_is_left_as_it_is_and_nothing_is_computed():
    network = BigGANDeepDiscriminator(32, 1, 3, width=4, attention=[])
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.get_rng_state()
    cost(network)
    assert network.training
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    with torch.device("meta"):
        huge = BigGANDeepDiscriminator(128, 3, 1000, width=1024, init="normal")
    assert cost(huge).parameters > 2e9


def test_one_image_is_counted_also_where_many_processes_share_a_batch():
    network = ProgressiveDiscriminator(8, 1, fmap_base=32, fmap_max=8, stddev_group=None)
    expected = cost(network)
    object.__setattr__(network.blocks[0], "gather", lambda _: pytest.fail("the others were asked"))
    assert cost(network) == expected
    assert network.blocks[0].gather is not None


def test_it_reads_well():
    with torch.device("meta"):
        network = BigGANDiscriminator(128, 3, 1000)
    assert str(cost(network)) == "88 M parameters, 10.6 G multiply-adds an image"
