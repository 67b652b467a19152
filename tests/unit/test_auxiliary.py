"""Conditioning by an auxiliary classifier: what the discriminators say, what the game makes of it, and that it teaches.

(Equations, gradients and updates: test_closed_forms.py. Many devices: tests/distributed/test_matrix.py.)
"""

import inspect
from functools import partial
from typing import get_args, get_type_hints

import pytest
import torch

from bigtrain import networks
from bigtrain.cli.configuration import make_parser, parse
from bigtrain.games import AdversarialGame, AuxiliaryClassifierGame, Player
from bigtrain.games.checks import CLASSIFYING
from bigtrain.networks import (
    BigGANDiscriminator,
    BigGANGenerator,
    ProgressiveDiscriminator,
    ProgressiveGenerator,
    SNGANDiscriminator,
    SNGANGenerator,
)
from bigtrain.objectives import Hinge, NonSaturating
from bigtrain.regularizers import R1, Drift, GradientPenalty
from bigtrain.schedules import Constant, Progressive
from tests.runs import ROOT
from tests.unit.convolutional import FAMILIES, made
from tests.unit.simple import BATCH, PIXELS, LinearGenerator, TanhDiscriminator, simple_game
from tests.unit.tiny import CLASSES, adam, batch, play

SIZES = {"num_classes": CLASSES, "image_channels": 1}
GROWING = {**SIZES, "fmap_base": 32, "fmap_max": 8}


def progressive_game(player_options=None, **options):
    """4² to 8², a new phase every 32 images."""
    players = player_options or {}
    return AuxiliaryClassifierGame(
        Player(partial(ProgressiveGenerator, 8, latent_dim=6, **GROWING), adam, **players),
        Player(partial(ProgressiveDiscriminator, 8, conditioning="classifier", **GROWING), adam, **players),
        NonSaturating(),
        Progressive([4, 8], 8, 0.2, 0.032, 0.032),
        regularizers=options.pop("regularizers", [R1(1.0), GradientPenalty(1.0), Drift(0.1)]),
        **options,
    )


def sngan_game(player_options=None, **options):
    players = player_options or {}
    return AuxiliaryClassifierGame(
        Player(partial(SNGANGenerator, 32, latent_dim=6, width=2, **SIZES), adam, **players),
        Player(partial(SNGANDiscriminator, 32, conditioning="classifier", width=2, **SIZES), adam, **players),
        Hinge(),
        Constant(32, 4, 0.2),
        joint_pass=True,
        **options,
    )


GAMES = [progressive_game, sngan_game]


def discriminator(name, conditioning, num_classes=CLASSES):
    if name != "progressive":
        return made(name, num_classes, conditioning=conditioning).eval()
    torch.manual_seed(0)
    return ProgressiveDiscriminator(16, 3, num_classes, 64, 16, conditioning=conditioning)


@pytest.mark.parametrize("name", [*FAMILIES, "progressive"])
def test_a_classifier_is_not_told_the_label_and_has_a_logit_of_each(name):
    network = discriminator(name, "classifier")
    images = torch.rand(4, 3, network.resolution, network.resolution)
    verdict = network(images, torch.arange(4) % CLASSES)
    assert network.classifies
    assert verdict.shape == (4, 1 + CLASSES)
    assert torch.equal(network(images), verdict)
    assert type(network.classifier) is type(network.logit)
    heads = [sum(p.numel() for p in layer.parameters()) for layer in (network.classifier, network.logit)]
    assert heads[0] == CLASSES * heads[1]


@pytest.mark.parametrize("name", [*FAMILIES, "progressive"])
def test_the_first_column_is_the_logit_of_a_network_that_does_not_classify(name):
    network, plain = discriminator(name, "classifier"), discriminator(name, "projection", num_classes=0)
    state = network.state_dict()
    plain.load_state_dict({key: state[key] for key in plain.state_dict()})
    images = torch.rand(4, 3, network.resolution, network.resolution)
    assert torch.allclose(network(images)[:, 0], plain(images), atol=1e-6)
    assert not plain.classifies
    without = discriminator(name, "classifier", num_classes=0)
    assert not without.classifies
    assert without.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize(("make", "passes"), [(progressive_game, 3), (sngan_game, 2)])
def test_a_step_needs_no_pass_more_than_without_a_classifier(make, passes):
    """Real, fake and the generator's; or both and the generator's."""
    game, calls = make(regularizers=[]), []
    game.discriminator.network.register_forward_hook(lambda *_: calls.append(1))
    play(game, 1)
    assert len(calls) == passes
    assert {"accuracy/real", "accuracy/fake", "loss_d/classifier_real", "loss_g/classifier"} <= game.measured.keys()


@pytest.mark.parametrize("make", GAMES)
def test_a_resumed_game_goes_on_to_the_bit(make):
    through, first, second = play(make(), 5), play(make(), 3), make()
    second.load_training_state(
        {name: piece.tensor.clone() for name, piece in first.training_state().items()}, first.clock.images_seen
    )
    play(second, 2)
    found = {name: piece.tensor for name, piece in second.training_state().items()}
    for name, piece in through.training_state().items():
        assert torch.equal(found[name], piece.tensor), name


