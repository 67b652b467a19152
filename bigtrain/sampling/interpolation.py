"""What lies between samples: sheets of the ways from one to the other, and walks that end where they began."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from bigtrain.sampling.generate import Sampler
from bigtrain.sampling.paths import Path, between, linear, loop
from bigtrain.sampling.sheets import Sheet

#: What changes on the way: the latent, the class, or both from sample to sample.
Between = Literal["latents", "classes", "both"]


class Inputs(NamedTuple):
    """Latents, and what the generator sees of the classes beside them."""

    latents: Tensor  # float32 [n, latent_dim]
    labels: Tensor  # int64 [n] where the class stays; vectors of classes, float32 [n, dim], where it changes


def ways(sampler: Sampler, indices: Sequence[int], what: Between, labels: Sequence[int]) -> tuple[Inputs, Inputs]:
    """The starts and the ends of ways, a row each.

    Args:
        indices: of samples. Between classes each has a row, otherwise each but the last, to the next one.
        what: changes; without the class, a row has that of the sample where it starts.
        labels: the two classes that `classes` goes between.

    Raises:
        ValueError: if there are too few samples, not two classes, or the generator has no vectors of its classes.
    """
    latents = sampler.latents(indices)
    if what == "classes":
        vectors = sampler.vectors(torch.tensor(labels))
        if len(labels) != 2:
            raise ValueError(f"labels (={list(labels)}) must be two, to go from one to the other")
        starts, ends = (vector.expand(len(indices), -1) for vector in vectors)
        return Inputs(latents, starts), Inputs(latents, ends)
    _check_several(indices)
    theirs = sampler.labels(indices)
    beside = sampler.vectors(theirs) if what == "both" else theirs
    return Inputs(latents[:-1], beside[:-1]), Inputs(latents[1:], beside[1:])


def interpolation_sheet(sampler: Sampler, starts: Inputs, ends: Inputs, steps: int, path: Path) -> Sheet:
    """A row for each start, whose `steps` columns lead to its end; both are shown.

    Args:
        path: of the latents. The vectors of classes go straight; labels stay those of the starts.

    Raises:
        ValueError: if `steps` is below 2.
    """
    latents = between(starts.latents, ends.latents, steps, path).flatten(0, 1)
    if starts.labels.is_floating_point():
        labels = between(starts.labels, ends.labels, steps, linear).flatten(0, 1)
    else:
        labels = starts.labels.repeat_interleave(steps)
    return Sheet(sampler.make(latents, labels), steps)


def corners(sampler: Sampler, indices: Sequence[int], what: Between, labels: Sequence[int]) -> Inputs:
    """The corners of a walk.

    Args:
        indices: of samples: the corners; between classes only the first counts.
        what: changes; without the class, the walk has that of the first sample.
        labels: the classes that are the corners of `classes`.

    Raises:
        ValueError: if there are fewer than two corners, or the generator has no vectors of its classes.
    """
    if what == "classes":
        vectors = sampler.vectors(torch.tensor(labels))
        if len(labels) < 2:
            raise ValueError(f"labels (={list(labels)}) must be two at least, to go from one to the other")
        return Inputs(sampler.latents(indices[:1]).expand(len(labels), -1), vectors)
    _check_several(indices)
    theirs = sampler.labels(indices)
    return Inputs(sampler.latents(indices), sampler.vectors(theirs) if what == "both" else theirs[:1])


def walk(sampler: Sampler, turns: Inputs, steps: int, path: Path) -> Tensor:
    """The frames of a closed walk, uint8 [corners · steps, c, h, w]: after the last one the first comes again.

    Args:
        turns: its corners, as `corners` gives them.
        steps: from one corner to the next.
        path: of the latents. The vectors of classes go straight.

    Raises:
        ValueError: if `steps` is below 1.
    """
    latents = loop(turns.latents, steps, path)
    moving = turns.labels.is_floating_point()
    labels = loop(turns.labels, steps, linear) if moving else turns.labels[:1].repeat(len(latents))
    return sampler.make(latents, labels)


def _check_several(indices: Sequence[int]) -> None:
    if len(indices) < 2:
        raise ValueError(f"indices (={list(indices)}) must be two at least, to go from one sample to the other")
