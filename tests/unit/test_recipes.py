"""Every configuration of configs/ has a header that is complete and true, and is as large as it says.

Lengths, averages, learning rates and sizes are compared with what was published of the runs that they are of.
"""

from __future__ import annotations

import math

import pytest

from bigtrain.games.checks import check_batches, check_players, check_schedule
from bigtrain.schedules import ConstantRate, LearningRate
from tests.runs import ROOT
from tests.unit.recipes import PLAYERS, RECIPES, commands, costs, header, make, networks, plain, processes, schedule_of
from tests.unit.test_readme import check

FIELDS = {"Source", "Command", "Size", "Hardware", "Time", "Departures"}


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_header_says_what_one_must_know(recipe):
    fields = header(recipe)
    assert fields.keys() >= FIELDS
    assert all(text.strip() for text in fields.values())
    assert ("Measured" in fields) != ("not run here" in fields.get("Not tried", ""))
    assert "Measured" in fields or "Published" in fields


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_headers_commands_parse_and_are_of_this_file(recipe, monkeypatch):
    monkeypatch.chdir(ROOT)
    fields = header(recipe)
    found = commands("\n".join((fields.get("Data", ""), fields["Command"])))
    calls = [words[words.index("bigtrain") + 1 :] for words in found]
    for arguments in calls:
        check(arguments, monkeypatch)
    build, fit = calls
    assert build[:2] == ["shards", "build"]
    assert fit[:3] == ["fit", "--config", f"configs/{recipe}.yaml"]
    assert build[3] == plain(recipe)["data"]["url"]


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_shards_have_the_resolutions_of_the_schedule(recipe):
    (build,) = [words for words in commands("\n".join(header(recipe).values())) if "build" in words]
    stored = {int(number) for number in build[build.index("--resolutions") + 1].split(",")}
    assert stored >= set(schedule_of(recipe).resolutions)


def test_a_header_with_a_wrong_command_would_be_found(monkeypatch):
    (words,) = commands("srun --nodes 2 --ntasks-per-node 8 \\\n  bigtrain fit --config configs/quickstart.yml")
    assert processes(words) == 16
    monkeypatch.chdir(ROOT)
    with pytest.raises(ValueError, match="quickstart"):
        check(words[words.index("bigtrain") + 1 :], monkeypatch)


@pytest.mark.parametrize("recipe", RECIPES)
def test_networks_at_full_size_are_as_large_as_the_header_says(recipe):
    generator, discriminator = networks(recipe)
    told = dict(line.split(": ") for line in header(recipe)["Size"].splitlines())
    assert told == {name: str(found) for name, found in costs(recipe).items()}
    check_players(generator, discriminator)
    check_schedule(schedule_of(recipe), generator, discriminator)


@pytest.mark.parametrize("recipe", RECIPES)
def test_batches_are_whole_on_the_headers_devices(recipe, monkeypatch):
    monkeypatch.chdir(ROOT)
    (fit,) = [words for words in commands(header(recipe)["Command"]) if "fit" in words]
    accumulation, group = plain(recipe)["game"]["init_args"]["accumulation"], networks(recipe)[1].batch_group
    check_batches(schedule_of(recipe), accumulation, group, processes(fit))


# ---------------------------------------------------------------- what was published


@pytest.mark.parametrize(
    ("recipe", "devices"),
    [
        ("biggan_imagenet128", 8),
        ("biggan_imagenet128_paper", 128),
        ("biggan_imagenet256", 256),
        ("biggan_imagenet512", 512),
        ("sngan_imagenet128", 4),
        ("progan_celebahq1024_8gpu", 8),
        ("progan_celebahq1024_1gpu", 1),
    ],
)
def test_commands_start_as_many_processes_as_there_were_devices(recipe, devices, monkeypatch):
    monkeypatch.chdir(ROOT)
    (fit,) = commands(header(recipe)["Command"])
    assert processes(fit) == devices


#: Total steps, images of a discriminator update, updates a step, decay of the average a step, steps before it begins.
COURSES = {
    "biggan_imagenet128": (150_000, 2048, 1, 0.9999, 20_000),
    "biggan_imagenet128_paper": (200_000, 2048, 2, 0.9999, 20_000),
    "biggan_imagenet256": (200_000, 2048, 2, 0.9999, 20_000),
    "biggan_imagenet512": (200_000, 2048, 2, 0.9999, 20_000),
    "biggan_deep_imagenet128": (150_000, 2048, 1, 0.9999, 20_000),
    "biggan_cifar10": (125_000, 50, 4, 0.9999, 1000),
    "sngan_cifar10": (100_000, 64, 5, 0, 0),
    "sngan_imagenet128": (450_000, 64, 5, 0, 0),
    "sagan_imagenet128": (1_000_000, 256, 1, 0.9999, 2000),
    "wgangp_cifar10": (100_000, 64, 5, 0, 0),
    "dcgan_lsun64": (118_477, 128, 1, 0, 0),
    "progan_cifar10": (1_250_000, 16, 1, 0.999, 0),
    "progan_lsun256": (1_250_000, 16, 1, 0.999, 0),
    "progan_celebahq1024_8gpu": (None, 32, 1, 0.999, 0),
    "progan_celebahq1024_1gpu": (None, 4, 1, 0.999, 0),
}


