"""Losses and penalties as functions, in float64. (Their closed forms in a game's turns: test_closed_forms.py.)"""

import copy
import math

import pytest
import torch

from bigtrain import randomness
from bigtrain.networks import BigGANDiscriminator, ProgressiveDiscriminator
from bigtrain.objectives import Hinge, NonSaturating, Wasserstein
from bigtrain.regularizers import R1, ApproximateR1, Drift, GradientPenalty, OrthogonalReg, Shown

REAL = torch.tensor([0.5, 2.0, -1.0], dtype=torch.float64)
FAKE = torch.tensor([-3.0, 0.25, 1.0], dtype=torch.float64)


def mean(function, values):
    return sum(function(float(v)) for v in values) / len(values)


def softplus(v):
    return math.log1p(math.exp(v))


@pytest.mark.parametrize(
    ("objective", "discriminator", "generator"),
    [
        (NonSaturating(), lambda: mean(lambda v: softplus(-v), REAL) + mean(softplus, FAKE), lambda v: softplus(-v)),
        (
            Hinge(),
            lambda: mean(lambda v: max(0, 1 - v), REAL) + mean(lambda v: max(0, 1 + v), FAKE),
            lambda v: -v,
        ),
        (Wasserstein(), lambda: mean(float, FAKE) - mean(float, REAL), lambda v: -v),
    ],
)
def test_objectives_are_their_equations(objective, discriminator, generator):
    assert objective.discriminator(REAL, FAKE).item() == pytest.approx(discriminator(), rel=1e-12)
    assert objective.generator(FAKE).item() == pytest.approx(mean(generator, FAKE), rel=1e-12)
    logits = FAKE.clone().requires_grad_(True)
    assert torch.autograd.gradcheck(objective.generator, logits)
    assert torch.autograd.gradcheck(objective.discriminator, (REAL.clone().requires_grad_(True), logits))


def normal_of(n):
    return lambda count: torch.from_numpy(randomness.normal(0, "near", range(n), count))


def shown(weight, power=1):
    """A discriminator Σ weight·x^power; its gradient is power·weight·x^(power-1)."""
    generator = torch.Generator().manual_seed(0)
    real, fake = (torch.randn(3, 2, 2, 2, dtype=torch.float64, generator=generator) for _ in range(2))
    mix = torch.rand(3, 1, dtype=torch.float64, generator=generator)
    real.requires_grad_(True)

    def discriminate(images):
        return (images.flatten(1).pow(power) * weight).sum(dim=1)

    return Shown(real, fake, discriminate(real), discriminate(fake), discriminate, lambda: mix, normal_of(3))


def shown_to(network, real):
    real.requires_grad_(True)
    logits = network(real)
    return Shown(real, real, logits, logits, network, lambda: torch.ones(len(real), 1), normal_of(len(real)))


@pytest.mark.parametrize(("sigma", "linear"), [(1.0, True), (1e-3, True), (1e-3, False)])
def test_the_approximation_of_r1_is_r1_in_the_mean_over_many_draws(sigma, linear):
    torch.manual_seed(0)
    layers = [torch.nn.Flatten(), torch.nn.Linear(8, 1 if linear else 16)]
    if not linear:
        layers += [torch.nn.Tanh(), torch.nn.Linear(16, 1)]
    network = torch.nn.Sequential(*layers, torch.nn.Flatten(0)).double()
    images = torch.randn(4, 2, 2, 2, dtype=torch.float64).repeat(10_000, 1, 1, 1)
    given = shown_to(network, images)
    assert ApproximateR1(3, sigma)(given).item() == pytest.approx(R1(3)(given).item(), rel=0.03)


def test_the_approximation_of_r1_of_a_quadratic_is_off_by_a_term_in_sigma_squared():
    """Σ w x² has the gradient g = 2wx and the second derivatives S = diag(2w), so the difference quotient is
    g·ε + ½σ εᵀSε, whose square is ‖g‖² + ¼σ²(2‖S‖² + (tr S)²) in the mean over ε; for small σ it is (g·ε)² for each ε.
    """
    weight = torch.linspace(-0.5, 2, 8, dtype=torch.float64, requires_grad=True)
    images = torch.randn(4, 2, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    given = shown_to(lambda x: (x.flatten(1).square() * weight).sum(dim=1), images.repeat(10_000, 1, 1, 1))
    slope = 2 * weight * given.real.detach().flatten(1)
    second = (2 * (2 * weight).square().sum() + (2 * weight).sum().square()) / 4
    expected = slope.square().sum(dim=1).mean() + 0.5**2 * second
    found = ApproximateR1(2, sigma=0.5)(given)
    assert found.item() == pytest.approx(expected.item(), rel=0.03)
    of_found, of_expected = (torch.autograd.grad(value, weight)[0] for value in (found, expected))
    assert (of_found - of_expected).norm() < 0.05 * of_expected.norm()
    along = (slope * given.normal(8)).sum(dim=1).square().mean()
    assert ApproximateR1(2, sigma=1e-6)(given).item() == pytest.approx(along.item(), rel=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda: BigGANDiscriminator(32, 1, width=2, attention=[16]),
        lambda: ProgressiveDiscriminator(32, 1, fmap_base=64, fmap_max=8, stddev_group=3),
        lambda: ProgressiveDiscriminator(32, 1, fmap_base=64, fmap_max=8, stddev_group=None),
    ],
)
def test_the_approximation_of_r1_is_of_one_function_for_both_images(make):
    """Neither a vector of spectral norm that has moved on nor another group of images is taken for a gradient."""
    torch.manual_seed(0)
    network, images = make().double(), torch.randn(6, 1, 32, 32, dtype=torch.float64)
    coarse, fine = (ApproximateR1(1, sigma)(shown_to(copy.deepcopy(network), images)).item() for sigma in (1e-5, 1e-7))
    assert fine > 0
    assert coarse == pytest.approx(fine, rel=1e-2)


@pytest.mark.parametrize("regularizer", [GradientPenalty(2, target=1.5), R1(2), ApproximateR1(2, 0.1), Drift(0.3)])
def test_gradients_of_penalties_agree_with_finite_differences(regularizer):
    weight = torch.linspace(0.5, 2, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda w: regularizer(shown(w, power=3)), weight)


@pytest.mark.parametrize(
    "make",
    [
        lambda: R1(-1),
        lambda: GradientPenalty(-1),
        lambda: GradientPenalty(1, target=0),
        lambda: Drift(-1),
        lambda: ApproximateR1(-1),
        lambda: ApproximateR1(1, sigma=0),
        lambda: OrthogonalReg(-1),
    ],
)
def test_mistakes_are_named(make):
    with pytest.raises(ValueError, match=r"weight|target|sigma"):
        make()
