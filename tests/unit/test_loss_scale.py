"""The loss scale of float16, tried in float32: it changes no update, and skips those that it spoilt."""

import pytest
import torch

from bigtrain.games.loss_scale import LARGEST, LossScale
from bigtrain.games.player import NonFiniteError
from bigtrain.runtime.compute import Compute
from tests.unit.tiny import biggan_game, play, progressive_game

GAMES = [progressive_game, biggan_game]


def scaled(make, value=2.0**10, growth_steps=2, **options):
    game = make(**options)
    for player in game.players.values():
        player.loss_scale = LossScale(value, growth_steps)
    return game


def state_of(game):
    return {name: piece.tensor.clone() for name, piece in game.training_state().items()}


def spoil(player):
    """The next gradient of that player is infinite."""
    weight = next(p for p in player.network.parameters() if p.requires_grad)
    handle = weight.register_hook(lambda gradient: (handle.remove(), torch.full_like(gradient, torch.inf))[1])


@pytest.mark.parametrize("make", GAMES)
def test_weights_are_those_without_a_scale(make):
    options = {"accumulation": 2, "player_options": {"max_grad_norm": 0.5}}
    plain, game = play(make(**options), 6), play(scaled(make, **options), 6)
    assert all(torch.allclose(v, game.state_dict()[k], atol=1e-6) for k, v in plain.state_dict().items())
    assert game.generator.loss_scale.value == 2.0**13
    assert game.measured["grad_norm_d"].item() == pytest.approx(plain.measured["grad_norm_d"].item(), rel=1e-5)
    assert game.measured["loss_scale_g"] == 2.0**13
    assert "loss_scale_g" not in plain.measured


@pytest.mark.parametrize("name", ["generator", "discriminator"])
def test_an_infinite_gradient_halves_the_scale_and_skips_the_players_update_alone(name):
    game = play(scaled(progressive_game), 2)
    other = next(rival for rival in game.player_names if rival != name)
    before = {key: [p.clone() for p in player.network.parameters()] for key, player in game.players.items()}
    values = {key: player.loss_scale.value for key, player in game.players.items()}
    spoil(game.players[name])
    play(game, 1)
    same = {
        key: all(torch.equal(a, b) for a, b in zip(before[key], player.network.parameters(), strict=True))
        for key, player in game.players.items()
    }
    assert same == {name: True, other: False}
    assert game.players[name].loss_scale.value == values[name] / 2
    assert game.players[other].loss_scale.value == values[other]
    assert (game.measured[f"skipped_{name[0]}"], game.measured[f"skipped_{other[0]}"]) == (1, 0)
    assert game.measured[f"grad_norm_{name[0]}"] == 0
    assert game.clock.images_seen == 24
    assert all(p.grad is None for p in game.players[name].network.parameters())
    play(game, 1)
    assert game.measured[f"skipped_{name[0]}"] == 1
    assert game.measured[f"grad_norm_{name[0]}"] > 0


@pytest.mark.parametrize("value", [1.0, None])
def test_where_no_scale_is_at_fault_training_stops(value):
    game = play(progressive_game() if value is None else scaled(progressive_game, value, 100), 1)
    spoil(game.generator)
    with pytest.raises(NonFiniteError, match="generator"):
        play(game, 1)


def test_a_loss_that_is_not_finite_is_not_the_scales_fault():
    game = play(scaled(progressive_game), 1)
    with torch.no_grad():
        next(game.discriminator.network.blocks[0].parameters()).fill_(float("nan"))
    with pytest.raises(NonFiniteError, match="discriminator: loss nan"):
        play(game, 1)


def test_a_resumed_scale_goes_on_as_it_was():
    def start():
        game = play(scaled(progressive_game, growth_steps=3), 1)
        spoil(game.discriminator)
        return play(game, 1)

    through = play(start(), 4)
    first = start()
    second = scaled(progressive_game, growth_steps=3)
    second.load_training_state(state_of(first), first.clock.images_seen)
    play(second, 4)
    expected, found = state_of(through), state_of(second)
    assert expected.keys() == found.keys()
    assert all(torch.equal(value, found[key]) for key, value in expected.items())
    assert found["optimizers/discriminator/loss_scale/skipped"] == 1
    assert found["optimizers/discriminator/loss_scale/value"] == 2.0**10
    assert found["optimizers/generator/loss_scale/value"] == 2.0**12


def test_a_training_goes_on_in_another_precision():
    with_scale, without = play(scaled(progressive_game), 2), play(progressive_game(), 2)
    progressive_game().load_training_state(state_of(with_scale), 16)
    fresh = scaled(progressive_game)
    fresh.load_training_state(state_of(without), 16)
    assert fresh.generator.loss_scale.value == 2.0**10


@pytest.mark.parametrize("make", GAMES)
def test_float16_finds_a_scale_and_trains_whole_weights(make):
    """On a CPU, where torch can do it, slowly."""
    game = make()
    game.scale_losses()
    before = state_of(game)
    with torch.autocast("cpu", torch.float16):
        play(game, 8)
    after = state_of(game)
    assert {value.dtype for value in after.values()} <= {torch.float32, torch.float64, torch.int64}
    assert all(value.isfinite().all() for value in after.values())
    assert not all(torch.equal(value, after[key]) for key, value in before.items())
    assert all(0 < player.loss_scale.value < 2.0**16 for player in game.players.values())


def test_the_scale_stays_in_its_bounds():
    scale = LossScale(2.0, 1)
    for _ in range(40):
        scale.grow()
    assert scale.value == LARGEST


@pytest.mark.parametrize("make", [lambda: LossScale(0.5), lambda: LossScale(3.0), lambda: LossScale(1.0, 0)])
def test_mistakes_are_named(make):
    with pytest.raises(ValueError, match=r"loss scale"):
        make()


def test_float16_on_a_cpu_is_refused_before_anything_starts(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for accelerator in ("cpu", "auto"):
        with pytest.raises(ValueError, match=r"compute\.precision \(=16-mixed\).*bf16-mixed or 32-true"):
            Compute(accelerator=accelerator, precision="16-mixed").layout({})
    assert Compute(accelerator="gpu", devices=1, precision="16-mixed").layout({}) == (1, 1)
