"""pytorch-pretrained-BigGAN (github.com/huggingface/pytorch-pretrained-BigGAN): DeepMind's BigGAN-deep generators.

A model there is pytorch_model.bin, a state dict, and config.json. What its weights depend on:

- Spectral norm is torch's with the stored u and v, which in evaluation are used as they are: it is folded into the
  weights, W / (uᵀ W v), and the converted generator has none.
- Batch norm has statistics for each truncation in steps of 0.02; the converted generator has those of one of them.
  Between two rows that code takes the weights the wrong way round (`interpolation`). ε is that of config.json, 1e-4.
- The first layer gives [4, 4, channels], in TensorFlow's order; the last one gives many channels, of which the image is
  the first three.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final, Literal

import torch
from torch import Tensor

from bigtrain.interop.conversion import Conversion, Part
from bigtrain.interop.names import NameMap, check_number, needed, network_of, renamed, state_of
from bigtrain.networks.biggan_deep import BOTTLENECK
from bigtrain.networks.layouts import GENERATOR_WIDTHS

#: What that code takes for what config.json does not say: the model of 128².
DEFAULT_LAYERS: Final = [
    [up, a, b] for a, b in pairwise((16, 16, 8, 4, 2, 1)) for up, a, b in ((False, a, a), (True, a, b))
]
DEFAULT_ATTENTION, DEFAULT_EPS = 8, 1e-4
IMAGE_CHANNELS = 3


def read(
    content: Mapping[str, Any], truncation: float = 1.0, interpolation: Literal["source", "linear"] = "source"
) -> Conversion:
    """The generator.

    Args:
        content: of the files: `config` and `weights`.
        truncation: whose statistics of batch norm it gets; sample it at the same.
        interpolation: between two rows of statistics: `source`, as that code does, or `linear`, as was meant.

    Raises:
        ValueError: if it is no such model, or a tensor is missing, unknown or misshapen.
    """
    for name in ("config", "weights"):
        if name not in content:
            raise ValueError(
                f"there is no {'config.json' if name == 'config' else 'pytorch_model.bin'}; both are needed"
            )
    if not 0 < truncation <= 1:
        raise ValueError(f"truncation (={truncation}) must be above 0 and at most 1, where there are statistics")
    config, what = content["config"], "pytorch_model.bin"
    if not isinstance(config, Mapping):
        raise ValueError(f"config.json holds a {type(config).__name__}, not the settings by name")
    state = _folded(state_of(content["weights"], what))
    rows, _ = needed(state, "generator.bn.running_means", what, 2).shape
    state = _at_truncation(state, truncation, interpolation, rows)
    blocks, position = _blocks(config)
    network = _network(state, config, blocks, position, what)
    for name, dims in (("weight", 2), ("bias", 1)):
        first = needed(state, f"generator.gen_z.{name}", what, dims)
        if len(first) % 16:
            raise ValueError(f"{what}: generator.gen_z.{name} has {len(first)} rows, which are not those of 4² pixels")
        state[f"generator.gen_z.{name}"] = _channels_first(first)
    for name, dims in (("weight", 4), ("bias", 1)):
        last = needed(state, f"generator.conv_to_rgb.{name}", what, dims)
        state[f"generator.conv_to_rgb.{name}"] = last[:IMAGE_CHANNELS]
    state["embeddings.weight"] = state["embeddings.weight"].T
    ours = network_of(network).state_dict()
    shapes = {name: value.shape for name, value in ours.items() if not name.endswith("num_batches_tracked")}
    found = renamed(state, shapes, _names(position), what)
    part = Part(network, found | {name: torch.tensor(0) for name in ours.keys() - shapes.keys()})
    notes = [
        f"the statistics of batch norm are those of truncation {truncation:g}: sample with --truncation {truncation:g}",
        "spectral norm is folded into the weights; there is none when it is trained on",
    ]
    return Conversion(part, None, network["init_args"]["resolution"], notes=notes)


def _folded(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """`weight_orig`, `weight_u` and `weight_v` as one `weight`."""
    folded = {}
    for name, value in state.items():
        stem = name.removesuffix("_orig")
        if stem == name:
            if not name.endswith(("weight_u", "weight_v")):
                folded[name] = value
            continue
        u, v = (needed(state, f"{stem}_{letter}", "pytorch_model.bin", 1) for letter in "uv")
        if value.ndim < 2 or value.flatten(1).shape != (len(u), len(v)):
            raise ValueError(
                f"pytorch_model.bin: {name} has the shape {list(value.shape)}, but its singular vectors are of "
                f"{len(u)} and {len(v)} numbers"
            )
        folded[stem] = value / torch.dot(u, value.flatten(1) @ v)
    return folded


def _at_truncation(state: Mapping[str, Tensor], truncation: float, interpolation: str, rows: int) -> dict[str, Tensor]:
    """The statistics of one truncation, for `running_means` and `running_vars` of all."""
    tables = {found: name for name in state if (found := re.fullmatch(r"(.*\.running_)(mean|var)s", name))}
    if rows < 2 or any(state[name].shape[:1] != (rows,) for name in tables.values()):
        raise ValueError(f"pytorch_model.bin: not every batch norm has statistics of as many truncations (={rows})")
    part, row = math.modf(truncation / (1 / (rows - 1)))  # in this order: 0.58 / 0.02 is just below 29 in floats
    first, second = (part, 1 - part) if interpolation == "source" else (1 - part, part)

    def chosen(table: Tensor) -> Tensor:
        start = table[int(row)]
        return start * first + table[int(row) + 1] * second if part else start

    others = {name: value for name, value in state.items() if name not in tables.values()}
    return others | {found.expand(r"\1\2"): chosen(state[name]) for found, name in tables.items()}


def _channels_first(rows: Tensor) -> Tensor:
    """From rows that are [4, 4, channels] to [channels, 4, 4]."""
    return rows.unflatten(0, (16, -1)).transpose(0, 1).flatten(0, 1)


def _blocks(config: Mapping[str, Any]) -> tuple[Sequence[Any], int | None]:
    """The blocks as (doubles, channels in, channels out), and the number of those before attention, if there is any."""
    blocks = config.get("layers", DEFAULT_LAYERS)
    triples = isinstance(blocks, list) and all(isinstance(block, (list, tuple)) and len(block) == 3 for block in blocks)
    if not triples or not blocks:
        raise ValueError(f"config.json: layers (={blocks}) must be triples of doubles, channels in, channels out")
    if any(b != c for (_, _, b), (_, c, _) in pairwise(blocks)) or any(b not in (a, a // 2) for _, a, b in blocks):
        raise ValueError(f"config.json: layers (={blocks}) do not fit together: each keeps its channels or halves them")
    position = config.get("attention_layer_position", DEFAULT_ATTENTION)
    if not isinstance(position, int):
        raise ValueError(f"config.json: attention_layer_position (={position!r}) must be the number of a block")
    return blocks, position if 0 <= position < len(blocks) else None


def _network(
    state: Mapping[str, Tensor], config: Mapping[str, Any], blocks: Sequence[Any], position: int | None, what: str
) -> dict[str, Any]:
    """class_path and init_args: BigGAN-deep by its width where that is all there is to say."""
    width = needed(state, "generator.bn.running_mean", what).shape[0]
    shared_dim, num_classes = needed(state, "embeddings.weight", what, 2).shape
    latent_dim = needed(state, "generator.gen_z.weight", what, 2).shape[1] - shared_dim
    eps = config.get("eps", DEFAULT_EPS)
    check_number(eps, "config.json: eps")
    channels = [blocks[0][1] * width, *(block[2] * width for block in blocks)]
    doubles = [bool(block[0]) for block in blocks]
    resolution, attention = 4 << sum(doubles), [] if position is None else [position]
    arguments: dict[str, Any] = {
        "resolution": resolution,
        "image_channels": IMAGE_CHANNELS,
        "num_classes": num_classes,
        "latent_dim": latent_dim,
        "shared_dim": shared_dim,
        "bn_eps": float(eps),
        "sn_eps": None,
    }
    row = GENERATOR_WIDTHS.get(resolution, ())
    depth = len(blocks) // (len(row) - 1) if row else 0
    stages = [multiple * width for multiple in row[:-1] for _ in range(depth)]
    at = [4 << sum(doubles[:count]) for count in attention]
    if (
        depth
        and width >= BOTTLENECK
        and [*stages, width] == channels
        and doubles == ([False] * (depth - 1) + [True]) * (len(row) - 1)
        and all(count and count % depth == 0 for count in attention)
    ):
        arguments |= {"width": width, "depth": depth, "attention": at}
        return {"class_path": "BigGANDeepGenerator", "init_args": arguments}
    arguments |= {"channels": channels, "doubles": doubles, "attention": attention}
    return {"class_path": "DeepGenerator", "init_args": arguments}


def _names(position: int | None) -> NameMap:
    """Our names in theirs, where the attention has a number among the blocks."""

    def layer(found: re.Match[str]) -> str:
        number = int(found[1])
        return f"generator.layers.{number + (position is not None and number >= position)}."

    def numbered(kind: str, rest: str = "") -> Any:
        return lambda found: f"{layer(found)}{kind}_{int(found[2]) - 1}.{rest}"

    def convolution(found: re.Match[str]) -> str:
        return f"generator.layers.{position}.snconv1x1_{'o_conv' if found[1] == 'o' else found[1]}."

    return (
        (r"shared\.", "embeddings."),
        (r"first\.", "generator.gen_z."),
        (r"blocks\.(\d+)\.norm(\d)\.gain\.", numbered("bn", "scale.")),
        (r"blocks\.(\d+)\.norm(\d)\.bias\.", numbered("bn", "offset.")),
        (r"blocks\.(\d+)\.norm(\d)\.", numbered("bn")),
        (r"blocks\.(\d+)\.conv(\d)\.", numbered("conv")),
        (r"attention\.\d+\.(theta|phi|g|o)\.", convolution),
        (r"attention\.\d+\.", f"generator.layers.{position}."),
        (r"last_norm\.", "generator.bn."),
        (r"last\.", "generator.conv_to_rgb."),
    )
