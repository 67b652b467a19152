"""How wide networks are at each resolution.

The tables are of BigGAN and BigGAN-deep, which are as wide as each other (Brock et al., arXiv 1809.11096, appendix B;
64² and 32² are of the authors' PyTorch code).
"""

from __future__ import annotations

from typing import TypeVar

Row = TypeVar("Row")

#: Multiples of `width` at each resolution from 4² upwards.
GENERATOR_WIDTHS = {
    32: (4, 4, 4, 4),
    64: (16, 16, 8, 4, 2),
    128: (16, 16, 8, 4, 2, 1),
    256: (16, 16, 8, 8, 4, 2, 1),
    512: (16, 16, 8, 8, 4, 2, 1, 1),
}
#: Multiples of `width` after each block of BigGAN (the first of them is BigGAN-deep's first convolution, which halves
#: nothing), and how many of the blocks halve the resolution.
DISCRIMINATOR_WIDTHS = {
    32: ((4, 4, 4, 4), 2),
    64: ((1, 2, 4, 8, 16), 4),
    128: ((1, 2, 4, 8, 16, 16), 5),
    256: ((1, 2, 4, 8, 8, 16, 16), 6),
    512: ((1, 1, 2, 4, 8, 8, 16, 16), 7),
}


def layout(table: dict[int, Row], resolution: int) -> Row:
    """The table's row of that resolution; an error if it has none."""
    if resolution not in table:
        raise ValueError(f"resolution (={resolution}) of this architecture must be one of {sorted(table)}")
    return table[resolution]
