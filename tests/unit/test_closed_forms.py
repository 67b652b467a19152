"""A game's own turns against the equations: written down for linear and quadratic players, and finite differences.

Everything is in float64. What is expected is computed by numpy, with derivatives taken by hand.
"""

from itertools import product

import numpy as np
import pytest
import torch
from scipy.special import expit, log_softmax, softmax

from bigtrain import randomness
from bigtrain.objectives import Hinge, NonSaturating, Wasserstein
from bigtrain.regularizers import R1, ApproximateR1, Drift, GradientPenalty, OrthogonalReg
from bigtrain.sampling.latents import draw_labels, draw_latents
from tests.unit.simple import (
    BATCH,
    PIXELS,
    RATE,
    LinearDiscriminator,
    LinearGenerator,
    QuadraticDiscriminator,
    TanhDiscriminator,
    TanhGenerator,
    prepared,
    simple_game,
)
from tests.unit.tiny import CLASSES, batch, play


def softplus(t):
    return np.logaddexp(0, t)


#: Each with its derivative: what is minimised of a real logit and of a fake one, and of a fake one by the generator.
NON_SATURATING = (
    (lambda t: softplus(-t), lambda t: -expit(-t)),
    (softplus, expit),
    (lambda t: softplus(-t), lambda t: -expit(-t)),
)
HINGE = (
    (lambda t: np.maximum(0, 1 - t), lambda t: -1.0 * (t < 1)),
    (lambda t: np.maximum(0, 1 + t), lambda t: 1.0 * (t > -1)),
    (lambda t: -t, lambda t: -np.ones_like(t)),
)
WASSERSTEIN = (
    (lambda t: -t, lambda t: -np.ones_like(t)),
    (lambda t: t, np.ones_like),
    (lambda t: -t, lambda t: -np.ones_like(t)),
)
EQUATIONS = {NonSaturating: NON_SATURATING, Hinge: HINGE, Wasserstein: WASSERSTEIN}
PENALTIES = {
    "gradient penalty": GradientPenalty(10),
    "gradient penalty around 1.5": GradientPenalty(4, target=1.5),
    "gradient penalty around 750": GradientPenalty(10, target=750),
    "R1": R1(2),
    "approximate R1": ApproximateR1(1.5, sigma=0.1),
    "drift": Drift(0.3),
}
CUTS = list(product([1, 2], [False, True]))  # accumulation, joint pass
WEIGHTS = {"real_weight": 0.7, "fake_weight": 0.4, "generator_weight": 0.6}


def weights_of(network):
    return {name: parameter.detach().numpy().copy() for name, parameter in network.named_parameters()}


# ---------------------------------------------------------------- D(x) = ½ xᵀQx + w·x + b, of rows x [n, PIXELS]


def symmetric(d):
    q = d.get("quadratic", np.zeros((PIXELS, PIXELS)))
    return (q + q.T) / 2


def logit(d, x):
    return ((x @ symmetric(d)) * x).sum(axis=1) / 2 + x @ d["linear"] + d["constant"]


def slope(d, x):
    """∇D(x), [n, PIXELS]."""
    return x @ symmetric(d) + d["linear"]


def by_logits(pull, x):
    """The gradient of a mean over i whose i-th part has the derivative pull[i] by D(x[i])."""
    n = len(x)
    return {"quadratic": (pull * x.T) @ x / (2 * n), "linear": pull @ x / n, "constant": np.array([pull.mean()])}


def by_slopes(pull, x):
    """The gradient of a mean over i whose i-th part has the derivative pull[i] by ∇D(x[i])."""
    n = len(x)
    return {"quadratic": (pull.T @ x + x.T @ pull) / (2 * n), "linear": pull.mean(axis=0), "constant": np.zeros(1)}


