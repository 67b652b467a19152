"""The two-player step: who is updated when, with what, and that a step is a function of weights and clock alone."""

import copy
from collections import Counter, defaultdict
from functools import partial

import pytest
import torch

from bigtrain.games import AdversarialGame, Player
from bigtrain.games.player import NonFiniteError
from bigtrain.networks import ProgressiveDiscriminator, ProgressiveGenerator
from bigtrain.networks.layers import SpectralNorm
from bigtrain.objectives import NonSaturating
from bigtrain.regularizers import R1, ApproximateR1, Drift, GradientPenalty
from bigtrain.schedules import Constant, LinearDecay
from tests.unit.tiny import batch, biggan_game, compiled_quickly, play, progressive_game

GAMES = [progressive_game, biggan_game]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def state_of(game):
    """A copy of everything that the next step depends on."""
    return {name: piece.tensor.clone() for name, piece in game.training_state().items()}


def count_calls(game):
    """How often each network runs and each optimizer steps."""
    calls = Counter()
    for name, player in game.players.items():
        player.network.register_forward_hook(lambda *_, name=name: calls.update([name]))
        player.optimizer.register_step_post_hook(lambda *_, name=name: calls.update([f"{name} step"]))
    return calls


@pytest.mark.parametrize(("d_steps", "accumulation"), [(1, 1), (3, 1), (2, 2)])
def test_a_step_is_n_discriminator_updates_and_one_generator_update(d_steps, accumulation):
    game = progressive_game(d_steps=d_steps, accumulation=accumulation, regularizers=[])
    calls = count_calls(game)
    play(game, 1)
    assert calls["discriminator step"] == d_steps
    assert calls["generator step"] == 1
    assert calls["generator"] == (d_steps + 1) * accumulation
    assert calls["discriminator"] == (2 * d_steps + 1) * accumulation
    assert game.clock.images_seen == 8 * d_steps


def test_a_joint_pass_shows_real_and_fake_together():
    game = biggan_game(d_steps=1)
    calls = count_calls(game)
    play(game, 1)
    assert calls["discriminator"] == 2


@pytest.mark.parametrize("make", GAMES)
def test_each_turn_changes_its_own_player_only(make):
    game = make()
    seen = {}

    def watch(mine, other):
        player, rival = game.players[mine], game.players[other]
        before = [p.clone() for p in rival.network.parameters()]

        def after(*_):
            assert all(torch.equal(a, b) for a, b in zip(before, rival.network.parameters(), strict=True))
            assert mine == "discriminator" or all(p.grad is None for p in rival.network.parameters())
            seen[mine] = True

        player.optimizer.register_step_pre_hook(after)
        return before

    watch("discriminator", "generator")
    moment = game.schedule.at(0)
    for player in game.players.values():
        player.prepare(moment, game.schedule.total_images)
    images = batch(game)
    game.discriminator_turn(moment, 0, images["images"][:8], images["labels"][:8])
    watch("generator", "discriminator")
    game.generator_turn(moment)
    assert seen == {"discriminator": True, "generator": True}
    assert all(p.grad is None for player in game.players.values() for p in player.network.parameters())


@pytest.mark.parametrize("make", GAMES)
def test_gradients_are_those_of_the_papers_losses(make):
    """The G turn's short cut through the images gives the gradient of the plain loss."""
    game = make().double()
    found = {}
    game.generator.optimizer.register_step_pre_hook(
        lambda *_: found.update(
            {n: p.grad.clone() for n, p in game.generator.network.named_parameters() if p.grad is not None}
        )
    )
    moment = game.schedule.at(0)
    for player in game.players.values():
        player.prepare(moment, game.schedule.total_images)
    state = {name: value.clone() for name, value in game.state_dict().items()}
    game.generator_turn(moment)
    game.load_state_dict(state)
    game.begin_turn()
    latent, label = game.inputs("generator", range(moment.phase.batch_size))
    fake = game.generate(moment, latent, label)
    game.objective.generator(game.discriminate(moment, fake, label)).backward()
    for name, parameter in game.generator.network.named_parameters():
        assert (name in found) == (parameter.grad is not None)
        if name in found:
            assert torch.allclose(found[name], parameter.grad, rtol=1e-9, atol=1e-12), name


