"""Layers that the architectures share."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: From a tensor of this process to those of all that share a batch, stacked, [processes, *shape]; differentiable. A
#: layer that looks at the whole batch has it as its attribute `gather`; None: the batch is all here. Beside it the
#: attribute `rank` is set: which of the stacked is this process's own.
Gather = Callable[[Tensor], Tensor]


def _moments(x: Tensor, dims: tuple[int, ...], gather: Gather) -> tuple[Tensor, Tensor, int]:
    """Mean and biased variance over these dimensions and all processes, and how many numbers they are of.

    Sums of squares are taken around the means and combined as Chan et al. do ("Updating formulae", 1979).
    """
    mean = x.mean(dim=dims)
    squares = (x - x.mean(dim=dims, keepdim=True)).square().sum(dim=dims)
    means, sums = gather(torch.stack((mean, squares))).unbind(1)  # [processes, …] each
    count = x.numel() // mean.numel()
    total = means.mean(dim=0)
    variance = (sums.sum(dim=0) + count * (means - total).square().sum(dim=0)) / (count * len(means))
    return total, variance, count * len(means)


# ---------------------------------------------------------------- Progressive GAN (Karras et al., arXiv 1710.10196)


class EqualizedLinear(nn.Module):
    """A dense layer with equalized learning rate (section 4.1): weights ~ N(0, 1), scaled by gain/√fan_in when used.

    The bias starts at 0 and is not scaled.
    """

    def __init__(self, in_features: int, out_features: int, gain: float = math.sqrt(2), bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None
        self.scale = gain / math.sqrt(in_features)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.scale, self.bias)


class EqualizedConv2d(nn.Module):
    """A convolution with equalized learning rate that keeps the resolution; `padding` can be overridden."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, gain: float = math.sqrt(2), padding: int | None = None
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.scale = gain / math.sqrt(in_channels * kernel**2)
        self.padding = kernel // 2 if padding is None else padding

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.scale, self.bias, padding=self.padding)


def pixel_norm(x: Tensor, eps: float = 1e-8) -> Tensor:
    """Each pixel's feature vector (dimension 1) scaled to unit mean square (section 4.2)."""
    x = _wide(x)
    return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + eps)


def _wide(x: Tensor) -> Tensor:
    """In float32 rather than float16, which has not the range for squares and for an ε of 1e-8."""
    return x.float() if x.dtype == torch.float16 else x


