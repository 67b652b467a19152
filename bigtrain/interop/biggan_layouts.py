"""Which of our networks a state dict of BigGAN-PyTorch is of: everything that names and shapes tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from bigtrain.interop.names import arguments_of, class_name, counted, needed
from bigtrain.networks.layouts import DISCRIMINATOR_WIDTHS, GENERATOR_WIDTHS


@dataclass(frozen=True)
class Layout:
    """One of their networks as one of ours.

    Args:
        network: class_path and init_args.
        attention: by its name in our network, the number of the block behind which it stands.
    """

    network: dict[str, Any]
    attention: dict[str, int]

    @property
    def deep(self) -> bool:
        return "Deep" in self.network["class_path"]

    @property
    def depth(self) -> int:
        """Blocks at each resolution."""
        return int(self.network["init_args"].get("depth", 1))

    @property
    def one_hot(self) -> bool:
        """Whether batch norms see the classes themselves."""
        return self.network["init_args"].get("shared_dim") == 0


def generator_layout(state: Mapping[str, Tensor], what: str) -> Layout:
    """Of a generator, but for what names and shapes do not tell: ε, and what synchronised batch norm does.

    Raises:
        ValueError: if it is not one of `BigGAN.py` or `BigGANdeep.py`.
    """
    if "embed.weight" in state and "output_layer.2.weight" not in state:
        raise ValueError(f"{what} is a discriminator: give the folder that also holds its generator, or G.pth alone")
    count, deep = counted(state, r"blocks\.(\d+)\."), _is_deep(state)
    last = "conv4" if deep else "conv2"
    first = needed(state, "blocks.0.0.conv1.weight", what, 4).shape[1]
    channels = [first, *(needed(state, f"blocks.{i}.0.{last}.weight", what, 4).shape[0] for i in range(count))]
    resolution, width, depth = _generator_size(channels, deep, what)
    rows, latent = needed(state, "linear.weight", what, 2).shape
    if rows != 16 * channels[0]:
        raise ValueError(f"{what}: linear.weight has {rows} rows; only 16 (bottom_width 4) x {channels[0]} can be read")
    condition = needed(state, "blocks.0.0.bn1.gain.weight", what, 2)
    shared = needed(state, "shared.weight", what, 2).shape if "shared.weight" in state else None
    arguments: dict[str, Any] = {
        "resolution": resolution,
        "image_channels": needed(state, "output_layer.2.weight", what, 4).shape[0],
        "num_classes": shared[0] if shared else condition.shape[0],
        "shared_dim": shared[1] if shared else 0,
        "width": width,
    }
    blocks = {4 << (i // depth + 1): i for i in range(count) if _has(state, f"blocks.{i}.1.")}
    arguments["attention"] = list(blocks)
    if deep:
        if shared is None:
            raise ValueError(f"{what}: BigGANdeep.py runs with G_shared and hier only, and this has no shared.weight")
        arguments |= {"latent_dim": latent - shared[1], "depth": depth}
    else:
        hierarchical = shared is not None and condition.shape[1] > shared[1]
        arguments |= {"latent_dim": latent * (count + 1) if hierarchical else latent, "hierarchical": hierarchical}
    path = "BigGANDeepGenerator" if deep else "BigGANGenerator"
    return layout_of({"class_path": path, "init_args": arguments})


def discriminator_layout(state: Mapping[str, Tensor], what: str) -> Layout:
    """The same of a discriminator.

    Raises:
        ValueError: if it is not one of `BigGAN.py` or `BigGANdeep.py`, or thin.
    """
    deep, stages = _is_deep(state), counted(state, r"blocks\.(\d+)\.")
    depth = counted(state, r"blocks\.0\.(\d+)\.conv1") if deep else 1
    blocks = [f"blocks.{i}.{j}." for i in range(stages) for j in range(depth)]
    last = "conv4.weight" if deep else "conv2.weight"
    given = [needed(state, name + last, what, 4).shape[0] for name in blocks]
    hidden = [needed(state, name + "conv1.weight", what, 4).shape[0] for name in blocks]
    if not deep and hidden != given:
        raise ValueError(
            f"{what} is thin (D_thin): its blocks have {hidden} channels inside, not {given}; take G alone"
        )
    channels = [needed(state, "input_conv.weight", what, 4).shape[0], *given[::depth]] if deep else given
    resolution, width = _discriminator_size(channels, what)
    attended = [i for i in range(stages) if _has(state, f"blocks.{i}.{depth}.")]
    # Behind the blocks of a resolution that was halved, the resolution names it.
    named = {i: resolution >> (i + 1) for i in attended if i < DISCRIMINATOR_WIDTHS[resolution][1]}
    rows, _ = needed(state, "linear.weight", what, 2).shape
    if rows != 1:
        raise ValueError(f"{what}: linear.weight has {rows} rows (output_dim), not 1")
    arguments: dict[str, Any] = {
        "resolution": resolution,
        "image_channels": state["input_conv.weight" if deep else "blocks.0.0.conv1.weight"].shape[1],
        "num_classes": needed(state, "embed.weight", what, 2).shape[0],
        "width": width,
        "attention": list(named.values()),
        "attention_after": [depth * (i + 1) for i in attended if i not in named],
        **({"depth": depth} if deep else {}),
    }
    path = "BigGANDeepDiscriminator" if deep else "BigGANDiscriminator"
    return layout_of({"class_path": path, "init_args": arguments})


def _has(state: Mapping[str, Tensor], prefix: str) -> bool:
    return any(name.startswith(prefix) for name in state)


def _is_deep(state: Mapping[str, Tensor]) -> bool:
    """Whether blocks have four convolutions."""
    return any(".conv4." in name for name in state)


def layout_of(network: Mapping[str, Any]) -> Layout:
    """Of one of our networks, from its class_path and init_args."""
    name, arguments = class_name(network), arguments_of(network)
    depth, resolution, attention = arguments.get("depth", 1), arguments["resolution"], {}
    for at in arguments["attention"]:
        ratio = at // 4 if "Generator" in name else resolution // at
        attention[str(at)] = depth * (ratio.bit_length() - 1) - 1
    attention |= {f"after_{number}": number - 1 for number in arguments.get("attention_after", [])}
    return Layout({"class_path": name, "init_args": arguments}, attention)


def _generator_size(channels: list[int], deep: bool, what: str) -> tuple[int, int, int]:
    """Resolution, width and depth at which blocks have these channels."""
    for resolution, row in GENERATOR_WIDTHS.items():
        stages = len(row) - 1
        width, depth = channels[-1] // row[-1], (len(channels) - 1) // stages
        if depth < 1 or (not deep and depth > 1):
            continue
        multiples = [*(multiple for multiple in row[:-1] for _ in range(depth)), row[-1]]
        if channels == [width * multiple for multiple in multiples]:
            return resolution, width, depth
    raise ValueError(f"{what}: its blocks have {channels} channels, as none in G_arch of resolution 32 to 512 have")


def _discriminator_size(channels: list[int], what: str) -> tuple[int, int]:
    """Resolution and width of what a discriminator's stages give (and the convolution before deep ones)."""
    for resolution, (row, _) in DISCRIMINATOR_WIDTHS.items():
        width = channels[0] // row[0] if channels else 0
        if channels == [width * multiple for multiple in row]:
            return resolution, width
    raise ValueError(f"{what}: its blocks give {channels} channels, as none in D_arch of resolution 32 to 256 do")
