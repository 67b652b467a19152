"""Model FLOPs utilisation by hand, and the peaks of devices by name."""

from types import SimpleNamespace

import pytest

from bigtrain.callbacks.utilization import Utilization, flops_per_image, memory
from bigtrain.networks import ProgressiveDiscriminator, ProgressiveGenerator
from bigtrain.networks.cost import cost
from bigtrain.runtime.peaks import PEAKS, peak_flops
from tests.unit.tiny import progressive_game


@pytest.mark.parametrize(
    ("device", "precision", "tf32", "tera"),
    [
        ("NVIDIA A100-SXM4-80GB", "bf16-mixed", False, 312),
        ("NVIDIA A100-SXM4-80GB", "32-true", True, 156),
        ("NVIDIA A100-SXM4-80GB", "32-true", False, 19.5),
        ("NVIDIA H100 80GB HBM3", "bf16-mixed", False, 989.4),
        ("NVIDIA H100 PCIe", "bf16-mixed", False, 756),
        ("NVIDIA A10G", "16-mixed", False, 70),
        ("NVIDIA A10", "16-mixed", False, 125),
        ("NVIDIA L40S", "bf16-mixed", False, 362),
        ("NVIDIA L4", "bf16-mixed", False, 121),
        ("Tesla V100-SXM2-16GB", "16-mixed", False, 125),
        ("NVIDIA GeForce RTX 4090", "32-true", False, 82.6),
    ],
)
def test_a_peak_is_found_by_name(device, precision, tf32, tera):
    assert peak_flops(device, precision, tf32) == pytest.approx(tera * 1e12)


def test_an_unknown_device_has_no_peak():
    assert peak_flops("NVIDIA RTX A1000", "32-true", False) is None
    assert peak_flops("NVIDIA A100", "64-true", False) is None
    assert all(peak.half >= peak.tf32 >= peak.single for peak in PEAKS.values())


def test_a_growing_network_costs_what_its_resolution_does():
    """By hand: from 6 numbers to 4² of 16 channels and to_rgb; back from 3 by from_rgb. (As in `test_cost`.)"""
    generator = ProgressiveGenerator(8, 3, 0, latent_dim=6, fmap_base=32, fmap_max=16)
    at_4 = cost(generator, {"resolution": 4, "alpha": 1.0}).multiply_adds
    assert at_4 == 6 * 16 * 16 + 16 * 16 * 9 * 16 + 16 * 3 * 16
    fading = cost(generator, {"resolution": 8, "alpha": 0.5}).multiply_adds
    assert fading == cost(generator).multiply_adds + 16 * 3 * 16  # the old to_rgb beside the new one
    discriminator = ProgressiveDiscriminator(8, 3, fmap_base=32, fmap_max=16)
    assert cost(discriminator, {"resolution": 4, "alpha": 1.0}).multiply_adds < cost(discriminator).multiply_adds / 3


def test_the_share_is_that_of_what_the_step_computes():
    game = progressive_game()
    game.moment = game.schedule.at(0)
    place = {"resolution": game.moment.resolution, "alpha": game.moment.alpha}
    g, d = (2 * cost(n, place).multiply_adds for n in (game.generator_network, game.discriminator_network))
    phase = game.moment.phase
    step = phase.d_steps_per_g_step * (6 * d + g) + 3 * g + 2 * d
    assert flops_per_image(game) == pytest.approx(step / phase.d_steps_per_g_step)
    share = Utilization("NVIDIA T4", "32-true", False).of(game, 1000.0)["mfu"]
    assert share == pytest.approx(1000 * flops_per_image(game) / 8.1e12)
    assert Utilization(None, "32-true", False).of(game, 1000.0) == {}
    two = SimpleNamespace(**{n: getattr(game, n) for n in ("moment", "generator_network", "discriminator_network")})
    two.place, two.parallel = game.place, SimpleNamespace(world=2)
    assert Utilization("NVIDIA T4", "32-true", False).of(two, 1000.0)["mfu"] == pytest.approx(share / 2)


def test_memory_is_measured():
    assert 0.05 < memory()["memory/host_peak_gib"] < 1000
