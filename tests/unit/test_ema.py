"""The average has the half-life that it is given, at every batch size."""

import pytest
import torch
from torch import nn

from bigtrain.games.ema import EMA


def constant(value):
    network = nn.BatchNorm1d(3)
    with torch.no_grad():
        for tensor in (*network.parameters(), network.running_mean, network.running_var):
            tensor.fill_(value)
    return network


@pytest.mark.parametrize("images", [1, 10, 250, 1000])
def test_half_of_the_old_is_left_after_a_half_life_at_every_batch_size(images):
    ema = EMA(constant(1.0), half_life=1000)
    for seen in range(0, 1000, images):
        ema.update(constant(0.0), seen, images)
    for tensor in (*ema.network.parameters(), ema.network.running_mean, ema.network.running_var):
        assert torch.allclose(tensor, torch.tensor(0.5), atol=1e-5)


def test_it_is_a_copy_before_its_start_and_without_a_half_life():
    for ema in (EMA(constant(1.0), half_life=1000, start=500), EMA(constant(1.0), half_life=0)):
        ema.update(constant(3.0), 490, 10)
        assert torch.equal(ema.network.weight, constant(3.0).weight)
    late = EMA(constant(1.0), half_life=1000, start=500)
    late.update(constant(3.0), 500, 10)
    assert late.network.weight[0] < 1.1


def test_whole_numbers_are_copied():
    network = constant(0.0)
    network.num_batches_tracked.fill_(7)
    ema = EMA(constant(1.0), half_life=1000)
    ema.update(network, 0, 10)
    assert ema.network.num_batches_tracked == 7


def test_it_is_never_trained():
    ema = EMA(constant(1.0), half_life=10).train()
    assert not ema.network.training
    assert not any(p.requires_grad for p in ema.parameters())