def test_accumulation_gives_the_gradients_of_the_whole_batch():
    """In float64 and without a layer that looks at the batch as a whole."""

    def sgd(parameters):
        return torch.optim.SGD(parameters, lr=0.01)

    def make(accumulation):
        networks = {"num_classes": 3, "image_channels": 1, "fmap_base": 32, "fmap_max": 8}
        return AdversarialGame(
            Player(partial(ProgressiveGenerator, 8, latent_dim=6, **networks), sgd),
            Player(partial(ProgressiveDiscriminator, 8, stddev_group=1, **networks), sgd),
            NonSaturating(),
            Constant(8, 8, 1, 2),
            [R1(1.0), GradientPenalty(1.0), Drift(0.1)],
            accumulation=accumulation,
        ).double()

    whole, parts = play(make(1), 3).state_dict(), play(make(4), 3).state_dict()
    for name in whole:
        assert torch.allclose(whole[name], parts[name], rtol=1e-9, atol=1e-12), name


@pytest.mark.parametrize("make", GAMES)
@pytest.mark.parametrize("cut", [1, 3, 7])
def test_a_resumed_game_goes_on_to_the_bit(make, cut):
    """Whatever the fresh game's global generators did before: nothing of them is used."""
    through = play(make(), 10)
    first = play(make(), cut)
    state, place = state_of(first), first.clock.images_seen
    torch.randn(100)
    second = make()
    second.load_training_state(state, place)
    play(second, 10 - cut)
    assert same(state_of(through), state_of(second))
    assert same(through.measured, second.measured)


def test_seeds_make_different_networks_and_latents():
    a, b = progressive_game(seed=1), progressive_game(seed=2)
    assert not torch.equal(a.generator.network.blocks[0].conv.weight, b.generator.network.blocks[0].conv.weight)
    b.load_state_dict(a.state_dict())
    assert not torch.equal(play(a, 1).measured["loss_g"], play(b, 1).measured["loss_g"])


def test_growth_trains_the_new_path_and_leaves_the_rest_alone():
    game = progressive_game()
    new = game.generator.network.blocks[1].conv1.weight
    before = new.clone()
    play(game, 4)
    assert torch.equal(new, before)
    assert game.schedule.at(game.clock.images_seen).resolution == 8
    play(game, 1)
    assert torch.equal(new, before)  # alpha is 0 in the first step of a transition: its gradient is 0
    play(game, 1)
    assert not torch.equal(new, before)


def test_the_optimizer_forgets_at_a_new_resolution_if_asked_to():
    def steps_of_the_first_block(reset):
        game = play(progressive_game(player_options={"reset_optimizer": reset}), 5)
        return game.generator.optimizer.state[game.generator.network.blocks[0].conv.weight]["step"].item()

    assert (steps_of_the_first_block(True), steps_of_the_first_block(False)) == (1, 5)


def test_learning_rates_and_clipping_are_the_players():
    game = progressive_game(player_options={"learning_rate": LinearDecay(), "max_grad_norm": 1e-6})
    norms = {}
    game.discriminator.optimizer.register_step_pre_hook(
        lambda *_: norms.update(
            d=sum(p.grad.square().sum() for p in game.discriminator.parameters() if p.grad is not None)
        )
    )
    play(game, 13)
    assert game.discriminator.optimizer.param_groups[0]["lr"] == pytest.approx(2e-3 * (1 - 96 / 200))
    assert norms["d"].sqrt() == pytest.approx(1e-6, rel=1e-3)
    assert game.measured["grad_norm_d"] > 1e-4


@pytest.mark.parametrize("name", ["generator", "discriminator"])
def test_a_non_finite_loss_stops_before_any_update(name):
    game = play(progressive_game(), 2)
    with torch.no_grad():
        next(game.players[name].network.blocks[0].parameters()).fill_(float("nan"))
    before = state_of(game)
    with pytest.raises(NonFiniteError, match=r"discriminator: loss nan.*0\.016 kimg"):
        play(game, 1)
    after = state_of(game)
    assert all(torch.equal(before[k], after[k]) or before[k].isnan().any() for k in before)


def test_a_checkpoint_of_other_networks_is_refused():
    state = state_of(progressive_game())
    with pytest.raises(ValueError, match=r"other networks: .* is \(.*\) in it and"):
        progressive_game(ema_half_life_kimg=1).load_training_state(
            {k: v[:1] if v.ndim == 4 else v for k, v in state.items()}, 0
        )


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"accumulation": 3}, "multiple of accumulation"),
        ({"accumulation": 0}, "accumulation"),
        ({"batch_size": 6}, "stddev_group"),
        ({"ema_half_life_kimg": -1}, "half-life"),
        ({"player_options": {"max_grad_norm": 0}}, "max_grad_norm"),
        ({"player_options": {"compile": True}}, r"discriminator\.compile \(=true\) is not for R1.*ApproximateR1"),
        (
            {"player_options": {"compile": True}, "regularizers": [Drift(1.0), GradientPenalty(1.0)]},
            r"not for GradientPenalty, .*set compile to false",
        ),
        ({"player_options": {"compile": True, "recompute": True}}, r"recompute \(=true\)"),
    ],
)
def test_mistakes_are_named(options, named):
    with pytest.raises(ValueError, match=named):
        progressive_game(**options)