@pytest.mark.parametrize("make", GAMES)
def test_activations_may_be_computed_again(make):
    games = [play(make(player_options=options).double(), 3) for options in ({}, {"recompute": True})]
    expected, found = (game.state_dict() for game in games)
    assert all(torch.allclose(found[name].double(), v.double(), rtol=1e-10, atol=1e-10) for name, v in expected.items())


@pytest.mark.parametrize("make", GAMES)
def test_losses_are_not_computed_in_half_precision(make):
    with torch.autocast("cpu", torch.bfloat16):
        game = play(make(), 2)
    assert all(value.dtype == torch.float32 and value.isfinite() for value in game.measured.values())


def coloured(game):
    """The next batch, in which a class is a pattern: pixels of its number's remainder are bright, the others dark."""
    given = batch(game)
    bright = torch.arange(PIXELS) % CLASSES == given["labels"][:, None]  # [n, PIXELS]
    noise = given["images"].flatten(1) // 8
    return {**given, "images": torch.where(bright, 255 - noise, noise).reshape(-1, 1, 4, 4)}


@pytest.mark.parametrize(
    ("weights", "learned"),
    [
        ({}, True),
        ({"fake_weight": 0.0, "generator_weight": 0.3}, True),
        ({"fake_weight": 0.0, "generator_weight": 0.0}, False),
    ],
)
def test_the_classifier_learns_the_classes_and_the_generator_to_make_those_asked_for(weights, learned):
    """Which nothing but the generator's cross-entropy asks for."""
    options = {"optimizer": partial(torch.optim.Adam, lr=0.05, betas=(0.0, 0.9)), "ema_half_life_kimg": 0.1, **weights}
    game = simple_game(LinearGenerator, TanhDiscriminator, NonSaturating, CLASSES, **options)
    for number in range(80):
        game.training_step(coloured(game), number)
    assert game.measured["accuracy/real"] == 1
    latent, label = game.inputs("generator", range(10_000, 10_300))
    with torch.no_grad():
        images = game.average(latent, label).flatten(1)
    of_class = torch.stack([images[:, torch.arange(PIXELS) % CLASSES == c].mean(dim=1) for c in range(CLASSES)])
    right = (of_class.argmax(dim=0) == label).double().mean()
    assert right > 0.95 if learned else right < 0.6


def make_game(game, make_discriminator, num_classes=CLASSES, **options):
    sizes = {"num_classes": num_classes, "image_channels": 1}
    generator = partial(BigGANGenerator, 32, latent_dim=8, shared_dim=4, width=2, attention=[], **sizes)
    players = Player(generator, adam), Player(partial(make_discriminator, 32, width=2, **sizes), adam)
    return game(*players, Hinge(), Constant(32, BATCH, 1.0), **options)


CLASSIFIER = partial(SNGANDiscriminator, conditioning="classifier")


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (
            partial(make_game, AdversarialGame, CLASSIFIER),
            r"which AdversarialGame makes no use of.*AuxiliaryClassifier",
        ),
        (
            partial(make_game, AuxiliaryClassifierGame, partial(BigGANDiscriminator, attention=[])),
            r"\(=BigGANDiscriminator\) must say the class.*conditioning to classifier.*SNGANDiscriminator",
        ),
        (partial(make_game, AuxiliaryClassifierGame, SNGANDiscriminator), "set its conditioning to classifier"),
        (partial(make_game, AuxiliaryClassifierGame, CLASSIFIER, 0), r"num_classes \(=0\) must be at least 1"),
        (partial(make_game, AuxiliaryClassifierGame, CLASSIFIER, real_weight=-1.0), r"real_weight \(=-1.0\)"),
        (partial(make_game, AuxiliaryClassifierGame, CLASSIFIER, generator_weight=-1.0), "generator_weight"),
        (
            partial(make_game, AuxiliaryClassifierGame, CLASSIFIER, real_weight=0.0, fake_weight=0.0),
            "the classifier learns nothing",
        ),
        (partial(ProgressiveDiscriminator, 8, conditioning="none"), r"conditioning \(='none'\).*classifier"),
    ],
)
def test_mistakes_are_named(make, named):
    with pytest.raises(ValueError, match=named):
        make()


def test_the_discriminators_that_are_named_are_those_that_can_classify():
    found = []
    for name in networks.__all__:
        hints = get_type_hints(inspect.unwrap(getattr(networks, name).__init__))
        if name.endswith("Discriminator") and "classifier" in get_args(hints.get("conditioning")):
            found.append(name)
    assert tuple(found) == CLASSIFYING


def test_a_recipe_is_changed_to_it_by_a_fragment(tmp_path):
    fragment = tmp_path / "classifier.yaml"
    fragment.write_text(
        "game:\n  class_path: AuxiliaryClassifierGame\n  init_args:\n    generator_weight: 0.5\n"
        "    discriminator: {network: {init_args: {conditioning: classifier}}}\n"
    )
    config = parse(make_parser(), ["--config", str(ROOT / "configs/quickstart.yaml"), "--config", str(fragment)])
    assert config.game.class_path.endswith(".AuxiliaryClassifierGame")
    options = config.game.init_args
    assert (options.generator_weight, options.real_weight) == (0.5, 1.0)
    network = options.discriminator.init_args.network.init_args
    assert (network.conditioning, network.fmap_base) == ("classifier", 128)
