"""The second table's metrics: of a generator itself, which is asked for images of latents beside each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bigtrain.evaluation.conventions import TF1, Conventions
from bigtrain.evaluation.evaluate import Progress, index_batches
from bigtrain.evaluation.extractors import Extractor, exact_arithmetic
from bigtrain.evaluation.extractors.base import probe
from bigtrain.evaluation.kept import KeptDistances
from bigtrain.evaluation.metrics.path_length import PATH_METRICS, PathMetric, path_length
from bigtrain.evaluation.protocol import Protocol, Provenance, Score, score_name
from bigtrain.sampling.generate import Sampler
from bigtrain.sampling.latents import draw_latents
from bigtrain.sampling.pixels import enlarge

PAIRS = 16  # of images that are compared at a time: LPIPS' features of one of 256² fill 32 MB


def evaluate_paths(
    generator: Sampler,
    extractor: Extractor,
    name: str,
    num: int,
    batch_size: int,
    provenance: Provenance,
    resolution: int,
    *,
    conventions: Conventions = TF1,
    rank: int = 0,
    world_size: int = 1,
    progress: Progress | None = None,
    wait: Callable[[], None] = lambda: None,
) -> Score:
    """A score of `num` short steps between latents of a generator.

    Step i starts from sample i's latent, with its label at both ends. With more than one rank each makes every
    `world_size`-th step; all of them must call this and get the same scores.

    Args:
        generator: makes images of latents.
        extractor: its features' squared distance is the distance of two images, which are given to it unrounded.
        name: of PATH_METRICS.
        num: steps over all ranks, at least 2.
        batch_size: steps at a time on each rank.
        provenance: how the generator is sampled, for the protocol.
        resolution: at which images are compared; smaller ones are enlarged to it.
        conventions: of the protocol of the other scores.
        rank, world_size: which of the steps are this process's.
        progress: is called after each batch.
        wait: for the other ranks, before what they found is added up.

    Raises:
        ValueError: if there are too few steps, or the distances are no numbers.
    """
    if num < 2 or batch_size < 1:
        raise ValueError(f"num (={num}) must be at least 2, batch_size (={batch_size}) at least 1")

    def make(latents: Tensor, labels: Tensor) -> Tensor:
        return (enlarge(generator.make_exact(latents, labels), resolution) + 1) * 127.5

    kept = KeptDistances(num)
    total, done = len(range(rank, num, world_size)), 0
    for indices, valid in index_batches(num, batch_size, rank, world_size):
        with exact_arithmetic(extractor.device):
            found = _distances(generator, PATH_METRICS[name], indices, make, extractor)
        kept.update(found[:valid].cpu(), torch.from_numpy(indices[:valid]))
        done += valid
        if progress is not None:
            progress(done, total)
    if world_size > 1:
        wait()
        kept.add_ranks()
    return _score(name, kept.rows, extractor, provenance, conventions)


def _distances(
    generator: Sampler,
    metric: PathMetric,
    indices: NDArray[np.int64],
    make: Callable[[Tensor, Tensor], Tensor],
    extractor: Extractor,
) -> Tensor:
    """Squared distances of the images at both ends of the steps of these indices, float64 [n]."""
    dim, seed = generator.generator.latent_dim, generator.seed
    ends = draw_latents(seed, "latent/path", indices, dim, generator.truncation)
    labels = generator.labels(indices)
    before, after = (
        make(latents, labels) for latents in metric.step(generator.latents(indices), ends, seed, indices.tolist())
    )
    return squared_distances(extractor, before, after)


def squared_distances(extractor: Extractor, images: Tensor, others: Tensor) -> Tensor:
    """Squared distances of the features of pairs of images [n, c, h, w], pixels in [0, 255], float64 [n].

    Always of PAIRS at a time, the last repeated: see `Extractor.measure`.
    """
    found = []
    for first in range(0, len(images), PAIRS):
        places = torch.arange(first, first + PAIRS).clamp(max=len(images) - 1)
        one, other = (_features(extractor, some[places]) for some in (images, others))
        found.append((one - other).square().sum(dim=1))
    return torch.cat(found)[: len(images)]


def _features(extractor: Extractor, images: Tensor) -> Tensor:
    extractor.eval()
    pixels = images.to(extractor.device).expand(-1, extractor.channels, -1, -1)
    return extractor(pixels)[0].double()


def check_takes_unrounded(extractor: Extractor, resolution: int) -> None:
    """Refuses an extractor of the user's that makes other features of the same pixels as floats: it rounds or scales.

    Raises:
        ValueError: naming it.
    """
    pixels = probe(extractor.channels, resolution)
    try:
        with exact_arithmetic(extractor.device):
            whole, floats = (_features(extractor, images) for images in (pixels, pixels.float()))
            same = torch.allclose(whole, floats, rtol=1e-4, atol=1e-6, equal_nan=True)
    except Exception as error:  # of the user's code, whatever it is
        raise ValueError(f"extractor {extractor.name!r} cannot measure paths: {error}") from error
    if not same:
        raise ValueError(
            f"extractor {extractor.name!r} cannot measure paths: it makes other features of float pixels in [0, 255] "
            "than of the same as uint8"
        )


def _score(
    name: str, distances: Tensor, extractor: Extractor, provenance: Provenance, conventions: Conventions
) -> Score:
    if not distances.isfinite().all():
        bad = int((~distances.isfinite()).sum())
        raise ValueError(
            f"{name}: {bad} of {len(distances)} distances by {extractor.name!r} are no finite numbers: the generator's "
            "images or the extractor's features are none"
        )
    num = len(distances)
    settings = f"{PATH_METRICS[name].settings}; squared distance of the extractor's features"
    protocol = Protocol.of(extractor, None, num, None, provenance, settings=settings, conventions=conventions)
    return Score(
        metric=score_name(name, num, full_reference=False),
        value=path_length(distances),
        std=None,
        num_fake=num,
        num_real=None,
        kimg=provenance.kimg,
        truncation=provenance.truncation,
        protocol=replace(protocol, quantisation="none"),
    )
