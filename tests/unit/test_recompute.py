"""Activations that are computed again: the same gradients and buffers, and fewer tensors that are kept."""

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from bigtrain.regularizers import R1, Drift, GradientPenalty
from tests.unit.tiny import batch, biggan_deep_game, biggan_game, play, progressive_game

RECOMPUTE = {"player_options": {"recompute": True}}
GAMES = {
    "progressive": lambda **o: progressive_game(**o, regularizers=[R1(1.0)]),
    "progressive, many passes": lambda **o: progressive_game(
        **o, regularizers=[R1(1.0), GradientPenalty(1.0), Drift(0.1)], accumulation=2, d_steps=2
    ),
    "biggan": biggan_game,
    "biggan, many passes": lambda **o: biggan_game(**o, regularizers=[R1(1.0), GradientPenalty(1.0)], accumulation=2),
    "biggan-deep": biggan_deep_game,
}


def gradients_of_a_step(game):
    """Those that the optimizers saw, by player and number."""
    found = {}
    for name, player in game.players.items():
        player.optimizer.register_step_pre_hook(
            lambda optimizer, *_, name=name: found.update(
                {
                    (name, i): p.grad.clone()
                    for i, p in enumerate(optimizer.param_groups[0]["params"])
                    if p.grad is not None
                }
            )
        )
    play(game, 1)
    return found


def calls_of_blocks(game):
    """How often each of the blocks is run, whether for the first time or again."""
    calls = []
    for player in game.players.values():
        for block in player.network.blocks:
            block.register_forward_pre_hook(lambda block, _: calls.append(block))
    return calls


@pytest.mark.parametrize("name", GAMES)
def test_gradients_and_buffers_are_those_of_kept_activations(name):
    plain, again = (play(GAMES[name](**options).double(), 5) for options in ({}, RECOMPUTE))
    calls = [calls_of_blocks(game) for game in (plain, again)]
    expected, found = gradients_of_a_step(plain), gradients_of_a_step(again)
    assert len(calls[1]) > 1.5 * len(calls[0])
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        assert torch.allclose(found[key], value, rtol=1e-12, atol=1e-12), key
    states = [{key: piece.tensor for key, piece in game.training_state().items()} for game in (plain, again)]
    assert states[0].keys() == states[1].keys()
    for key, value in states[0].items():
        assert torch.allclose(states[1][key].double(), value.double(), rtol=1e-12, atol=1e-12), key


def bytes_kept(game):
    """Of the tensors that the discriminator's loss keeps for backward; weights apart, and each storage once."""
    moment = game.schedule.at(0)
    for player in game.players.values():
        player.prepare(moment, game.schedule.total_images)
    given = batch(game)
    weights = {p.untyped_storage().data_ptr() for p in game.discriminator.network.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # the tensor keeps the address from being used again
        return tensor

    part = slice(0, moment.phase.batch_size)
    images, label = given["images"][part], given["labels"][part]
    fake, fake_label = game.fakes(moment, game.indices(0, part), None)
    with saved_tensors_hooks(pack, lambda tensor: tensor):
        game.discriminator_loss(moment, game.indices(0, part), images, label, fake, fake_label)
    return sum(size for size, _ in kept.values())


@pytest.mark.parametrize("make", [progressive_game, biggan_game])
def test_fewer_bytes_are_kept_for_backward(make):
    plain, again = (bytes_kept(make(regularizers=[], **options)) for options in ({}, RECOMPUTE))
    assert 0 < again < 0.6 * plain
