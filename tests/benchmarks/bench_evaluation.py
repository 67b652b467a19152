"""A whole evaluation beside torch-fidelity's: `python tests/benchmarks/bench_evaluation.py [NUM]`.

Goal: at least 1.5 times as many images a second, by the same weights (of chance, in torch-fidelity's layout), of the
same 32² images, for FID, IS and KID, the real images' features being cached on both sides. Both begin with the file of
weights and take their turns in one run. CPU seconds of all threads, which other work on the machine lengthens less
than the time on the clock; the ratio is to be trusted on a quiet machine only. Of many images almost all the time is
the network's: without 1,000 of them the matrix root weighs more than it should.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch_fidelity
from torch import Tensor

from bigtrain.evaluation.evaluate import evaluate
from bigtrain.evaluation.extractors.inception import InceptionExtractor
from bigtrain.evaluation.reference import REAL_FEATURES, Labelled, Reference
from bigtrain.evaluation.statistics import FeatureStatistics
from tests.unit.inception import Images, random_weights

BATCH, ROUNDS, REALS, DIM = 64, 3, 4096, 2048
KEYS = ("frechet_inception_distance", "inception_score_mean", "kernel_inception_distance_mean")


def real_features() -> Tensor:
    """With a spectrum that falls as that of Inception's features does."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(REALS, DIM, generator=generator) * torch.arange(1, DIM + 1) ** -0.5 + 0.5


def ours(weights: Path, fake: Tensor, features: FeatureStatistics, rows: Tensor) -> list[float]:
    labelled = Labelled(rows, torch.zeros(len(rows), dtype=torch.int64))
    load = {REAL_FEATURES: lambda: labelled}
    reference = Reference(features, torch.zeros(0), "of chance", full=True, load=load)
    metrics = ["fid", "is", "kid"]
    scores = evaluate(lambda i: (fake[i], None), InceptionExtractor(weights), reference, metrics, len(fake), BATCH)
    return [score.value for score in scores]


def theirs(weights: Path, fake: Tensor, cache: Path) -> list[float]:
    found = torch_fidelity.calculate_metrics(
        input1=Images(fake),
        input2=Images(fake[:1]),  # of which only the name is looked at
        input2_cache_name="reals",
        cache_root=str(cache),
        fid=True,
        isc=True,
        kid=True,
        kid_subset_size=min(1000, len(fake)),
        samples_shuffle=False,
        feature_extractor_weights_path=str(weights),
        batch_size=BATCH,
        cuda=False,
        save_cpu_ram=True,  # no processes that load images, whose time would not be seen
        verbose=False,
    )
    return [found[key] for key in KEYS]


def main() -> None:
    num = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    fake = torch.randint(0, 256, (num, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    with tempfile.TemporaryDirectory() as name:
        weights, rows = random_weights(Path(name)), real_features()
        features = FeatureStatistics(DIM, rows.double().mean(dim=0))
        features.update(rows)
        for layer, cached in (("2048", rows), ("logits_unbiased", torch.zeros(1, 1008))):
            torch.save(cached, Path(name) / f"reals-inception-v3-compat-features-{layer}.pt")
        contestants: dict[str, Callable[[], list[float]]] = {
            "bigtrain": lambda: ours(weights, fake, features, rows),
            "torch-fidelity": lambda: theirs(weights, fake, Path(name)),
        }
        taken: dict[str, list[float]] = {contestant: [] for contestant in contestants}
        values = {}
        for _ in range(ROUNDS):
            for contestant, work in contestants.items():
                begun = time.process_time()
                values[contestant] = work()
                taken[contestant].append(time.process_time() - begun)
    print(f"{num} images in batches of {BATCH}, {torch.get_num_threads()} threads; median of {ROUNDS} in turns:")
    for contestant, seconds in taken.items():
        fid, inception, kid = values[contestant]
        rate = num / statistics.median(seconds)
        print(f"  {contestant:16}{rate:7.2f} images a CPU second   FID {fid:.7g}  IS {inception:.7g}  KID {kid:.6g}")
    ratios = [theirs / ours for ours, theirs in zip(taken["bigtrain"], taken["torch-fidelity"], strict=True)]
    print(f"  ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
