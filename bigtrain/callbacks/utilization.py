"""How much of what the devices could do the networks use, and how much memory."""

from __future__ import annotations

import resource
import sys

import torch

from bigtrain.games import AdversarialGame
from bigtrain.networks.cost import cost
from bigtrain.runtime.peaks import peak_flops

GIB = 2**30


class Utilization:
    """Model FLOPs utilisation: what the networks need for the images that were seen, of what the devices could do.

    What penalties compute on top of it, or is computed again to save memory, does not count as use.

    Args:
        device: the name of each of the devices; None for CPUs.
        precision: of the training, as in `Compute`.
        tf32: whether float32 products may be rounded to TF32.
    """

    def __init__(self, device: str | None, precision: str, tf32: bool) -> None:
        self.peak = None if device is None else peak_flops(device, precision, tf32)
        self._flops: dict[tuple[int, bool], float] = {}

    def of(self, game: AdversarialGame, images_per_second: float) -> dict[str, float]:
        """The share `mfu`, or nothing where the peak is not known."""
        if self.peak is None:
            return {}
        place = (game.moment.resolution, game.moment.alpha < 1)
        if place not in self._flops:
            self._flops[place] = flops_per_image(game)
        return {"mfu": images_per_second * self._flops[place] / (self.peak * game.parallel.world)}


def flops_per_image(game: AdversarialGame) -> float:
    """For each real image: forward and backward passes of both players in a step; a backward pass is two forward ones.

    A discriminator turn passes a real and a fake through D and back, and makes the fake by G. A generator turn passes a
    fake through G and back and through D, of which only the gradient of the images is computed: one pass, not two.
    """
    g, d = (
        2 * cost(network, game.place(game.moment, network)).multiply_adds
        for network in (game.generator_network, game.discriminator_network)
    )
    return (6 * d + g) + (3 * g + 2 * d) / game.moment.phase.d_steps_per_g_step


def memory() -> dict[str, float]:
    """The most that this process has held so far, and its GPU since the last call, in GiB."""
    unit = 1 if sys.platform == "darwin" else 1024
    found = {"memory/host_peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB}
    if torch.cuda.is_available():
        found["memory/device_peak_gib"] = torch.cuda.max_memory_allocated() / GIB
        torch.cuda.reset_peak_memory_stats()
    return found
