"""From what distributions the weights are drawn at first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

from bigtrain.networks.layers import LinearFromZero, SpectralNorm

Init = Literal["orthogonal", "normal", "xavier"]


def _normal(weight: Tensor) -> Tensor:
    return nn.init.normal_(weight, std=0.02)


_DRAW: dict[str, Callable[[Tensor], Tensor]] = {
    "orthogonal": nn.init.orthogonal_,
    "normal": _normal,
    "xavier": nn.init.xavier_uniform_,
}


def initialise(network: nn.Module, init: Init) -> None:
    """Draws the weights of every convolution, dense layer and table under spectral norm; their biases start from 0.

    Raises:
        ValueError: if there is no initialiser of that name.
    """
    if init not in _DRAW:
        raise ValueError(f"init (={init!r}) must be one of {sorted(_DRAW)}")
    for module in network.modules():
        if isinstance(module, (SpectralNorm, nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            _DRAW[init](module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def initialise_embedding(embedding: nn.Embedding | LinearFromZero, init: Init) -> None:
    """The same for a table of vectors without spectral norm, which `xavier` draws from N(0, 0.02²) as `normal` does."""
    _DRAW["orthogonal" if init == "orthogonal" else "normal"](embedding.weight)