def penalty(regularizer, d, x, fake):
    """Its value, and its gradient by the weights of D."""
    if isinstance(regularizer, Drift):
        t = logit(d, x)
        return regularizer.weight * np.mean(t**2), by_logits(2 * regularizer.weight * t, x)
    if isinstance(regularizer, R1):
        g = slope(d, x)
        return regularizer.weight / 2 * np.mean((g**2).sum(axis=1)), by_slopes(regularizer.weight * g, x)
    if isinstance(regularizer, GradientPenalty):
        between = x + randomness.uniform(0, "mix", range(BATCH)) * (fake - x)
        g = slope(d, between)
        norm = np.linalg.norm(g, axis=1, keepdims=True)
        excess = (norm - regularizer.target) / regularizer.target
        pull = 2 * regularizer.weight * excess / regularizer.target * g / norm
        return regularizer.weight * np.mean(excess**2), by_slopes(pull, between)
    assert isinstance(regularizer, ApproximateR1)
    step = regularizer.sigma * randomness.normal(0, "near", range(BATCH), PIXELS)
    # (D(x + s) - D(x)) / σ = (∇D(x)·s + ½ sᵀQs) / σ, whose gradient by Q is that of ∇D(x + ½s)·s
    difference = (slope(d, x + step / 2) * step).sum(axis=1) / regularizer.sigma
    pull = regularizer.weight * difference[:, None] * step / regularizer.sigma
    return regularizer.weight / 2 * np.mean(difference**2), by_slopes(pull, x + step / 2)


# ---------------------------------------------------------------- The turns


def cross_entropy(d, x, label):
    """L_C of the classes, its derivative by their logits [n, classes], and how often the likeliest is the label."""
    logits = x @ d["classes"].T + d["class_constants"]
    own = np.eye(logits.shape[1])[label]
    return (
        -np.mean(log_softmax(logits, axis=1)[own == 1]),
        softmax(logits, axis=1) - own,
        np.mean(logits.argmax(1) == label),
    )


def fakes(g, turn, class_counts):
    """z, y and G(z, y) of a turn."""
    z = draw_latents(0, f"latent/{turn}", range(BATCH), 3).double().numpy()
    y = draw_labels(0, f"label/{turn}", range(BATCH), class_counts).numpy()
    return z, y, z @ g["matrix"].T + (g["shift"][y] if "shift" in g else 0)


def discriminator_turn(equations, d, g, given, regularizers, classes):
    """What is minimised, by its names in the metrics, and the gradient by D's weights."""
    (of_real, by_real), (of_fake, by_fake), _ = equations
    x = (given["images"].numpy().astype(np.float32) / np.float32(127.5) - 1).astype(np.float64).reshape(BATCH, PIXELS)
    label = given["labels"].numpy()
    _, fake_label, fake = fakes(g, "discriminator", [1] * classes)
    real_logits, fake_logits = logit(d, x), logit(d, fake)
    values = {"loss_d/adversarial": of_real(real_logits).mean() + of_fake(fake_logits).mean()}
    parts = [by_logits(by_real(real_logits), x), by_logits(by_fake(fake_logits), fake)]
    for regularizer in regularizers:
        values[f"loss_d/{regularizer.name}"], part = penalty(regularizer, d, x, fake)
        parts.append(part)
    gradient = {name: sum(part[name] for part in parts) for name in parts[0]}
    if classes:
        for kind, images, y in (("real", x, label), ("fake", fake, fake_label)):
            weight = WEIGHTS[f"{kind}_weight"]
            value, pull, values[f"accuracy/{kind}"] = cross_entropy(d, images, y)
            values[f"loss_d/classifier_{kind}"] = weight * value
            gradient["classes"] = gradient.get("classes", 0) + weight * pull.T @ images / BATCH
            gradient["class_constants"] = gradient.get("class_constants", 0) + weight * pull.mean(axis=0)
    return values, gradient


