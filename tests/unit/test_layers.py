"""Layers do what their papers say."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bigtrain.networks import layers


def test_equalized_layers_keep_the_variance_times_the_squared_gain():
    torch.manual_seed(0)
    x = torch.randn(256, 64, 8, 8)
    conv = layers.EqualizedConv2d(64, 128, 3, gain=math.sqrt(2))
    assert conv(x)[:, :, 1:-1, 1:-1].var().item() == pytest.approx(2, rel=0.05)
    assert layers.EqualizedLinear(64, 512, gain=1.0)(x[:, :, 0, 0]).var().item() == pytest.approx(1, rel=0.05)
    assert conv.weight.std().item() == pytest.approx(1, rel=0.02)
    assert not conv.bias.any()


def test_pixel_norm_gives_unit_mean_square():
    x = 3 * torch.randn(2, 7, 4, 4)
    assert torch.allclose(layers.pixel_norm(x).square().mean(dim=1), torch.ones(2, 4, 4), atol=1e-5)


@pytest.mark.parametrize(("n", "group"), [(8, 4), (4, 4), (6, 2), (3, 4), (6, None)])
def test_minibatch_stddev_is_that_of_strided_groups(n, group):
    x = torch.randn(n, 5, 4, 4, dtype=torch.float64)
    y = layers.minibatch_stddev(x, group)
    groups = n // (n if group is None else min(group, n))
    assert y.shape == (n, 6, 4, 4)
    for i in range(n):
        members = x[i % groups :: groups]
        expected = members.std(dim=0, correction=0).mean()
        assert torch.allclose(y[i, 5], expected.expand(4, 4), atol=1e-7)
    assert torch.equal(y[:, :5], x)


def test_minibatch_stddev_refuses_a_batch_that_its_group_does_not_divide():
    with pytest.raises(ValueError, match="stddev_group"):
        layers.minibatch_stddev(torch.randn(6, 1, 4, 4), 4)


@pytest.mark.parametrize(("n", "group"), [(8, 4), (3, 4), (6, 4), (6, 2), (6, None)])
def test_contiguous_stddev_is_that_of_neighbours(n, group):
    x = torch.randn(n, 5, 4, 4, dtype=torch.float64)
    y = layers.contiguous_stddev(x, group)
    size = n if group is None or n % min(group, n) else min(group, n)
    for i in range(n):
        first = i // size * size
        expected = x[first : first + size].std(dim=0, correction=1).mean()
        assert torch.allclose(y[i, 5], expected.expand(4, 4), atol=1e-7)
    assert torch.equal(y[:, :5], x)
    assert not layers.contiguous_stddev(x[:1], group)[:, 5].any()


@pytest.mark.parametrize(("n", "world"), [(8, 2), (24, 3), (16, 8), (6, 2)])
def test_contiguous_stddev_is_the_same_when_the_batch_is_spread_over_processes(n, world):
    """Neighbours lie in different processes: process r has the images r, r + world, …"""
    x = torch.randn(n, 3, 4, 4, dtype=torch.float64)
    whole = layers.contiguous_stddev(x, 4)
    parts = torch.stack([x[rank::world] for rank in range(world)])
    for rank in range(world):
        mine = layers.contiguous_stddev(x[rank::world], 4, gather=lambda _: parts, rank=rank)
        assert torch.allclose(mine, whole[rank::world], atol=1e-12)


def spectral_layers():
    torch.manual_seed(1)
    conv = layers.SpectralConv2d(6, 10, 3)
    dense = layers.SpectralLinear(12, 7)
    table = layers.SpectralEmbedding(5, 9)
    for layer in (conv, dense, table):
        nn.init.normal_(layer.weight)
    return [(conv, torch.randn(2, 6, 5, 5)), (dense, torch.randn(2, 12)), (table, torch.tensor([0, 4]))]


def largest_singular_value(layer):
    return torch.linalg.matrix_norm(layer.normalized_weight().flatten(1), ord=2).item()


@pytest.mark.parametrize(("layer", "x"), spectral_layers())
def test_spectral_norm_converges_to_1_and_again_after_a_change(layer, x):
    for _ in range(100):
        layer(x)
    assert largest_singular_value(layer) == pytest.approx(1, abs=1e-3)
    with torch.no_grad():
        layer.weight.add_(torch.randn_like(layer.weight))
    assert largest_singular_value(layer) != pytest.approx(1, abs=1e-3)
    for _ in range(100):
        layer(x)
    assert largest_singular_value(layer) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(("layer", "x"), spectral_layers())
def test_spectral_norm_stands_still_in_evaluation(layer, x):
    layer.eval()
    before = layer.u.clone()
    assert torch.equal(layer(x), layer(x))
    assert torch.equal(before, layer.u)
    layer.train()
    layer(x)
    assert not torch.equal(before, layer.u)


@pytest.mark.parametrize(("layer", "x"), spectral_layers())
def test_driven_spectral_norm_moves_by_advance_alone(layer, x):
    undriven, start = copy.deepcopy(layer), layer.u.clone()
    assert layers.drive_spectral_norms(nn.Sequential(layer)) == [layer]
    assert torch.equal(layer(x), layer(x))
    assert torch.equal(layer.u, start)
    layer.advance(3)
    for _ in range(3):
        undriven(x)
    assert torch.equal(layer.u, undriven.u)


def test_spectral_norm_does_not_see_the_length_of_its_vector():
    """An average of vectors is not of unit length; evaluation starts a fresh iteration from it."""
    layer = spectral_layers()[1][0].eval()
    expected = layer.normalized_weight()
    layer.u.mul_(0.3)
    assert torch.allclose(layer.normalized_weight(), expected, atol=1e-6)


def test_spectral_norm_has_the_gradient_of_its_equation():
    """W / σ(W) with σ = uᵀWv, u and v constant (Miyato et al., equation 12)."""
    layer = layers.SpectralLinear(4, 3, bias=False).double()
    nn.init.normal_(layer.weight)
    layer.u = layer.u.double()
    layer.eval()
    x = torch.randn(5, 4, dtype=torch.float64)
    v = F.normalize(layer.weight.T @ layer.u, dim=0)
    u = F.normalize(layer.weight @ v, dim=0).detach()
    v = v.detach()
    expected = torch.autograd.grad((x @ (layer.weight / (u @ layer.weight @ v)).T).square().sum(), layer.weight)[0]
    found = torch.autograd.grad(layer(x).square().sum(), layer.weight)[0]
    assert torch.allclose(found, expected, rtol=1e-9)


def test_conditional_batch_norm_is_batch_norm_with_the_conditions_gain_and_bias():
    torch.manual_seed(0)
    layer = layers.ConditionalBatchNorm2d(6, 3)
    nn.init.normal_(layer.gain.weight)
    nn.init.normal_(layer.bias.weight)
    x, condition = 2 + 3 * torch.randn(8, 6, 4, 4), torch.randn(8, 3)
    layer.eval()
    gain, bias = 1 + layer.gain(condition), layer.bias(condition)
    layer.train()
    y = (layer(x, condition) - bias[:, :, None, None]) / gain[:, :, None, None]
    plain = nn.BatchNorm2d(6, affine=False)
    assert torch.allclose(y, plain(x), atol=0.2)  # the spectral norm's vectors have moved on by one iteration
    assert torch.allclose(layer.running_mean, plain.running_mean)
    assert torch.allclose(layer.running_var, plain.running_var)
    layer.eval()
    assert torch.allclose(
        layer(x, torch.zeros(8, 3)), F.batch_norm(x, layer.running_mean, layer.running_var), atol=1e-5
    )


def test_attention_is_closed_at_first_and_attends_to_all_of_its_image_when_open():
    torch.manual_seed(0)
    layer = layers.SelfAttention2d(16)
    for module in layer.modules():
        if isinstance(module, layers.SpectralNorm):
            nn.init.orthogonal_(module.weight)
    x = torch.randn(2, 16, 8, 8, requires_grad=True)
    assert torch.equal(layer(x), x)
    nn.init.ones_(layer.gamma)
    (gradient,) = torch.autograd.grad(layer(x)[0, :, 0, 0].sum(), x)
    assert F.max_pool2d(gradient[0].abs().sum(dim=0, keepdim=True), 2).all()  # keys and values are pooled 2 × 2
    assert not gradient[1].any()