@pytest.mark.parametrize("recipe", COURSES)
def test_lengths_and_averages_in_images_are_the_published_ones_in_steps(recipe):
    """At the last resolution, where the batch has its last size."""
    steps, batch_size, d_steps, decay, start = COURSES[recipe]
    schedule, game = schedule_of(recipe), plain(recipe)["game"]["init_args"]
    phase = schedule.phases[-1]
    assert (phase.batch_size, phase.d_steps_per_g_step) == (batch_size, d_steps)
    assert steps is None or round(schedule.total_images / phase.images_per_step) == steps
    half_life = game["ema_half_life_kimg"] * 1000
    beta = math.exp(math.log(0.5) * phase.images_per_step / half_life) if half_life else 0
    assert 1 - beta == pytest.approx(1 - decay, rel=1e-3)
    assert game["ema_start_kimg"] * 1000 == start * phase.images_per_step


#: Learning rates of generator and discriminator, after so many kimg.
RATES = [
    ("biggan_imagenet128", 1e5, 1e-4, 4e-4),
    ("biggan_imagenet128_paper", 1e5, 5e-5, 2e-4),
    ("biggan_imagenet256", 1e5, 5e-5, 2e-4),
    ("biggan_imagenet512", 1e5, 5e-5, 2e-4),
    ("biggan_deep_imagenet128", 1e5, 1e-4, 4e-4),
    ("biggan_cifar10", 1e4, 2e-4, 2e-4),
    ("sngan_cifar10", 0, 2e-4, 2e-4),
    ("sngan_cifar10", 8000, 1.5e-4, 1.5e-4),
    ("sngan_imagenet128", 128_000, 2e-4, 2e-4),
    ("sngan_imagenet128", 136_000, 1e-4, 1e-4),
    ("sagan_imagenet128", 2e5, 1e-4, 4e-4),
    ("wgangp_cifar10", 24_000, 5e-5, 5e-5),
    ("dcgan_lsun64", 1e4, 2e-4, 2e-4),
    ("progan_cifar10", 1e4, 1e-3, 1e-3),
    ("progan_lsun256", 1e4, 1e-3, 1e-3),
    # 600 kimg at 4², 1,200 at each after it: 128² begins at 5,400, 256² at 6,600, 512² at 7,800, 1024² at 9,000.
    ("progan_celebahq1024_8gpu", 5390, 1e-3, 1e-3),
    ("progan_celebahq1024_8gpu", 5410, 1.5e-3, 1.5e-3),
    ("progan_celebahq1024_8gpu", 6610, 2e-3, 2e-3),
    ("progan_celebahq1024_8gpu", 7810, 3e-3, 3e-3),
    ("progan_celebahq1024_1gpu", 8990, 1e-3, 1e-3),
    ("progan_celebahq1024_1gpu", 9010, 1.5e-3, 1.5e-3),
]


@pytest.mark.parametrize(("recipe", "kimg", "of_generator", "of_discriminator"), RATES)
def test_learning_rates_are_the_published_ones(recipe, kimg, of_generator, of_discriminator):
    schedule, found = schedule_of(recipe), []
    for name in PLAYERS:
        player = plain(recipe)["game"]["init_args"][name]["init_args"]
        rate = make(LearningRate, player["learning_rate"]) if player["learning_rate"] else ConstantRate()
        factor = rate.factor(schedule.at(round(kimg * 1000)), schedule.total_images)
        found.append(player["optimizer"]["init_args"]["lr"] * factor)
    assert found == pytest.approx([of_generator, of_discriminator])


@pytest.mark.parametrize(
    ("recipe", "published"),
    [
        # the authors' PyTorch code, without the buffers of the spectral norm
        ("biggan_imagenet128", (70_433_988, 87_982_370)),
        ("biggan_imagenet128_paper", (70_433_988, 87_982_370)),
        # compare_gan's resnet_biggan_deep_test.py
        ("biggan_deep_imagenet128", (50_244_484, 34_590_210)),
        # PyTorch's example of a DCGAN
        ("dcgan_lsun64", (3_576_704, 2_765_568)),
    ],
)
def test_networks_have_the_published_numbers_of_parameters(recipe, published):
    assert tuple(found.parameters for found in costs(recipe).values()) == published


def test_sagan_has_the_published_number_of_parameters():
    """81.5 M for both together, in the first row of table 1 of arXiv 1809.11096."""
    total = sum(found.parameters for found in costs("sagan_imagenet128").values())
    assert total == pytest.approx(81.5e6, abs=0.05e6)


@pytest.mark.parametrize("recipe", ["progan_celebahq1024_8gpu", "progan_celebahq1024_1gpu"])
def test_progressive_gan_has_the_published_number_of_parameters(recipe):
    """23.1 M each (arXiv 1710.10196, table 2), with the conversions to and from colours at all resolutions."""
    for found in costs(recipe).values():
        assert found.parameters == pytest.approx(23.1e6, rel=2e-3)