def generator_turn(equations, d, g, classes):
    """The same by G's weights, and by the images."""
    _, _, (of_fake, by_fake) = equations
    z, label, fake = fakes(g, "generator", [1] * classes)
    logits = logit(d, fake)
    values = {"loss_g": of_fake(logits).mean()}
    by_images = by_fake(logits)[:, None] * slope(d, fake) / BATCH
    if classes:
        value, pull, _ = cross_entropy(d, fake, label)
        values = {"loss_g/adversarial": values["loss_g"], "loss_g/classifier": WEIGHTS["generator_weight"] * value}
        by_images += WEIGHTS["generator_weight"] * pull @ d["classes"] / BATCH
    gradient = {"matrix": by_images.T @ z}
    if classes:
        gradient["shift"] = np.eye(classes)[label].T @ by_images
    return values, gradient, by_images


def check_a_step(objective, discriminator, classes, regularizers, accumulation, joint_pass):
    """One step of the game, whose generator's turn has the discriminator that was just updated before it."""
    options = {"regularizers": regularizers, "accumulation": accumulation, "joint_pass": joint_pass}
    options |= WEIGHTS if classes else {}
    game = simple_game(LinearGenerator, discriminator, objective, classes, **options)
    d, g = weights_of(game.discriminator.network), weights_of(game.generator.network)
    values, of_d = discriminator_turn(EQUATIONS[objective], d, g, batch(game), regularizers, classes)
    d = {name: weight - RATE * of_d[name] for name, weight in d.items()}
    more, of_g, _ = generator_turn(EQUATIONS[objective], d, g, classes)
    g = {name: weight - RATE * of_g[name] for name, weight in g.items()}
    play(game, 1)
    for expected, network in ((d, game.discriminator.network), (g, game.generator.network)):
        for name, weight in weights_of(network).items():
            assert np.allclose(weight, expected[name], rtol=1e-9, atol=1e-12), name
    for name, value in (values | more).items():
        in_single = name == "loss_g"  # a turn's losses are summed in float32
        assert game.measured[name].item() == pytest.approx(value, rel=1e-5 if in_single else 1e-9, abs=1e-9), name
    return values


@pytest.mark.parametrize(("accumulation", "joint_pass"), CUTS)
@pytest.mark.parametrize("classes", [0, CLASSES])
@pytest.mark.parametrize("discriminator", [LinearDiscriminator, QuadraticDiscriminator])
@pytest.mark.parametrize("objective", EQUATIONS)
def test_a_step_moves_both_players_as_their_equations_say(objective, discriminator, classes, accumulation, joint_pass):
    check_a_step(objective, discriminator, classes, [], accumulation, joint_pass)


@pytest.mark.parametrize(("accumulation", "joint_pass"), CUTS)
@pytest.mark.parametrize("discriminator", [LinearDiscriminator, QuadraticDiscriminator])
@pytest.mark.parametrize("name", PENALTIES)
def test_a_penalty_moves_the_discriminator_as_its_equation_says(name, discriminator, accumulation, joint_pass):
    """And not its classifier, nor does it make anything of the classes' logits."""
    values = check_a_step(NonSaturating, discriminator, CLASSES, [PENALTIES[name]], accumulation, joint_pass)
    assert values[f"loss_d/{PENALTIES[name].name}"] > 1e-3


def test_penalties_are_added():
    regularizers = [R1(2), GradientPenalty(4, 1.5), ApproximateR1(1.5, 0.1), Drift(0.3)]
    check_a_step(Wasserstein, QuadraticDiscriminator, CLASSES, regularizers, 2, True)


@pytest.mark.parametrize("classes", [0, CLASSES])
@pytest.mark.parametrize("objective", EQUATIONS)
def test_images_have_the_gradients_of_the_generators_equation(objective, classes):
    game = simple_game(LinearGenerator, QuadraticDiscriminator, objective, classes, **(WEIGHTS if classes else {}))
    moment = prepared(game)
    d, g = weights_of(game.discriminator.network), weights_of(game.generator.network)
    latent, label = game.inputs("generator", range(BATCH))
    fake = game.generate(moment, latent, label).detach().requires_grad_(True)
    (found,) = torch.autograd.grad(game.generator_loss(moment, fake, label), fake)
    _, _, expected = generator_turn(EQUATIONS[objective], d, g, classes)
    assert np.allclose(found.flatten(1).numpy(), expected, rtol=1e-9, atol=1e-12)