@pytest.mark.parametrize("make", GAMES)
def test_mixed_precision_keeps_weights_losses_and_spectral_norms_whole(make):
    game, plain = make(), make()
    with torch.autocast("cpu", torch.bfloat16):
        play(game, 1)
    play(plain, 1)
    assert {value.dtype for value in state_of(game).values()} == {value.dtype for value in state_of(plain).values()}
    assert game.measured["loss_d"].dtype == torch.float32
    assert game.measured["loss_d"].item() == pytest.approx(plain.measured["loss_d"].item(), rel=0.05)
    for name, value in game.state_dict().items():
        if name.endswith(".u") and "ema" not in name:
            assert value.norm().item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("iterations", [1, 3])
@pytest.mark.parametrize("recompute", [False, True])
def test_a_turn_moves_spectral_norms_on_once_however_many_passes_it_has(iterations, recompute, monkeypatch):
    """Two parts, real and fake apart, a penalty with a pass of its own: and all of them see the same weights."""
    options = {"power_iterations": iterations, "recompute": recompute}
    game = biggan_game(accumulation=2, regularizers=[GradientPenalty(1.0)], player_options=options)
    game.joint_pass = False
    moment, given = game.schedule.at(0), batch(game)
    expected, seen, inner = {}, defaultdict(list), SpectralNorm.normalized_weight
    for player in game.players.values():
        player.prepare(moment, game.schedule.total_images)
        for layer in (module for module in player.network.modules() if isinstance(module, SpectralNorm)):
            alone = copy.deepcopy(layer)
            alone.advance(iterations)
            expected[layer] = alone.u, 2 if player.name == "generator" else 6

    def normalized_weight(layer):
        seen[layer].append(inner(layer))
        return seen[layer][-1]

    monkeypatch.setattr(SpectralNorm, "normalized_weight", normalized_weight)
    game.discriminator_turn(moment, 0, given["images"][:8], given["labels"][:8])
    assert expected.keys() == seen.keys()
    for layer, (u, passes) in expected.items():
        assert torch.equal(layer.u, u)
        assert len(seen[layer]) >= passes
        assert all(torch.equal(weight, seen[layer][0]) for weight in seen[layer])


def test_channels_last_is_another_order_of_the_same_numbers():
    options = {"player_options": {"channels_last": True}}
    plain, game = play(progressive_game().double(), 8), play(progressive_game(**options).double(), 7)
    outputs = []
    for network in (game.generator.network, game.discriminator.network, game.average):
        assert network.blocks[1].conv1.weight.is_contiguous(memory_format=torch.channels_last)
        network.blocks[1].register_forward_hook(lambda *given: outputs.append(given[-1]))
    resumed = progressive_game(**options).double()
    resumed.load_training_state(state_of(game), game.clock.images_seen)
    play(game, 1)
    assert outputs
    assert all(images.is_contiguous(memory_format=torch.channels_last) for images in outputs)
    assert all(torch.allclose(v, game.state_dict()[k], atol=1e-12) for k, v in plain.state_dict().items())
    assert same(state_of(game), state_of(play(resumed, 1)))
    state = resumed.discriminator.optimizer.state[resumed.discriminator.network.blocks[1].conv1.weight]
    assert state["exp_avg"].is_contiguous(memory_format=torch.channels_last)


@pytest.fixture
def compiled(monkeypatch):
    """What torch's compiler counts."""
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", torch._dynamo.config.recompile_limit)
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    with compiled_quickly():
        yield torch._dynamo.utils.counters
    torch.compiler.reset()


def test_compiled_networks_grow_and_keep_their_names(compiled):
    options = {"regularizers": [ApproximateR1(1.0, 0.1), Drift(0.1)]}
    game = progressive_game(player_options={"compile": True}, **options).double()
    assert not compiled["frames"]
    assert game.average._compiled_call_impl is None
    plain = play(progressive_game(**options).double(), 7)
    play(game, 7)
    assert compiled["frames"]["ok"] == compiled["frames"]["total"] > 4  # none was given up
    assert not compiled["graph_break"]
    expected, found = plain.state_dict(), game.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.allclose(value, found[key], atol=1e-9) for key, value in expected.items())


@pytest.mark.long
def test_compiled_biggan_is_biggan(compiled):
    plain = play(biggan_game().double(), 3)
    game = play(biggan_game(player_options={"compile": True}).double(), 3)
    assert compiled["frames"]["ok"] == compiled["frames"]["total"] > 0
    found = game.state_dict()
    assert all(torch.allclose(value, found[key], atol=1e-9) for key, value in plain.state_dict().items())