def minibatch_stddev(x: Tensor, group: int | None = 4, gather: Gather | None = None, eps: float = 1e-8) -> Tensor:
    """Appends one feature map: the mean standard deviation over a group of images (section 3), [n, c + 1, h, w].

    The variance is biased; groups are strided (image i is in group i mod n/group), as in the original code.

    Args:
        group: images in a group; None for the whole batch. A smaller batch is one group.
        gather: for the whole batch, if it is spread over processes. (A strided group lies in one process, where image i
            of the batch is in process i mod the number of processes, and the group divides their parts.)

    Raises:
        ValueError: if the batch is not a multiple of the group.
    """
    x = _wide(x)
    n, c, h, w = x.shape
    if group is None and gather is not None:
        _, variance, _ = _moments(x, (0,), gather)  # [c, h, w]
        return torch.cat((x, (variance + eps).sqrt().mean().expand(n, 1, h, w)), dim=1)
    group = n if group is None else min(group, n)
    if n % group:
        raise ValueError(f"the batch on a device (={n}) must be a multiple of stddev_group (={group})")
    grouped = x.reshape(group, n // group, c, h, w)  # [group, m, c, h, w]
    variance = (grouped - grouped.mean(dim=0)).square().mean(dim=0)  # Tensor.var(dim=0) is 30 times slower on CPU
    deviation = (variance + eps).sqrt().mean(dim=(1, 2, 3))  # [m]
    return torch.cat((x, deviation.repeat(group).reshape(n, 1, 1, 1).expand(n, 1, h, w)), dim=1)


def contiguous_stddev(
    x: Tensor, group: int | None = 4, gather: Gather | None = None, rank: int = 0, eps: float = 1e-8
) -> Tensor:
    """`minibatch_stddev` as in facebookresearch/pytorch_GAN_zoo: groups are neighbours, the variance is unbiased.

    A batch that is not a multiple of the group is one group; a group of a single image has the deviation 0.

    Args:
        group: images in a group; None for the whole batch.
        gather: for the whole batch, if it is spread over processes, image i to process i mod their number: neighbours
            are then in different processes, and each of them looks at all.
        rank: of this process among those.
    """
    x = _wide(x)
    n, c, h, w = x.shape
    whole = x if gather is None else gather(x).transpose(0, 1).flatten(0, 1)  # [batch, c, h, w]
    batch = len(whole)
    group = batch if group is None or batch % min(group, batch) else min(group, batch)
    if group == 1:
        return torch.cat((x, torch.zeros_like(x[:, :1])), dim=1)
    grouped = whole.reshape(batch // group, group, c, h, w)  # [m, group, c, h, w]
    variance = (grouped - grouped.mean(dim=1, keepdim=True)).square().sum(dim=1) / (group - 1)
    deviation = (variance + eps).sqrt().mean(dim=(1, 2, 3))  # [m]
    mine = deviation.repeat_interleave(group)[rank :: batch // n]  # [n]
    return torch.cat((x, mine.reshape(n, 1, 1, 1).expand(n, 1, h, w)), dim=1)


# ---------------------------------------------------------------- Spectral norm (Miyato et al., arXiv 1802.05957)


class SpectralNorm(nn.Module):
    """A layer whose weight is divided by an estimate of its largest singular value.

    Each use estimates it by one power iteration from the stored vector (algorithm 1). In training mode the vector that
    comes out is kept; in evaluation mode the stored one stands still, so that an averaged vector (EMA of buffers) is
    good enough. A training in which a turn has several passes sets `advances` to False and calls `advance` once a turn
    instead: then all passes of the turn divide by the same number, and none of them changes anything.
    """

    u: Tensor
    #: Whether each pass in training mode moves the vector on.
    advances: bool = True

    def __init__(self, weight: Tensor, bias: Tensor | None, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = None if bias is None else nn.Parameter(bias)
        self.register_buffer("u", F.normalize(torch.randn(len(weight)), dim=0, eps=eps))
        self.eps = eps

    def advance(self, iterations: int = 1) -> None:
        """Moves the stored vector on by so many power iterations."""
        with self._whole_precision(), torch.no_grad():
            for _ in range(iterations):
                self.u.copy_(self._iterated()[0])

    def normalized_weight(self) -> Tensor:
        """The weight over its estimated norm, in the weight's own precision also under autocast."""
        with self._whole_precision():
            with torch.no_grad():
                u, v = self._iterated()
                if self.training and self.advances:
                    self.u.copy_(u)
            return self.weight / torch.dot(u, self.weight.flatten(1) @ v)

    def _iterated(self) -> tuple[Tensor, Tensor]:
        """The left and right singular vectors after one more iteration."""
        matrix = self.weight.flatten(1)
        v = F.normalize(matrix.T @ self.u, dim=0, eps=self.eps)
        return F.normalize(matrix @ v, dim=0, eps=self.eps), v

    def _whole_precision(self) -> AbstractContextManager[object]:
        device = self.weight.device.type
        return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()


def drive_spectral_norms(network: nn.Module) -> list[SpectralNorm]:
    """The layers with spectral norm, whose vectors only their own `advance` moves from now on."""
    found = [module for module in network.modules() if isinstance(module, SpectralNorm)]
    for layer in found:
        layer.advances = False
    return found


class SpectralConv2d(SpectralNorm):
    """A convolution with spectral norm that keeps the resolution."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, bias: bool = True, eps: float = 1e-6) -> None:
        weight = torch.empty(out_channels, in_channels, kernel, kernel)
        super().__init__(weight, torch.zeros(out_channels) if bias else None, eps)
        self.padding = kernel // 2

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.normalized_weight(), self.bias, padding=self.padding)


class SpectralLinear(SpectralNorm):
    """A dense layer with spectral norm."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True, eps: float = 1e-6) -> None:
        super().__init__(torch.empty(out_features, in_features), torch.zeros(out_features) if bias else None, eps)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.normalized_weight(), self.bias)


class SpectralEmbedding(SpectralNorm):
    """A table of vectors with spectral norm: label [n] → [n, features]."""

    def __init__(self, num_classes: int, features: int, eps: float = 1e-6) -> None:
        super().__init__(torch.empty(num_classes, features), None, eps)

    def forward(self, label: Tensor) -> Tensor:
        return F.embedding(label, self.normalized_weight())


# ---------------------------------------------------------------- BigGAN (Brock et al., arXiv 1809.11096)


def _batch_norm(
    x: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    eps: float,
    gather: Gather | None,
    momentum: float = 0.1,
) -> Tensor:
    """Batch norm in training, without gain and bias; the batch may be spread over processes."""
    if gather is None:
        return F.batch_norm(x, running_mean, running_var, None, None, True, momentum, eps)
    wide = x.to(running_mean.dtype)
    mean, variance, count = _moments(wide, (0, 2, 3), gather)
    with torch.no_grad():
        running_mean.lerp_(mean, momentum)
        running_var.lerp_(variance * count / max(1, count - 1), momentum)
    normalized = (wide - mean[:, None, None]) * torch.rsqrt(variance + eps)[:, None, None]
    return normalized.to(x.dtype)


class LinearFromZero(nn.Module):
    """A linear map without bias that is 0 at first."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out_features, in_features))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight)


class ConditionalBatchNorm2d(nn.Module):
    """Batch norm whose gain (around 1) and bias are linear in a condition [n, condition_dim] (appendix B).

    Both maps are under spectral norm of ε `sn_eps`. If that is None they are not, and start from 0: with one-hot labels
    as conditions each class then has a gain and a bias of its own (after Dumoulin et al., arXiv 1610.07629).

    With `gain_added` the gain is added instead of multiplied: what BigGAN-PyTorch's synchronised batch norm does when
    it is not synchronised, on which the weights of such a run depend.
    """

    running_mean: Tensor
    running_var: Tensor
    gather: Gather | None = None

    def __init__(
        self,
        channels: int,
        condition_dim: int,
        eps: float = 1e-5,
        sn_eps: float | None = 1e-6,
        gain_added: bool = False,
    ) -> None:
        super().__init__()
        linear = LinearFromZero if sn_eps is None else partial(SpectralLinear, bias=False, eps=sn_eps)
        self.gain = linear(condition_dim, channels)
        self.bias = linear(condition_dim, channels)
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.eps, self.gain_added = eps, gain_added

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        if self.training:
            x = _batch_norm(x, self.running_mean, self.running_var, self.eps, self.gather)
        else:
            x = F.batch_norm(x, self.running_mean, self.running_var, eps=self.eps)
        gain = 1 + self.gain(condition)[:, :, None, None]
        scaled = x + gain if self.gain_added else x * gain
        return scaled + self.bias(condition)[:, :, None, None]


class BatchNorm2d(nn.BatchNorm2d):
    """Batch norm, over all processes that share a batch; a condition that it is handed it does not look at."""

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    gather: Gather | None = None

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        if self.gather is None or not self.training:
            return super().forward(x)
        self.num_batches_tracked.add_(1)
        x = _batch_norm(x, self.running_mean, self.running_var, self.eps, self.gather, self.momentum or 0.1)
        return x * self.weight[:, None, None] + self.bias[:, None, None]


class SelfAttention2d(nn.Module):
    """Self-attention over pixels (Zhang et al., arXiv 1805.08318), keys and values pooled 2 × 2, with a gate from 0.

    Its convolutions are under spectral norm of ε `sn_eps`, unless that is None.
    """

    def __init__(self, channels: int, sn_eps: float | None = 1e-6) -> None:
        super().__init__()
        conv = nn.Conv2d if sn_eps is None else partial(SpectralConv2d, eps=sn_eps)
        self.theta = conv(channels, channels // 8, 1, bias=False)
        self.phi = conv(channels, channels // 8, 1, bias=False)
        self.g = conv(channels, channels // 2, 1, bias=False)
        self.o = conv(channels // 2, channels, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(1))  # not a scalar: it can be sharded

    def forward(self, x: Tensor) -> Tensor:
        query = self.theta(x).flatten(2)  # [n, c/8, hw]
        key = F.max_pool2d(self.phi(x), 2).flatten(2)  # [n, c/8, hw/4]
        value = F.max_pool2d(self.g(x), 2).flatten(2)  # [n, c/2, hw/4]
        weights = torch.softmax(query.transpose(1, 2) @ key, dim=-1)  # [n, hw, hw/4]
        attended = (value @ weights.transpose(1, 2)).unflatten(2, x.shape[2:])  # [n, c/2, h, w]
        return x + self.gamma * self.o(attended)