def test_hinge_is_seen_on_both_sides_of_its_margins():
    """Otherwise what is above would be no test of it."""
    game = simple_game(LinearGenerator, QuadraticDiscriminator, Hinge)
    play(game, 1)
    real, fake = (torch.cat(game._measurements[f"logit/{kind}"]) for kind in ("real", "fake"))
    assert 0 < (real > 1).sum() < BATCH
    assert 0 < (fake < -1).sum() < BATCH


# ---------------------------------------------------------------- Finite differences, of players of two layers


def loss_of_turn(game, name):
    """What a player's first turn minimises, over all of its parts."""
    moment, given, total = game.schedule.at(0), batch(game), 0.0
    for part, _ in game.parts(BATCH):
        indices = game.indices(0, part)
        if name == "discriminator":
            fake, fake_label = game.fakes(moment, indices, None)
            images, label = given["images"][part], given["labels"][part]
            total += game.discriminator_loss(moment, indices, images, label, fake, fake_label).item()
        else:
            latent, label = game.inputs("generator", indices)
            fake, *penalties = game.fakes_and_penalties(moment, latent, label)
            total += (game.generator_loss(moment, fake, label) / game.accumulation + sum(penalties)).item()
    return total


def gradients_of_turn(game, name):
    """Those that the optimizer is given in a player's first turn."""
    player, found, given = game.players[name], {}, batch(game)
    player.optimizer.register_step_pre_hook(
        lambda *_: found.update({key: p.grad.clone() for key, p in player.network.named_parameters()})
    )
    moment = prepared(game)
    if name == "discriminator":
        game.discriminator_turn(moment, 0, given["images"], given["labels"])
    else:
        game.generator_turn(moment)
    return found


TOGETHER = [GradientPenalty(4, target=1.5), R1(2), ApproximateR1(1.5, sigma=0.1), Drift(0.3)]
TURNS = [
    *((objective, classes, {}) for objective in EQUATIONS for classes in (0, CLASSES)),
    *((Wasserstein, 0, {"regularizers": [regularizer]}) for regularizer in PENALTIES.values()),
    (Hinge, 0, {"weight_regularizers": [OrthogonalReg(0.2)], "accumulation": 2}),
    *(
        (objective, classes, {"regularizers": TOGETHER, "accumulation": accumulation, "joint_pass": joint_pass})
        for objective, classes, (accumulation, joint_pass) in product(EQUATIONS, (0, CLASSES), CUTS[1:])
    ),
]


@pytest.mark.parametrize("name", ["discriminator", "generator"])
@pytest.mark.parametrize(("objective", "classes", "options"), TURNS)
def test_the_gradients_of_a_turn_are_finite_differences_of_its_loss(objective, classes, options, name):
    """Along directions in the space of all weights of the player whose turn it is."""
    options = options | (WEIGHTS if classes else {})
    played, game = (simple_game(TanhGenerator, TanhDiscriminator, objective, classes, **options) for _ in range(2))
    found = gradients_of_turn(played, name)
    prepared(game)
    parameters = dict(game.players[name].network.named_parameters())
    assert found.keys() == parameters.keys()
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        direction = {key: torch.randn(p.shape, dtype=p.dtype, generator=generator) for key, p in parameters.items()}
        expected = 0.0
        for sign in (1, -1):
            move(parameters, direction, sign * 1e-5)
            expected += sign * loss_of_turn(game, name) / 2e-5
            move(parameters, direction, -sign * 1e-5)
        along = sum((found[key] * direction[key]).sum().item() for key in parameters)
        assert along == pytest.approx(expected, rel=1e-6, abs=1e-8)


@torch.no_grad()
def move(parameters, direction, length):
    for key, parameter in parameters.items():
        parameter.add_(length * direction[key])
