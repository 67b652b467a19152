"""A narrow copy of every configuration of configs/ plays, with all of its options and in all of its phases."""

from __future__ import annotations

import functools
from itertools import islice
from pathlib import Path
from pydoc import locate
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bigtrain.cli.configuration import instantiate, make_parser, parse
from bigtrain.games import AdversarialGame, Player
from bigtrain.regularizers import GradientPenalty
from bigtrain.schedules import ConstantRate
from tests.runs import write_config
from tests.unit.made_source import Made, build_made
from tests.unit.recipes import RECIPES, networks, plain, reduced


class Noise(Made):
    """Images of noise, and labels all over the classes."""

    def __init__(self, channels: int, size: int, num_classes: int) -> None:
        super().__init__(count=12, size=size)
        self.channels, self.native_resolution = channels, size
        self.classes = [f"{number:03d}" for number in range(num_classes)]

    def label(self, index: int) -> int | None:
        return index * 7 % len(self.classes) if self.classes else None

    def load(self, index: int) -> Image.Image:
        pixels = np.random.default_rng(index).integers(0, 256, (self.size, self.size, 3), dtype=np.uint8)
        return Image.fromarray(pixels).convert("RGB" if self.channels == 3 else "L")


@pytest.fixture(scope="session")
def noise(tmp_path_factory):
    """Shards of noise up to 32², built once for each number of channels and classes."""

    @functools.cache
    def shards(channels: int, num_classes: int) -> Path:
        folder = tmp_path_factory.mktemp("noise")
        build_made(Noise(channels, 32, num_classes), folder, resolutions=[4, 8, 16, 32])
        return folder

    return shards


def built(recipe: str, noise, tmp_path: Path) -> Any:
    """The narrow copy of a recipe, made as `bigtrain fit` makes what it trains."""
    config, (generator, _) = reduced(recipe), networks(recipe)
    config["data"]["url"] = str(noise(generator.image_channels, generator.num_classes))
    parser = make_parser()
    return instantiate(parser, parse(parser, ["--config", str(write_config(tmp_path / f"{recipe}.yaml", config))]))


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_narrow_copy_plays_with_all_of_its_options(recipe, noise, tmp_path):
    made = built(recipe, noise, tmp_path)
    game, config = made.game, plain(recipe)["game"]["init_args"]
    passes: list[int] = []
    game.discriminator.network.register_forward_hook(lambda *_: passes.append(1))
    played = set()
    for number, batch in enumerate(islice(made.data.batches(0), len(list(game.schedule.steps(0))))):
        before = {name: [p.clone() for p in player.network.parameters()] for name, player in game.players.items()}
        passes.clear()
        game.training_step(batch, number)
        played.add((game.moment.resolution, game.moment.phase.kind))
        for name, player in game.players.items():
            assert any(not torch.equal(a, b) for a, b in zip(before[name], player.network.parameters(), strict=True))
        assert all(value.isfinite() for value in game.measured.values())
        assert len(passes) == passes_of(config, game)
    assert game.clock.images_seen == game.schedule.total_images
    assert played == {(phase.resolution, phase.kind) for phase in game.schedule.phases}
    assert all(tensor.isfinite().all() for tensor in game.state_dict().values())
    assert_average(game, config)
    for name, player in game.players.items():
        assert_player(name, player, game, config)


def passes_of(config: dict[str, Any], game: AdversarialGame) -> int:
    """Passes through the discriminator in a step: of real and fake, of what lies between, of the generator's fakes."""
    between = sum(isinstance(regularizer, GradientPenalty) for regularizer in game.regularizers)
    turn = (1 if config["joint_pass"] else 2) + between
    return max(2, config["accumulation"]) * (game.moment.phase.d_steps_per_g_step * turn + 1)


def assert_average(game: AdversarialGame, config: dict[str, Any]) -> None:
    """It has begun, and is a copy only where no half-life is given."""
    trained, average = game.generator_network.state_dict(), game.average.state_dict()
    assert all(torch.equal(trained[key], average[key]) for key in trained) == (config["ema_half_life_kimg"] == 0)


def assert_player(name: str, player: Player, game: AdversarialGame, config: dict[str, Any]) -> None:
    """Its optimizer and learning rate are those that were asked for, and so are the parts of its loss."""
    mine = config[name]["init_args"]
    asked, used = mine["optimizer"]["init_args"], player.optimizer.defaults
    assert type(player.optimizer) is locate(mine["optimizer"]["class_path"])
    assert {key: list(used[key]) if isinstance(used[key], tuple) else used[key] for key in asked} == asked
    rate = player.learning_rate
    assert type(rate) is (locate(mine["learning_rate"]["class_path"]) if mine["learning_rate"] else ConstantRate)
    assert player.optimizer.param_groups[0]["lr"] == asked["lr"] * rate.factor(game.moment, game.schedule.total_images)
    penalties = [*(mine["weight_regularizers"] or []), *(config["regularizers"] if name == "discriminator" else [])]
    wanted = {each["class_path"].rsplit(".", 1)[1] for each in penalties}
    if game.classifies:
        wanted |= {"classifier"} if name == "generator" else {"classifier_real", "classifier_fake"}
    begin = f"loss_{name[0]}/"
    assert {key.removeprefix(begin) for key in game.measured if key.startswith(begin)} - {"adversarial"} == wanted
