"""DCGAN, and the residual networks of SNGAN, WGAN-GP and SAGAN."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

from bigtrain.games import AdversarialGame, Player
from bigtrain.networks import (
    DCGANDiscriminator,
    DCGANGenerator,
    SAGANDiscriminator,
    SAGANGenerator,
    SNGANDiscriminator,
    SNGANGenerator,
    WGANGPDiscriminator,
)
from bigtrain.networks.conditioning import LABEL_DIM
from bigtrain.networks.layers import SpectralNorm
from bigtrain.objectives import Hinge
from bigtrain.regularizers import R1, GradientPenalty
from bigtrain.schedules import Constant
from tests.unit.convolutional import FAMILIES, count, inputs, made, opened, pair, sizes
from tests.unit.tiny import CLASSES, adam, play

EACH_RESOLUTION = [(name, resolution) for name, family in FAMILIES.items() for resolution in family[2]]
TOLD = ["projection", "concatenation"]
LABELLED = [*TOLD, "classifier"]


@pytest.mark.parametrize("num_classes", [0, 3])
@pytest.mark.parametrize(("name", "resolution"), EACH_RESOLUTION)
def test_shapes(name, resolution, num_classes):
    generator, discriminator = pair(name, num_classes, resolution)
    latent, label = inputs(generator, 3)
    images = generator(latent, label)
    assert images.shape == (3, 3, resolution, resolution)
    assert images.abs().max() <= 1
    assert discriminator(images, label).shape == (3,)


@pytest.mark.parametrize("conditioning", LABELLED)
@pytest.mark.parametrize("name", ["sngan", "sagan"])
def test_every_weight_of_a_discriminator_is_under_spectral_norm(name, conditioning):
    discriminator = made(name, 3, conditioning=conditioning)
    normalized = [module for module in discriminator.modules() if isinstance(module, SpectralNorm)]
    weights = {id(module.weight) for module in normalized}
    assert all(id(p) in weights for p in discriminator.parameters() if p.ndim > 1)
    with torch.no_grad():
        for _ in range(100):
            discriminator(torch.rand(1, 3, 32, 32), torch.tensor([0]))
        for module in normalized:
            assert (
                torch.linalg.matrix_norm(module.normalized_weight().flatten(1), ord=2) <= 1.05
            )  # the estimate grows towards it


@pytest.mark.parametrize("conditioning", TOLD)
@pytest.mark.parametrize("name", FAMILIES)
def test_labels_matter_to_discriminators_and_are_needed(name, conditioning):
    discriminator = made(name, 3, conditioning=conditioning).eval()
    images = torch.rand(4, 3, discriminator.resolution, discriminator.resolution)
    label = torch.arange(4) % 3
    assert not torch.allclose(discriminator(images, label), discriminator(images, (label + 1) % 3), rtol=1e-4, atol=0)
    with pytest.raises(ValueError, match="label"):
        discriminator(images)


@pytest.mark.parametrize("name", FAMILIES)
def test_labels_do_not_matter_to_discriminators_without_conditioning(name):
    discriminator = made(name, 3, conditioning="none").eval()
    images = torch.rand(2, 3, discriminator.resolution, discriminator.resolution)
    assert torch.equal(discriminator(images, torch.tensor([0, 1])), discriminator(images))
    assert count(discriminator) == count(made(name, 0))


@pytest.mark.parametrize(("name", "taken"), [("dcgan", 8), ("sngan", 16)])
def test_a_concatenated_label_stands_beside_the_features_of_half_of_the_blocks(name, taken):
    discriminator = made(name, 3, resolution=128, conditioning="concatenation")
    convolutions = [block.conv if name == "dcgan" else block.conv1 for block in discriminator.blocks]
    plain = [block.conv if name == "dcgan" else block.conv1 for block in made(name, 0, 128).blocks]
    half = len(plain) // 2
    more = [a.weight.shape[1] - b.weight.shape[1] for a, b in zip(convolutions, plain, strict=True)]
    assert more == [LABEL_DIM if i == half else 0 for i in range(len(plain))]
    assert plain[half].weight.shape[1] == taken / 2


@pytest.mark.parametrize(
    ("name", "options"), [*((name, {}) for name in FAMILIES), ("dcgan", {"conditioning": "batch_norm"})]
)
def test_labels_matter_to_generators_and_are_needed(name, options):
    torch.manual_seed(0)
    generator = FAMILIES[name][0](**sizes(name, 3), latent_dim=8, **options)
    latent, label = inputs(generator)
    other = (label + 1) % 3
    if name != "dcgan" or options:  # each class's gain starts from 1, its bias from 0
        assert torch.equal(generator.eval()(latent, label), generator(latent, other))
    opened(generator)
    assert not torch.allclose(generator(latent, label), generator(latent, other), rtol=1e-4, atol=0)
    with pytest.raises(ValueError, match="label"):
        generator(latent)


@pytest.mark.parametrize("name", FAMILIES)
def test_generators_take_mixtures_of_classes(name):
    generator = opened(pair(name, 3)[0]).eval()
    latent, label = inputs(generator)
    images = generator(latent, label)
    vectors = generator.embed_label(label)
    assert torch.equal(generator(latent, vectors), images)
    mixed = generator(latent, torch.lerp(vectors, generator.embed_label((label + 1) % 3), 0.5))
    assert not torch.allclose(mixed, images, rtol=1e-4, atol=0)
    with pytest.raises(ValueError, match="no vectors"):
        pair(name, 0)[0].embed_label(label)


@pytest.mark.parametrize("conditioning", LABELLED)
@pytest.mark.parametrize("name", FAMILIES)
def test_gradients_reach_every_parameter(name, conditioning):
    generator = opened(pair(name, 3)[0])
    discriminator = opened(made(name, 3, conditioning=conditioning))
    latent, label = inputs(generator, 6)
    discriminator(generator(latent, label), label).square().sum().backward()
    for network in (generator, discriminator):
        for key, parameter in network.named_parameters():
            assert parameter.grad is not None, key
            assert parameter.ndim == 1 or parameter.grad.any(), key  # a bias before a batch norm has none, but rounding


@pytest.mark.parametrize("name", FAMILIES)
def test_the_norm_of_the_gradient_can_be_differentiated(name):
    """In double precision, against differences along a direction in the space of the weights."""
    start = made(name, 3).double()
    images = torch.rand(4, 3, start.resolution, start.resolution, dtype=torch.float64, requires_grad=True)
    key = "blocks.1.conv.weight" if name == "dcgan" else "blocks.1.conv1.weight"
    direction = torch.randn_like(start.get_parameter(key))

    def penalty(step):
        """And the weight that it is a function of, whose spectral norm has iterated until it no longer moves."""
        discriminator = copy.deepcopy(start)
        weight = discriminator.get_parameter(key)
        with torch.no_grad():
            weight.add_(step * direction)
            layer = discriminator.get_submodule(key.removesuffix(".weight"))
            for _ in range(300 if isinstance(layer, SpectralNorm) else 0):
                layer.normalized_weight()
        logits = discriminator(images, torch.arange(4) % 3)
        (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
        return gradient.square().sum(), weight

    (found,) = torch.autograd.grad(*penalty(0.0))
    expected = (penalty(1e-5)[0] - penalty(-1e-5)[0]).item() / 2e-5
    assert expected != 0
    assert (found * direction).sum().item() == pytest.approx(expected, rel=1e-3)


def game(name, double=False, **player_options):
    options = sizes(name, CLASSES, channels=1)
    made = AdversarialGame(
        Player(partial(FAMILIES[name][0], latent_dim=6, **options), adam, **player_options),
        Player(partial(FAMILIES[name][1], **options), adam, **player_options),
        Hinge(),
        Constant(options["resolution"], 4, 0.2, 1),
        [R1(1.0), GradientPenalty(1.0)],
    )
    return made.double() if double else made


@pytest.mark.parametrize("name", FAMILIES)
def test_a_step_of_a_game_moves_all_weights_and_leaves_them_finite(name):
    torch.manual_seed(0)
    one = game(name)
    before = {key: parameter.clone() for key, parameter in one.named_parameters()}
    play(one, 1)
    for key, parameter in one.named_parameters():
        assert torch.isfinite(parameter).all(), key
        if parameter.ndim > 1 and "attention" not in key and "ema" not in key:
            assert not torch.equal(parameter, before[key]), key


@pytest.mark.parametrize("name", FAMILIES)
def test_computing_activations_again_changes_nothing(name):
    states = []
    for options in ({}, {"recompute": True}):
        torch.manual_seed(0)
        states.append(
            {key: piece.tensor for key, piece in play(game(name, True, **options), 2).training_state().items()}
        )
    assert states[0].keys() == states[1].keys()
    for key, value in states[0].items():
        assert torch.allclose(states[1][key].double(), value.double(), rtol=1e-10, atol=1e-10), key


@pytest.mark.parametrize("name", FAMILIES)
def test_every_batch_norm_can_look_at_other_processes(name):
    generator, discriminator = pair(name, 3)
    norms = [m for network in (generator, discriminator) for m in network.modules() if hasattr(m, "running_mean")]
    assert norms
    assert all(hasattr(norm, "gather") for norm in norms)


@pytest.mark.parametrize(("name", "pool"), [("sngan", torch.sum), ("sagan", torch.sum), ("wgan-gp", torch.mean)])
def test_the_last_features_are_summed_or_averaged_over_the_pixels(name, pool):
    discriminator = made(name, 0)
    seen = {}
    discriminator.blocks[-1].register_forward_hook(lambda *given: seen.update(last=given[2]))
    discriminator.logit.register_forward_pre_hook(lambda _, given: seen.update(features=given[0]))
    discriminator(torch.rand(2, 3, 32, 32))
    assert torch.allclose(seen["features"], pool(seen["last"].relu(), dim=(2, 3)))


def test_attention_stands_where_it_is_told_to():
    seen = []
    for network in (SAGANGenerator(32, width=4, attention=[16, 8]), SAGANDiscriminator(32, width=4, attention=[8, 16])):
        for module in network.attention.values():
            module.register_forward_hook(lambda *given: seen.append(tuple(given[2].shape[1:])))
        network(torch.rand(2, 128) if isinstance(network, SAGANGenerator) else torch.rand(2, 3, 32, 32))
    assert seen == [(16, 8, 8), (16, 16, 16), (8, 16, 16), (8, 8, 8)]


@pytest.mark.parametrize("normalization", ["none", "layer"])
def test_a_critic_looks_at_each_image_by_itself(normalization):
    critic = made("wgan-gp", 3, normalization=normalization)
    images, label = torch.rand(4, 3, 32, 32), torch.arange(4) % 3
    alone = [critic(images[i : i + 1], label[i : i + 1]) for i in range(4)]
    assert torch.allclose(critic(images, label), torch.cat(alone), atol=1e-5)
    norms = [module for module in critic.modules() if isinstance(module, nn.GroupNorm)]
    assert len(norms) == (6 if normalization == "layer" else 0)  # two a block, but in the first one


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: DCGANGenerator(8), "resolution"),
        (lambda: DCGANDiscriminator(256), "resolution"),
        (lambda: DCGANGenerator(32, width=0), "width"),
        (lambda: DCGANGenerator(32, conditioning="projection"), "conditioning"),
        (lambda: DCGANDiscriminator(32, conditioning="batch_norm"), "conditioning"),
        (lambda: SNGANGenerator(16), "resolution"),
        (lambda: SNGANDiscriminator(256), "resolution"),
        (lambda: SNGANDiscriminator(32, width=0), "width"),
        (lambda: SNGANDiscriminator(32, conditioning="sum"), "conditioning"),
        (lambda: WGANGPDiscriminator(32, normalization="batch"), "normalization"),
        (lambda: SAGANGenerator(32), "attention"),
        (lambda: SAGANDiscriminator(32, attention=[4]), "attention"),
        (lambda: SAGANDiscriminator(128, width=4), "width"),
    ],
)
def test_mistakes_are_named(make, named):
    with pytest.raises(ValueError, match=named):
        make()
