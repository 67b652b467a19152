"""Batch-norm statistics estimated anew for sampling, in place of the running averages that the training left behind.

Those are of other weights than the averaged ones, and of latents that were not truncated. So Brock et al. (arXiv
1809.11096, appendix C.1) run the generator on fresh batches, about a hundred, and take the mean of their statistics.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from bigtrain.networks.layers import ConditionalBatchNorm2d

#: Mean and unbiased variance by channel, of each batch norm.
Moments = dict[nn.Module, tuple[Tensor, Tensor]]
BATCH_NORMS: Final = (ConditionalBatchNorm2d, nn.BatchNorm1d, nn.BatchNorm2d)


@dataclass(frozen=True)
class StandingStats:
    """What statistics are estimated from.

    Args:
        passes: batches, of the sampler's size.
        class_counts: of the data; the batches' labels have these frequencies.
    """

    passes: int
    class_counts: Sequence[int]

    @classmethod
    def of(cls, passes: int | None, class_counts: Sequence[int]) -> StandingStats | None:
        """None, which is the generator's running averages, without passes."""
        return None if passes is None else cls(passes, class_counts)

    def check(self, generator: nn.Module) -> None:
        """Raises ValueError if there are no passes, or the generator has nothing to estimate."""
        if self.passes < 1:
            raise ValueError(f"standing_stats (={self.passes}) must be at least 1; leave it out for running averages")
        if not batch_norms(generator):
            raise ValueError(
                f"standing_stats (={self.passes}): {type(generator).__name__} has no batch norm, and so no statistics "
                "to estimate; leave it out"
            )


def batch_norms(network: nn.Module) -> list[nn.Module]:
    """The layers of a network that keep running averages of their inputs' moments."""
    norms = [module for module in network.modules() if isinstance(module, BATCH_NORMS)]
    return [norm for norm in norms if norm.running_mean is not None]


def estimate(network: nn.Module, passes: int, make: Callable[[int], object]) -> Moments:
    """The mean over all passes of the moments that each batch norm sees; the network stays as it is, to the bit.

    In a pass the batch norms alone are in training mode: each normalizes by its own batch, so that later ones see what
    they saw in training. What is averaged are the batches' unbiased variances, not squares around one mean of all: this
    is what running averages estimate, without their momentum and without their past.

    Args:
        network: in evaluation mode.
        passes: how many.
        make: runs the network on the batch of that number, from 0.
    """
    norms = batch_norms(network)
    means = {norm: _Mean() for norm in norms}
    with _kept(norms), contextlib.ExitStack() as hooks:
        for norm, mean in means.items():
            norm.training = True  # not what is in it, such as the spectral norm of its gain
            if hasattr(norm, "gather"):
                object.__setattr__(norm, "gather", None)  # whatever other processes do, this one estimates alone
            hooks.callback(norm.register_forward_pre_hook(mean).remove)
        with torch.no_grad():
            for number in range(passes):
                make(number)
    return {norm: mean.moments() for norm, mean in means.items() if mean.count}


@contextlib.contextmanager
def installed(moments: Moments) -> Iterator[None]:
    """Inside the block the batch norms use these moments as their running averages."""
    with _kept(moments):
        for norm, (mean, variance) in moments.items():
            for name, value in (("running_mean", mean), ("running_var", variance)):
                setattr(norm, name, value.to(norm.get_buffer(name)))
        yield


class _Mean:
    """The mean moments of the batches that a norm was given; a hook that is called before the norm is.

    The sums are in float64 on the host, where it does not matter in which order the batches come.
    """

    def __init__(self) -> None:
        self.count, self.sums = 0, torch.zeros((), dtype=torch.float64)

    def __call__(self, norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0]
        dims = [dim for dim in range(x.ndim) if dim != 1]  # all but the channels
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        variance, mean = torch.var_mean(wide, dim=dims, correction=1)
        self.count += 1
        self.sums = self.sums + torch.stack((mean, variance)).cpu().double()

    def moments(self) -> tuple[Tensor, Tensor]:
        mean, variance = self.sums / self.count
        return mean, variance


@contextlib.contextmanager
def _kept(norms: Iterable[nn.Module]) -> Iterator[None]:
    """Inside the block the norms have copies of their buffers, and all may change; then they are what they were."""
    kept = [
        (
            norm,
            dict(norm.named_buffers(recurse=False)),
            {name: getattr(norm, name) for name in ("training", "gather") if hasattr(norm, name)},
        )
        for norm in norms
    ]
    try:
        for norm, buffers, _ in kept:
            for name, buffer in buffers.items():
                setattr(norm, name, buffer.clone())
        yield
    finally:
        for norm, buffers, attributes in kept:
            for name, buffer in buffers.items():
                setattr(norm, name, buffer)
            for name, value in attributes.items():
                object.__setattr__(norm, name, value)
