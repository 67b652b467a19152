"""What holds at `images_seen`: phase, alpha, resolution, batch size and learning rate. Pure functions, no state."""

from __future__ import annotations

import bisect
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from bigtrain.clock import images

PhaseKind = Literal["transition", "stabilize"]


@dataclass(frozen=True)
class Phase:
    """A stretch of training with one resolution and batch size: images [start, end) of whole steps."""

    resolution: int
    kind: PhaseKind
    batch_size: int
    d_steps_per_g_step: int
    start: int
    end: int

    @property
    def images_per_step(self) -> int:
        return self.batch_size * self.d_steps_per_g_step


@dataclass(frozen=True)
class Moment:
    """The phase at `images_seen`, and alpha: the weight of the new branch while fading in, 0 to 1."""

    images_seen: int
    phase: Phase
    alpha: float

    @property
    def resolution(self) -> int:
        return self.phase.resolution

    @property
    def first_of_resolution(self) -> bool:
        """Whether the step that begins now is the first at its resolution."""
        return self.images_seen == self.phase.start and (self.phase.kind == "transition" or self.phase.start == 0)


class Schedule:
    """The course of a whole training as a list of phases without gaps, the first of which starts at image 0."""

    def __init__(self, phases: list[Phase], total_kimg: float) -> None:
        self.phases = [phase for phase in phases if phase.start < images(total_kimg)]
        self._starts = [phase.start for phase in self.phases]
        last = self.phases[-1]
        #: Images at which training ends: `total_kimg`, rounded up to a whole step.
        self.total_images = _whole_steps(last.start, images(total_kimg) - last.start, last.images_per_step)

    @property
    def resolutions(self) -> list[int]:
        return sorted({phase.resolution for phase in self.phases})

    def at(self, images_seen: int) -> Moment:
        """The moment at `images_seen`; past the end the last phase goes on."""
        phase = self.phases[max(0, bisect.bisect_right(self._starts, images_seen) - 1)]
        alpha = 1.0
        if phase.kind == "transition":
            alpha = min(1.0, (images_seen - phase.start) / (phase.end - phase.start))
        return Moment(images_seen, phase, alpha)

    def steps(self, images_seen: int) -> Iterator[Moment]:
        """The moments at which the steps from `images_seen` to the end begin."""
        while images_seen < self.total_images:
            moment = self.at(images_seen)
            yield moment
            images_seen += moment.phase.images_per_step


def _whole_steps(start: int, length: int, images_per_step: int) -> int:
    """The end of a phase: `length` images after `start`, rounded up to a whole step."""
    return start + math.ceil(length / images_per_step) * images_per_step


class Constant(Schedule):
    """One resolution and batch size from the first image to the last.

    Args:
        resolution: of the images, in pixels.
        batch_size: global, for one discriminator update.
        total_kimg: length of the training in thousands of real images.
        d_steps_per_g_step: discriminator updates for each generator update.
    """

    def __init__(self, resolution: int, batch_size: int, total_kimg: float, d_steps_per_g_step: int = 1) -> None:
        _check_positive(
            resolution=resolution, batch_size=batch_size, total_kimg=total_kimg, d_steps_per_g_step=d_steps_per_g_step
        )
        end = _whole_steps(0, images(total_kimg), batch_size * d_steps_per_g_step)
        super().__init__([Phase(resolution, "stabilize", batch_size, d_steps_per_g_step, 0, end)], total_kimg)


class Progressive(Schedule):
    """Progressive growing (Karras et al., arXiv 1710.10196, section 2): each resolution fades in, then stabilizes.

    The first resolution only stabilizes, and the last one stabilizes until `total_kimg`. A `total_kimg` that is too
    short for all resolutions ends the training on the way, at the resolution and alpha of that moment.

    Args:
        resolutions: powers of two, each twice the one before.
        batch_size: global, for one discriminator update; one number, or one for each resolution by name.
        total_kimg: length of the training in thousands of real images.
        transition_kimg: length of each fade-in.
        stabilize_kimg: length of each phase at a full resolution, the last one excepted.
        d_steps_per_g_step: discriminator updates for each generator update.
    """

    def __init__(
        self,
        resolutions: list[int],
        batch_size: int | dict[int, int],
        total_kimg: float,
        transition_kimg: float,
        stabilize_kimg: float,
        d_steps_per_g_step: int = 1,
    ) -> None:
        _check_resolutions(resolutions)
        _check_positive(
            total_kimg=total_kimg,
            transition_kimg=transition_kimg,
            stabilize_kimg=stabilize_kimg,
            d_steps_per_g_step=d_steps_per_g_step,
        )
        sizes = batch_size if isinstance(batch_size, dict) else dict.fromkeys(resolutions, batch_size)
        missing = [resolution for resolution in resolutions if sizes.get(resolution, 0) < 1]
        if missing:
            raise ValueError(f"batch_size (={batch_size}) must be at least 1 at every resolution; missing: {missing}")
        phases: list[Phase] = []
        start = 0
        for resolution in resolutions:
            for kind, kimg in (("transition", transition_kimg), ("stabilize", stabilize_kimg)):
                if kind == "transition" and resolution == resolutions[0]:
                    continue
                batch = sizes[resolution]
                end = _whole_steps(start, images(kimg), batch * d_steps_per_g_step)
                phases.append(Phase(resolution, kind, batch, d_steps_per_g_step, start, end))  # type: ignore[arg-type]
                start = end
        super().__init__(phases, total_kimg)


def _check_positive(**values: float) -> None:
    for name, value in values.items():
        if value <= 0:
            raise ValueError(f"{name} (={value}) must be greater than 0")


def _check_resolutions(resolutions: list[int]) -> None:
    if not resolutions or resolutions[0] < 4 or resolutions[0] & (resolutions[0] - 1):
        raise ValueError(f"resolutions (={resolutions}) must start with a power of two of at least 4")
    if any(high != 2 * low for low, high in pairwise(resolutions)):
        raise ValueError(f"resolutions (={resolutions}) must each be twice the one before, such as [4, 8, 16]")


class LearningRate(ABC):
    """A factor of an optimizer's own learning rate at a moment of training."""

    @abstractmethod
    def factor(self, moment: Moment, total_images: int) -> float:
        """What to multiply the optimizer's learning rate with at that moment."""


class ConstantRate(LearningRate):
    """The optimizer's own learning rate throughout."""

    def factor(self, moment: Moment, total_images: int) -> float:
        return 1.0


class LinearDecay(LearningRate):
    """Constant until `from_kimg`, then linearly to `final` (a factor) at the end of training."""

    def __init__(self, from_kimg: float = 0.0, final: float = 0.0) -> None:
        if from_kimg < 0 or not 0 <= final <= 1:
            raise ValueError(f"from_kimg (={from_kimg}) must not be negative, final (={final}) must be in [0, 1]")
        self.from_images, self.final = images(from_kimg), final

    def factor(self, moment: Moment, total_images: int) -> float:
        span = max(1, total_images - self.from_images)
        done = min(1.0, max(0, moment.images_seen - self.from_images) / span)
        return 1.0 + (self.final - 1.0) * done


class ByResolution(LearningRate):
    """A factor for each resolution by name (1 where none is given), as in the 8-GPU preset of Progressive GAN."""

    def __init__(self, factors: dict[int, float]) -> None:
        if any(factor <= 0 for factor in factors.values()):
            raise ValueError(f"factors (={factors}) must be greater than 0")
        self.factors = factors

    def factor(self, moment: Moment, total_images: int) -> float:
        return self.factors.get(moment.resolution, 1.0)
