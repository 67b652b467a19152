"""One pass of an extractor: features, logits and, where it has them, the spatial features of one of its layers."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from bigtrain.evaluation.extractors import Extractor


@runtime_checkable
class Spatial(Protocol):
    """What an extractor also has if sFID can be measured by it.

    Attributes:
        spatial_layer: whose output [n, c, h, w] of the pass is looked at,
        spatial_channels: the first so many channels of it,
        spatial_dim: which makes so many numbers, spatial_channels · h · w.
    """

    spatial_channels: int
    spatial_dim: int

    @property
    def spatial_layer(self) -> nn.Module: ...


class Measures(NamedTuple):
    """Of n images."""

    features: Tensor  # float32 [n, d]
    logits: Tensor  # float32 [n, k]
    spatial: Tensor | None  # float32 [n, s]


def measure(extractor: Extractor, images: Tensor, batch_size: int) -> Measures:
    """Features, logits and spatial features of uint8 images [n, c, h, w], in one pass padded to `batch_size`."""
    if not isinstance(extractor, Spatial):
        return Measures(*extractor.padded_features(images, batch_size), spatial=None)
    seen: list[Tensor] = []
    hook = extractor.spatial_layer.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    try:
        features, logits = extractor.padded_features(images, batch_size)
    finally:
        hook.remove()
    spatial = torch.cat(seen)[: len(images), : extractor.spatial_channels].flatten(1)
    return Measures(features, logits, spatial.float())
