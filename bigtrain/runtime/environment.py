"""What is installed: the part of a number's provenance that no configuration holds."""

from __future__ import annotations

import platform
from importlib import metadata

import bigtrain


def versions() -> dict[str, str]:
    """Versions of bigtrain, Python and what the numbers depend on."""
    packages = ("torch", "lightning", "numpy", "webdataset", "torchmetrics")
    return {
        "bigtrain": bigtrain.__version__,
        "python": platform.python_version(),
        **{package: metadata.version(package) for package in packages},
    }
