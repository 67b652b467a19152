"""Metrics of the images themselves: how alike pairs of them look, and how alike their patches are to real ones."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from bigtrain.evaluation.metrics.neighbours import chosen
from bigtrain.randomness import normal, words

BETAS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of Wang et al. 2003, from the finest scale on
PATCH, PATCHES, DIRECTIONS = 7, 128, 512
SMALLEST = 16  # pixels of the coarsest level of the pyramid
Classes = list[float | None]


def ms_ssim_diversity(images: Tensor, labels: Tensor | None = None, pairs: int = 1000) -> tuple[float, Classes | None]:
    """Mean similarity (MS-SSIM) of pairs of images, within a class if there are any; 1 if all images are the same.

    Odena et al., arXiv 1610.09585, section 4.3. Small images have fewer than five scales; the weights of those that
    there are grow to the same sum.

    Args:
        images: uint8 [n, c, h, w], h and w at least 11.
        labels: int64 [n].
        pairs: at most; an image is in one of them only.

    Returns:
        the mean over pairs, and with labels that of each class (None for one without a pair).
    """
    order = torch.arange(len(images)) if labels is None else labels.cpu().argsort(stable=True)
    left, right = order[: len(order) // 2 * 2].reshape(-1, 2).T
    if labels is not None:
        alike = (labels[left] == labels[right]).cpu()
        left, right = left[alike], right[alike]
    some = np.unique(np.linspace(0, len(left) - 1, min(pairs, len(left))).astype(int))  # of all classes
    left, right = left[some], right[some]
    values = torch.cat([_ms_ssim(images[i], images[j]) for i, j in zip(left.split(50), right.split(50), strict=True)])
    if labels is None:
        return float(values.mean()), None
    of_pairs = labels[left].cpu()
    classes: Classes = [
        float(values[of_pairs == label].mean()) if (of_pairs == label).any() else None
        for label in range(int(labels.max()) + 1)
    ]
    return float(values.mean()), classes


def _ms_ssim(one: Tensor, two: Tensor) -> Tensor:
    """Of each pair, float64 [n]; a window of 11 pixels has to fit into the coarsest scale."""
    scales = 1
    while scales < len(BETAS) and min(one.shape[2:]) // 2**scales >= 11:
        scales += 1
    betas = tuple(beta * sum(BETAS) / sum(BETAS[:scales]) for beta in BETAS[:scales])
    return multiscale_structural_similarity_index_measure(
        one.double().cpu(), two.double().cpu(), reduction="none", data_range=255.0, betas=betas
    ).reshape(-1)


def sliced_wasserstein(real: Tensor, fake: Tensor, seed: int = 0) -> float:
    """1000 times the mean distance of patches along random lines, averaged over the levels of a Laplacian pyramid.

    Karras et al., arXiv 1710.10196, section 5: 128 patches of 7x7 pixels an image and level, each channel of them
    normalised to mean 0 and deviation 1, and 512 lines.

    Args:
        real, fake: uint8 [n, c, h, w], h and w at least 7; of the larger set as many as in the smaller are drawn.
        seed: of patches and lines.
    """
    size = min(len(real), len(fake))
    pyramids = [_pyramid(chosen(images, size, seed, "swd")) for images in (real, fake)]
    distances = []
    for level, (reals, fakes) in enumerate(zip(*pyramids, strict=True)):
        lines = torch.from_numpy(normal(seed, "swd.lines", np.arange(DIRECTIONS), reals.shape[1] * PATCH**2)).float()
        a, b = (_patches(images, seed, level) for images in (reals, fakes))
        along = [_sorted(a, some) - _sorted(b, some) for some in F.normalize(lines, dim=1).split(32)]
        distances.append(float(torch.cat([difference.abs().mean(dim=0) for difference in along]).double().mean()))
    return 1000 * float(np.mean(distances))


def _sorted(patches: Tensor, lines: Tensor) -> Tensor:
    return (patches @ lines.to(patches).T).sort(dim=0).values  # [patch, line]


def _patches(images: Tensor, seed: int, level: int) -> Tensor:
    """PATCHES of each image, [n · patches, c · 49]; those of image i are at the same places in any set."""
    n, channels, height, width = images.shape
    drawn = words(seed, f"swd.patches.{level}", np.arange(n), 2 * PATCHES).reshape(n, PATCHES, 2)
    corner = torch.from_numpy((drawn % np.array([height - PATCH + 1, width - PATCH + 1], np.uint64)).astype(np.int64))
    reach = torch.arange(PATCH)
    rows = (corner[:, :, 0, None] + reach)[:, :, :, None]  # [n, patch, 7, 1]
    columns = (corner[:, :, 1, None] + reach)[:, :, None, :]
    found = images[torch.arange(n)[:, None, None, None], :, rows, columns]  # [n, patch, 7, 7, c]
    flat = found.reshape(-1, PATCH * PATCH, channels)
    centred = flat - flat.mean(dim=(0, 1))
    return (centred / flat.std(dim=(0, 1), correction=0).clamp(min=1e-8)).flatten(1)


def _pyramid(images: Tensor) -> list[Tensor]:
    """Levels of differences from the finest on, and what is left at the coarsest, float32."""
    levels, current = [], images.float().cpu()
    while min(current.shape[2:]) >= 2 * SMALLEST:
        smaller = _blur(current)[:, :, ::2, ::2]
        spread = torch.zeros_like(current)
        spread[:, :, ::2, ::2] = 4 * smaller
        levels.append(current - _blur(spread))
        current = smaller
    return [*levels, current]


def _blur(images: Tensor) -> Tensor:
    """By the binomial window 1 4 6 4 1, each way."""
    line = torch.tensor([1.0, 4, 6, 4, 1]) / 16
    channels = images.shape[1]
    window = torch.outer(line, line).expand(channels, 1, 5, 5)
    return F.conv2d(F.pad(images, (2, 2, 2, 2), mode="reflect"), window, groups=channels)
