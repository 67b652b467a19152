"""The residual blocks of WGAN-GP, SNGAN, SAGAN and BigGAN: one shape, whose convolutions, norms and widths differ.

Gulrajani et al., arXiv 1704.00028; Miyato et al., arXiv 1802.05957; Zhang et al., arXiv 1805.08318; Brock et al., arXiv
1809.11096, appendix B.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from bigtrain.networks.layers import SelfAttention2d, SpectralConv2d, SpectralEmbedding, SpectralLinear

#: Of so many channels.
Norm = Callable[[int], nn.Module]


class Kind(NamedTuple):
    """The layers with weights, with spectral norm or without."""

    conv: Callable[[int, int, int], nn.Module]  # in_channels, out_channels, kernel; it keeps the resolution
    linear: Callable[[int, int], nn.Module]  # in_features, out_features
    embedding: Callable[[int, int], nn.Module]  # num_classes, features


def _conv2d(in_channels: int, out_channels: int, kernel: int) -> nn.Module:
    return nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2)


PLAIN = Kind(_conv2d, nn.Linear, nn.Embedding)


def kind_of(sn_eps: float | None) -> Kind:
    """Layers with spectral norm of that ε, or without it."""
    return PLAIN if sn_eps is None else spectral(sn_eps)


def spectral(eps: float) -> Kind:
    """Layers with spectral norm of that ε."""
    return Kind(*(partial(layer, eps=eps) for layer in (SpectralConv2d, SpectralLinear, SpectralEmbedding)))


class GeneratorBlock(nn.Module):
    """Norm, ReLU, upsample, convolution, norm, ReLU, convolution, beside an upsampled 1 × 1 shortcut."""

    def __init__(self, in_channels: int, out_channels: int, kind: Kind, norm: Norm) -> None:
        super().__init__()
        self.norm1 = norm(in_channels)
        self.conv1 = kind.conv(in_channels, out_channels, 3)
        self.norm2 = norm(out_channels)
        self.conv2 = kind.conv(out_channels, out_channels, 3)
        self.shortcut = kind.conv(in_channels, out_channels, 1)

    def forward(self, x: Tensor, *condition: Tensor) -> Tensor:
        """[n, in_channels, h, w] → [n, out_channels, 2h, 2w]; the norms see the condition, if there is one."""
        h = F.interpolate(F.relu(self.norm1(x, *condition)), scale_factor=2, mode="nearest")
        h = self.conv2(F.relu(self.norm2(self.conv1(h), *condition)))
        return h + F.interpolate(self.shortcut(x), scale_factor=2, mode="nearest")  # 1 × 1 first: it is the same


class DiscriminatorBlock(nn.Module):
    """Norm, ReLU, convolution, norm, ReLU, convolution, pooling, beside a shortcut.

    The first block ("optimized" in the code of SNGAN and WGAN-GP) sees images: it has neither ReLU nor norm before it.

    Args:
        in_channels: of the block,
        out_channels: and of what it gives.
        kind: of the convolutions.
        first: whether it sees images.
        down: whether it halves the resolution.
        thin: whether there are `in_channels` between the convolutions rather than `out_channels`. The first never is.
        norm: before each ReLU; none as in all but WGAN-GP.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kind: Kind,
        first: bool,
        down: bool,
        thin: bool = False,
        norm: Norm = nn.Identity,
    ) -> None:
        super().__init__()
        hidden = in_channels if thin and not first else out_channels
        self.norm1 = nn.Identity() if first else norm(in_channels)
        self.conv1 = kind.conv(in_channels, hidden, 3)
        self.norm2 = nn.Identity() if first else norm(hidden)
        self.conv2 = kind.conv(hidden, out_channels, 3)
        learned = down or in_channels != out_channels
        self.shortcut = kind.conv(in_channels, out_channels, 1) if learned else nn.Identity()
        self.first, self.down = first, down

    def forward(self, x: Tensor) -> Tensor:
        """[n, in_channels, h, w] → [n, out_channels, h/2, w/2], or h and w as they were without `down`."""
        h = x if self.first else F.relu(self.norm1(x))
        h = self.conv2(F.relu(self.norm2(self.conv1(h))))
        if self.down:  # pooling and the 1 × 1 shortcut commute
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        return h + self.shortcut(x)


def self_attention(at: list[int], channels: dict[int, int], sn_eps: float | None) -> nn.ModuleDict:
    """Self-attention by resolution.

    Args:
        at: resolutions.
        channels: at all resolutions where it may stand.
        sn_eps: ε of spectral norm; None: there is none.

    Raises:
        ValueError: if it may not stand there, or there are too few channels.
    """
    if set(at) - channels.keys():
        raise ValueError(f"attention (={at}) must name resolutions among {sorted(channels)}")
    narrow = [resolution for resolution in at if channels[resolution] < 8]
    if narrow:
        raise ValueError(f"attention (={at}) needs at least 8 channels, at {narrow} there are fewer: raise width")
    return nn.ModuleDict({str(resolution): SelfAttention2d(channels[resolution], sn_eps) for resolution in at})


def attention_after_blocks(after: list[int], channels: list[int], sn_eps: float | None) -> dict[str, SelfAttention2d]:
    """Self-attention by the block behind which it stands, where the resolution does not tell which one is meant.

    Args:
        after: numbers of blocks, the first is 1.
        channels: that each of the blocks gives.
        sn_eps: ε of spectral norm; None: there is none.

    Raises:
        ValueError: if there is no such block, or it gives too few channels.
    """
    wrong = [number for number in after if not 1 <= number <= len(channels) or channels[number - 1] < 8]
    if wrong:
        valid = [number for number, count in enumerate(channels, start=1) if count >= 8]
        raise ValueError(f"attention_after (={after}) must name blocks of at least 8 channels, among {valid}")
    return {f"after_{number}": SelfAttention2d(channels[number - 1], sn_eps) for number in after}
