"""Statistics of real images that another library has measured: `mu` and `sigma` in an .npz file."""

from __future__ import annotations

import hashlib
import io
import zipfile

import numpy as np
import torch
from numpy.typing import NDArray

from bigtrain.evaluation.reference import Reference
from bigtrain.evaluation.statistics import FeatureStatistics
from bigtrain.sampling.outputs import place_of

PICKLES = (".pkl", ".pickle", ".pt", ".pth")


def is_precomputed(url: str) -> bool:
    """Whether a reference is a file of statistics (or one that cannot be read as such), and not shards."""
    return url.endswith((".npz", *PICKLES))


class PrecomputedReference(Reference):
    """Of images whose number the file does not tell."""

    @property
    def num_real(self) -> None:
        return None


def load_precomputed(url: str) -> PrecomputedReference:
    """The statistics of an .npz file as pytorch-fid, clean-fid and guided-diffusion write it.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, holds something else, or is a pickle.
    """
    if url.endswith(PICKLES):
        raise ValueError(
            f"--reference (={url!r}) is a pickle, which could execute anything; give shards, or mu and sigma in an .npz"
        )
    storage, name = place_of(url)
    content = storage.read(name)
    mean, covariance = _arrays(content, url)
    dim = len(mean)
    # As if of d + 1 images, the fewest that have a covariance of full rank: the file does not tell how many they were.
    features = FeatureStatistics(dim, torch.from_numpy(mean))
    features.count += dim + 1
    features.outer += torch.from_numpy(covariance) * dim
    source = f"{name} of SHA-256 {hashlib.sha256(content).hexdigest()[:12]}"
    return PrecomputedReference(features, torch.zeros(0, dtype=torch.int64), source, full=False)


def _arrays(content: bytes, url: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean [d] and covariance [d, d]."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            mean, covariance = (np.asarray(file[name], dtype=np.float64) for name in ("mu", "sigma"))
    except KeyError as error:
        raise ValueError(f"--reference (={url!r}) must hold the arrays mu and sigma: {error.args[0]}") from error
    except (ValueError, TypeError, OSError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(f"--reference (={url!r}) is damaged, or no .npz of plain arrays: {error}") from error
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)) or len(mean) == 0:
        raise ValueError(
            f"--reference (={url!r}): mu of shape {list(mean.shape)} and sigma of {list(covariance.shape)} must be "
            "[d] and [d, d]"
        )
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise ValueError(f"--reference (={url!r}): mu or sigma has numbers that are not finite (NaN or infinite)")
    symmetric = np.allclose(covariance, covariance.T, rtol=1e-5, atol=1e-6 * np.abs(covariance).max(initial=0))
    if not (symmetric and (covariance.diagonal() >= 0).all()):
        raise ValueError(
            f"--reference (={url!r}): sigma is no covariance: it must be symmetric, and its diagonal not negative"
        )
    return mean, covariance
