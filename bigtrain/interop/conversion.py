"""What a foreign file holds, as networks of ours."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Part:
    """One network: how it is made, and its weights."""

    network: dict[str, Any]  # class_path and init_args, as a snapshot's card has them
    state: dict[str, Tensor]  # as that network's state_dict names it


@dataclass(frozen=True)
class Conversion:
    """The networks of a foreign file.

    Args:
        generator: that is sampled: the averaged one, if the file has one.
        discriminator: if the file has one.
        resolution: at which the generator stands, if it grows,
        alpha: and how far its last block has faded in.
        notes: what the user should know, a line each: what differs from the source in training, what was left out.
    """

    generator: Part
    discriminator: Part | None
    resolution: int
    alpha: float = 1.0
    notes: list[str] = field(default_factory=list)
