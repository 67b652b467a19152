"""The Fréchet distance of 2048 dimensions beside torchmetrics': `python tests/benchmarks/bench_frechet.py`.

Goal: at least twice as fast from nothing; and the same distance, to 1e-9, as by V·Λ^½ of the real images' covariance.
They take their turns in one run and are measured in CPU seconds of all threads, which other work on the machine
lengthens less than the time on the clock; the ratio is to be trusted on a quiet machine only.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torchmetrics.image.fid import _compute_fid

from bigtrain.evaluation.metrics import frechet_distance, square_root
from bigtrain.evaluation.statistics import FeatureStatistics

DIM, SAMPLES, ROUNDS = 2048, 4096, 3


def features(seed: int) -> FeatureStatistics:
    """Of samples with a spectrum that falls as that of Inception's features does."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.arange(1, DIM + 1) ** -0.5
    found = FeatureStatistics(DIM)
    found.update(torch.randn(SAMPLES, DIM, generator=generator) * scale + 0.01 * seed)
    return found


def eigen_root(covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp(min=0).sqrt()


def timed(work: Callable[[], float]) -> tuple[float, float]:
    begun = time.process_time()
    value = work()
    return time.process_time() - begun, value


def main() -> None:
    real, fake = features(0), features(1)
    root = square_root(real.covariance)
    contestants: dict[str, Callable[[], float]] = {
        "bigtrain, root cached": lambda: frechet_distance(real, fake, root),
        "bigtrain, from nothing": lambda: frechet_distance(real, fake),
        "bigtrain, by V·Λ^½": lambda: frechet_distance(real, fake, eigen_root(real.covariance)),
        "torchmetrics": lambda: float(_compute_fid(real.mean, real.covariance, fake.mean, fake.covariance)),
    }
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    values = {}
    for _ in range(ROUNDS):
        for name, work in contestants.items():
            seconds, values[name] = timed(work)
            taken[name].append(seconds)
    theirs = statistics.median(taken["torchmetrics"])
    print(f"{DIM} dimensions, {torch.get_num_threads()} threads; CPU seconds, median of {ROUNDS} in turns:")
    for name, seconds in taken.items():
        median = statistics.median(seconds)
        print(f"  {name:24}{median:8.2f} s {theirs / median:7.2f} x   distance {values[name]:.9g}")


if __name__ == "__main__":
    main()
