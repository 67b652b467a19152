"""The one clock of training: the number of real images that the discriminator has been trained on."""

from __future__ import annotations

from dataclasses import dataclass


def images(kimg: float) -> int:
    """Images in `kimg` thousand images, rounded to a whole image."""
    return round(kimg * 1000)


@dataclass
class Clock:
    """`images_seen` real images over all ranks. Everything else about time is computed from it."""

    images_seen: int = 0

    @property
    def kimg(self) -> float:
        return self.images_seen / 1000

    def advance(self, count: int) -> None:
        assert count > 0
        self.images_seen += count


@dataclass(frozen=True)
class Cadence:
    """Something that happens every `kimg` thousand images; never when `kimg` is 0."""

    kimg: float

    def __post_init__(self) -> None:
        if self.kimg < 0 or (self.kimg > 0 and images(self.kimg) == 0):
            raise ValueError(f"a cadence of {self.kimg} kimg must be 0 (never) or at least 0.001")

    def due(self, before: int, after: int) -> bool:
        """Whether a multiple of the cadence lies in (before, after], both in images."""
        every = images(self.kimg)
        return every > 0 and before // every < after // every


def moment_name(images_seen: int) -> str:
    """A file name's part for a moment, in kimg to the image, that sorts as time does: `000120.064`."""
    return f"{images_seen // 1000:06d}.{images_seen % 1000:03d}"
