"""Activations that are not kept for the backward pass, but computed again in it."""

from __future__ import annotations

from contextlib import nullcontext
from typing import cast

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def recomputed(block: nn.Module, *inputs: Tensor) -> Tensor:
    """What the block gives. Only its inputs are kept: backward computes what is between from the same state again."""
    return cast(
        Tensor, checkpoint(block, *inputs, use_reentrant=False, context_fn=lambda: (nullcontext(), _Before(block)))
    )


class _Before:
    """A block has the buffers inside that it has now; what is done to them is undone, as often as it is entered.

    Spectral norm starts from the same vectors as in the pass that is computed again, whatever passes came after it, and
    running statistics do not count a batch twice.
    """

    def __init__(self, block: nn.Module) -> None:
        self._places = [(module, name) for module in block.modules() for name, _ in module.named_buffers(recurse=False)]
        self._before = [module.get_buffer(name).detach().clone() for module, name in self._places]
        self._after: list[Tensor] = []

    def __enter__(self) -> None:
        self._after = [module.get_buffer(name) for module, name in self._places]
        self._put([tensor.clone() for tensor in self._before])

    def __exit__(self, *_: object) -> None:
        self._put(self._after)

    def _put(self, tensors: list[Tensor]) -> None:
        for (module, name), tensor in zip(self._places, tensors, strict=True):
            setattr(module, name, tensor)
