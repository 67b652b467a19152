"""What a GPU can compute at most, by its name: figures of the makers' data sheets, dense, without sparsity."""

from __future__ import annotations

import re
from typing import NamedTuple


class Peak(NamedTuple):
    """10¹² floating-point operations a second, a multiplication and an addition being two.

    Args:
        half: of float16 or bfloat16 products that are summed in float32.
        tf32: of float32 products that are rounded to TF32.
        single: of float32 products.
    """

    half: float
    tf32: float
    single: float


#: What a device's name contains as words, more special ones first.
PEAKS = {
    "B200": Peak(2250, 1125, 75),
    "H200": Peak(989.4, 494.7, 66.9),
    "H100 PCIe": Peak(756, 378, 51.2),
    "H100 NVL": Peak(835, 417.5, 60),
    "H100": Peak(989.4, 494.7, 66.9),
    "A100": Peak(312, 156, 19.5),
    "L40S": Peak(362, 183, 91.6),
    "L4": Peak(121, 60, 30.3),
    "A10G": Peak(70, 35, 31.2),
    "A10": Peak(125, 62.5, 31.2),
    "RTX 4090": Peak(165.2, 82.6, 82.6),
    "RTX 3090": Peak(71.2, 35.6, 35.6),
    "T4": Peak(65, 8.1, 8.1),
    "V100": Peak(125, 15.7, 15.7),
}


def peak_flops(device: str, precision: str, tf32: bool) -> float | None:
    """Of one device, a second; None if it is not known, as of CPUs.

    Args:
        device: its name, such as `NVIDIA A100-SXM4-80GB`.
        precision: of the training, as in `Compute`.
        tf32: whether float32 products may be rounded to TF32.
    """
    words = f" {' '.join(re.split(r'[^A-Za-z0-9]+', device))} "
    for name, peak in PEAKS.items():
        if f" {name} " in words:
            kind = "half" if precision.endswith("mixed") else "tf32" if tf32 else "single"
            return None if precision == "64-true" else getattr(peak, kind) * 1e12
    return None
