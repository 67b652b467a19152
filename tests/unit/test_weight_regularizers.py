"""Penalties of weights: equation, gradient and finite differences; and that a player's turn has them in its loss."""

import copy

import pytest
import torch

from bigtrain.regularizers import OrthogonalReg
from tests.unit.tiny import biggan_game, play

#: Filters that are fewer than their numbers, as many, and more: W [m, n] has a column of m numbers for each.
SHAPES = [(3, 2, 3, 3), (4, 4), (9, 4), (40, 2, 1, 1)]


def layer(shape):
    """A layer that has one weight of that shape, and a bias."""
    generator = torch.Generator().manual_seed(1)
    made = torch.nn.Module()
    made.weight = torch.nn.Parameter(torch.randn(shape, dtype=torch.float64, generator=generator))
    made.bias = torch.nn.Parameter(torch.ones(shape[0], dtype=torch.float64))
    return made


@pytest.mark.parametrize("shape", SHAPES)
def test_orthogonal_regularisation_is_its_equation_and_has_its_gradient(shape):
    """β‖WᵀW ⊙ (1 - I)‖²_F and 4β W(WᵀW ⊙ (1 - I))."""
    network = layer(shape)
    filters = network.weight.detach().flatten(1).T  # W, [m, n]
    between = filters.T @ filters * (1 - torch.eye(shape[0], dtype=torch.float64))
    penalty = OrthogonalReg(0.25)(network)
    assert penalty.item() == pytest.approx(0.25 * between.norm().item() ** 2, rel=1e-12)
    penalty.backward()
    assert torch.allclose(network.weight.grad.flatten(1).T, 4 * 0.25 * filters @ between, rtol=1e-11)
    assert network.bias.grad is None


@pytest.mark.parametrize("shape", SHAPES)
def test_the_gradient_of_orthogonal_regularisation_agrees_with_finite_differences(shape):
    network = layer(shape)
    given = network.weight.detach().clone().requires_grad_(True)

    def penalty(weight):
        del network.weight
        network.weight = torch.nn.Parameter()
        network._parameters["weight"] = weight
        return OrthogonalReg(0.25)(network)

    assert torch.autograd.gradcheck(penalty, given)


@pytest.mark.parametrize("shape", [(9, 4), (40, 2, 1, 1)])
def test_both_forms_of_orthogonal_regularisation_are_one(shape):
    """Numbers that are 0 in every filter change nothing; with enough of them there are more numbers than filters."""
    many, wide = layer(shape), layer((shape[0], shape[0]))
    flat = many.weight.detach().flatten(1)
    wide.weight.data = torch.nn.functional.pad(flat, (0, shape[0] - flat.shape[1]))
    penalties = [OrthogonalReg(0.25)(network) for network in (many, wide)]
    assert penalties[0].item() == pytest.approx(penalties[1].item(), rel=1e-12)
    sum(penalties).backward()
    gradient, padded = many.weight.grad.flatten(1), wide.weight.grad
    assert torch.allclose(gradient, padded[:, : flat.shape[1]], rtol=1e-11)
    assert not padded[:, flat.shape[1] :].any()


def test_orthogonal_filters_of_any_length_are_not_punished():
    network = layer((4, 9))
    torch.nn.init.orthogonal_(network.weight)
    with torch.no_grad():
        network.weight.mul_(torch.tensor([[1.0], [2], [3], [4]]))
    assert OrthogonalReg(1.0)(network).item() == pytest.approx(0, abs=1e-20)


def test_orthogonal_regularisation_is_of_layers_that_are_trained_and_not_of_tables():
    first, second = layer((4, 9)), layer((3, 4))
    network = torch.nn.ModuleList([first, second, torch.nn.Embedding(5, 4, dtype=torch.float64)])
    one, other = (OrthogonalReg(1.0)(part).item() for part in (first, second))
    assert OrthogonalReg(1.0)(network).item() == pytest.approx(one + other, rel=1e-12)
    second.requires_grad_(False)
    assert OrthogonalReg(1.0)(network).item() == pytest.approx(one, rel=1e-12)


def gradients(game, name):
    """Those of a player's first turn, by parameter."""
    found = {}
    player = game.players[name]
    player.optimizer.register_step_pre_hook(
        lambda *_: found.update({n: p.grad.clone() for n, p in player.network.named_parameters()})
    )
    play(game, 1)
    return found


@pytest.mark.parametrize(("accumulation", "scaled"), [(1, False), (2, False), (1, True)])
@pytest.mark.parametrize("name", ["generator", "discriminator"])
def test_a_penalty_is_added_once_to_its_players_loss(name, accumulation, scaled):
    """However many parts a batch is played in, and whatever the scale of the loss; it is measured by itself as well."""
    plain, game = (biggan_game(d_steps=1, accumulation=accumulation).double() for _ in range(2))
    game.players[name].weight_regularizers = [OrthogonalReg(0.5)]
    if scaled:
        game.scale_losses()
    alone = copy.deepcopy(game.players[name].network)
    penalty = OrthogonalReg(0.5)(alone)
    penalty.backward()
    without, found = gradients(plain, name), gradients(game, name)
    for key, parameter in alone.named_parameters():
        expected = without[key] if parameter.grad is None else without[key] + parameter.grad
        assert torch.allclose(found[key], expected, rtol=1e-9, atol=1e-12), key
    turn = name[0]
    assert game.measured[f"loss_{turn}/OrthogonalReg"].item() == pytest.approx(penalty.item(), rel=1e-12)
    difference = game.measured[f"loss_{turn}"] - plain.measured[f"loss_{turn}"]
    assert difference.item() == pytest.approx(penalty.item(), rel=1e-5)  # losses are summed in float32
