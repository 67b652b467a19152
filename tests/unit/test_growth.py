"""Growth is exact: at alpha 0 a grown network is the old one, at alpha 1 the new one, to the bit."""

from functools import partial

import pytest
import torch
from torch.nn import functional as F

from bigtrain.games import AdversarialGame, Player
from bigtrain.networks import ProgressiveDiscriminator, ProgressiveGenerator
from bigtrain.objectives import NonSaturating
from bigtrain.regularizers import R1
from bigtrain.sampling.pixels import fade, to_float
from bigtrain.schedules import Progressive
from tests.unit.tiny import CLASSES, adam, batch

RESOLUTIONS = [8, 16, 32]
SIZES = {"image_channels": 1, "fmap_base": 64, "fmap_max": 16}
DTYPES = [torch.float32, torch.float64]
#: Of a generator, and of a discriminator.
CONDITIONS = [(0, "projection"), (CLASSES, "projection"), (CLASSES, "classifier")]


def make_generator(resolution, classes):
    return ProgressiveGenerator(resolution, num_classes=classes, latent_dim=6, **SIZES)


def make_discriminator(resolution, classes, conditioning):
    return ProgressiveDiscriminator(resolution, num_classes=classes, conditioning=conditioning, **SIZES)


def trained(network, dtype=torch.float32):
    """Biases and all have moved."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return network.to(dtype)


def alone(make, resolution, network):
    """A network that was made for that resolution and no other, with those of the weights that it has."""
    made = make(resolution).to(next(network.parameters()).dtype)
    state = network.state_dict()
    made.load_state_dict({name: state[name] for name in made.state_dict()})
    return made


def upsampled(images):
    return images.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


def inputs(dtype, n=4):
    return torch.randn(n, 6, dtype=dtype), torch.arange(n) % CLASSES


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", [0, CLASSES])
@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_a_grown_generator_is_the_upsampled_old_one_and_then_the_new_one(resolution, classes, dtype):
    make = partial(make_generator, classes=classes)
    network, (latent, label) = trained(make(32), dtype), inputs(dtype)
    old = upsampled(alone(make, resolution // 2, network)(latent, label))
    new = alone(make, resolution, network)(latent, label)
    assert torch.equal(network(latent, label, resolution, 0.0), old)
    assert torch.equal(network(latent, label, resolution, 1.0), new)
    assert torch.equal(network(latent, label, resolution // 2), alone(make, resolution // 2, network)(latent, label))
    assert torch.allclose(network(latent, label, resolution, 0.25), 0.75 * old + 0.25 * new, atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("classes", "conditioning"), CONDITIONS)
@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_a_grown_discriminator_is_the_old_one_of_pooled_images_and_then_the_new_one(
    resolution, classes, conditioning, dtype
):
    make = partial(make_discriminator, classes=classes, conditioning=conditioning)
    network, (_, label) = trained(make(32), dtype), inputs(dtype)
    images = torch.randn(4, 1, resolution, resolution, dtype=dtype)
    old = alone(make, resolution // 2, network)(F.avg_pool2d(images, 2), label)
    new = alone(make, resolution, network)(images, label)
    assert not torch.allclose(old, new)
    assert torch.equal(network(images, label, resolution, 0.0), old)
    assert torch.equal(network(images, label, resolution, 1.0), new)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_only_the_branch_that_is_seen_has_a_gradient(resolution, alpha):
    """At alpha 0 the new layers have one of zeros; at alpha 1 the old layer of colours has none or zeros."""
    last = resolution.bit_length() - 3
    latent, label = inputs(torch.float32)
    generator, discriminator = (
        trained(make_generator(32, CLASSES)),
        trained(make_discriminator(32, CLASSES, "projection")),
    )
    for network, colours, x in (
        (generator, "to_rgb", latent),
        (discriminator, "from_rgb", torch.randn(4, 1, resolution, resolution)),
    ):
        network.activate(resolution, fading=True)
        network(x, label, resolution, alpha).square().sum().backward()
        new, old = (f"blocks.{last}.", f"{colours}.{last}."), f"{colours}.{last - 1}."
        for name, parameter in network.named_parameters():
            moves = parameter.grad is not None and bool(parameter.grad.any())
            if name.startswith(new):
                assert parameter.requires_grad
                assert moves == (alpha == 1), name
            elif name.startswith(old):
                assert parameter.requires_grad
                assert moves == (alpha == 0), name
            else:
                assert moves == parameter.requires_grad, name


# ---------------------------------------------------------------- In the course of a game


def growing_game(classes):
    """4² to 16², in phases of two steps each."""
    return AdversarialGame(
        Player(partial(make_generator, 16, classes), adam),
        Player(partial(make_discriminator, 16, classes, "projection"), adam),
        NonSaturating(),
        Progressive([4, 8, 16], 8, 0.08, 0.016, 0.016),
        [R1(1.0)],
        ema_half_life_kimg=0.01,
    )


def images_at(game, moment, network, latent, label):
    return network(latent, label, **game.place(moment, network))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", [0, CLASSES])
def test_nothing_jumps_where_a_phase_ends(classes, dtype):
    """The images of generator and average and what the discriminator says of them, with the weights of that moment."""
    game, switches = growing_game(classes).to(dtype), []
    make = partial(make_generator, classes=classes)
    latent, label = inputs(dtype)
    for number in range(10):
        before, moment = game.moment, game.schedule.at(game.clock.images_seen)
        if moment.phase != before.phase:
            switches.append((moment.resolution, moment.phase.kind, moment.alpha))
            for network in (game.generator_network, game.average):
                images = images_at(game, moment, network, latent, label)
                if moment.phase.kind == "transition":
                    assert torch.equal(images, upsampled(images_at(game, before, network, latent, label)))
                else:
                    assert torch.equal(images, alone(make, moment.resolution, network)(latent, label))
            if moment.phase.kind == "transition":
                images = torch.randn(4, 1, moment.resolution, moment.resolution, dtype=dtype)
                said = game.discriminate(before, F.avg_pool2d(images, 2), label)
                assert torch.equal(game.discriminate(moment, images, label), said)
        game.training_step(batch(game), number)
    assert switches == [(8, "transition", 0.0), (8, "stabilize", 1.0), (16, "transition", 0.0), (16, "stabilize", 1.0)]


def test_real_images_fade_in_from_their_averages():
    """The first step of a transition shows area averages, enlarged: exact for numbers whose sums are."""
    game, shown = growing_game(0), []
    for number in range(2):
        game.training_step(batch(game), number)
    given = batch(game)
    given["images"] = given["images"] % 2 * 255
    game.discriminator.network.register_forward_pre_hook(lambda _, x: shown.append(x[0].detach().clone()))
    game.training_step(given, 2)
    real = to_float(given["images"])  # -1 and 1
    average = sum(real[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)) / 4
    assert torch.equal(shown[0], upsampled(average))
    assert torch.equal(fade(real, 0.0), upsampled(average))
