"""DINOv2's vision transformer (arXiv 2304.07193): the names and numbers of its published weights, nothing else."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EPS = 1e-6


class DinoV2(nn.Module):
    """From normalised images, a multiple of the patch wide, to the class token behind the last norm, [n, width].

    Args:
        width: of a token, in heads of 64.
        depth: blocks.
        patch: pixels to a side.
        grid: patches to a side that the position embedding was trained for.
        gated: whether the blocks' MLPs are SwiGLUs, as ViT-g's are.
    """

    def __init__(self, width: int, depth: int, patch: int, grid: int, gated: bool = False) -> None:
        super().__init__()
        self.patch = patch
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + grid**2, width))
        self.mask_token = nn.Parameter(torch.zeros(1, width))  # of the training alone
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, kernel_size=patch, stride=patch)})
        self.blocks = nn.ModuleList(Block(width, gated) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=EPS)

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> DinoV2:
        """The network of published weights, its sizes read from them.

        Raises:
            KeyError, RuntimeError: if they are not its.
        """
        width, _, patch, _ = state["patch_embed.proj.weight"].shape
        depth = sum(name.startswith("blocks.") and name.endswith(".norm1.weight") for name in state)
        grid = round((state["pos_embed"].shape[1] - 1) ** 0.5)
        with torch.device("meta"):
            network = cls(width, depth, patch, grid, gated="blocks.0.mlp.w12.weight" in state)
        network.load_state_dict(state, assign=True)
        return network

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patch_embed["proj"](images)  # [n, width, h, w]
        tokens = torch.cat([self.cls_token.expand(len(images), -1, -1), patches.flatten(2).mT], dim=1)
        tokens = tokens + self.positions(patches.shape[2])  # [n, 1 + h·w, width]
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)[:, 0]

    def positions(self, side: int) -> Tensor:
        """The position embedding for `side` patches to a side, [1, 1 + side², width].

        Their code hands the interpolation a ratio of (side + 0.1) / grid, which moves the samples a little.
        """
        grid = round((self.pos_embed.shape[1] - 1) ** 0.5)
        if side == grid:
            return self.pos_embed
        square = self.pos_embed[:, 1:].mT.unflatten(2, (grid, grid))  # [1, width, grid, grid]
        ratio = (side + 0.1) / grid
        resized = F.interpolate(square, scale_factor=(ratio, ratio), mode="bicubic")
        return torch.cat([self.pos_embed[:, :1], resized.flatten(2).mT], dim=1)


class Block(nn.Module):
    """Attention and an MLP, each behind a norm and scaled by channel before it is added."""

    def __init__(self, width: int, gated: bool) -> None:
        super().__init__()
        self.heads = width // 64
        self.norm1, self.norm2 = (nn.LayerNorm(width, eps=EPS) for _ in range(2))
        self.attn = nn.ModuleDict({"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)})
        self.ls1, self.ls2 = (nn.ParameterDict({"gamma": torch.ones(width)}) for _ in range(2))
        self.mlp = GatedMlp(width) if gated else Mlp(width)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.ls1["gamma"] * self._attention(self.norm1(tokens))
        return tokens + self.ls2["gamma"] * self.mlp(self.norm2(tokens))

    def _attention(self, tokens: Tensor) -> Tensor:
        q, k, v = self.attn["qkv"](tokens).unflatten(2, (3, self.heads, 64)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v)  # [n, head, token, 64]
        return self.attn["proj"](mixed.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two dense layers, four times as wide between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(tokens)))


class GatedMlp(nn.Module):
    """SwiGLU (arXiv 2002.05202): two thirds as wide between the layers, in whole eights."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = (int(4 * width * 2 / 3) + 7) // 8 * 8
        self.w12, self.w3 = nn.Linear(width, 2 * hidden), nn.Linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        gate, value = self.w12(tokens).chunk(2, dim=-1)
        return self.w3(F.silu(gate) * value)
