"""Layers with equalized learning rate under other names and constants: what the formats of Progressive GANs share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from torch import Tensor

from bigtrain.interop.conversion import Part
from bigtrain.interop.names import arguments_of, class_name, network_of
from bigtrain.networks.base import Network

N = TypeVar("N", bound=Network)


@dataclass(frozen=True)
class Constants:
    """What a source multiplies a layer's numbers with when it uses them: √(2/fan_in), its gain being √2 everywhere.

    Args:
        weights: whether it does so with weights, and not at all otherwise,
        biases: and with biases too.
    """

    weights: bool
    biases: bool

    def scales(self, fan_in: int) -> tuple[float, float]:
        """Of a layer's weight and of its bias."""
        scale = math.sqrt(2 / fan_in) if self.weights else 1.0
        return scale, scale if self.biases else 1.0


def widths(state: Mapping[str, Tensor], pattern: str, dim: int, where: str) -> list[int]:
    """Feature maps at each scale: that dimension of the 1 × 1 convolutions between them and the images.

    The pattern of those weights' names has `{}` for a number from 0 on.
    """
    found: list[int] = []
    while (name := pattern.format(len(found))) in state:
        shape = state[name].shape
        if len(shape) != 4:
            raise ValueError(f"{where}: {name} has the shape {list(shape)}, which is not that of a convolution")
        found.append(shape[dim])
    if not found:
        raise ValueError(f"{where} lacks {pattern.format(0)!r}: it is not of this format")
    return found


def check_names(state: Mapping[str, Tensor], layers: Iterable[str], where: str) -> None:
    """Every tensor belongs to one of these layers, and every layer has its weight and bias."""
    expected = {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    unknown, missing = sorted(set(state) - expected), sorted(expected - set(state))
    told = [f"{what} {_first(keys)}" for what, keys in (("has unknown", unknown), ("lacks", missing)) if keys]
    if told:
        raise ValueError(f"{where} {' and '.join(told)}: it is not of this format, or of another version of it")


def _first(keys: list[str], most: int = 3) -> str:
    more = f" and {len(keys) - most} more" if len(keys) > most else ""
    return ", ".join(repr(key) for key in keys[:most]) + more


def read_layers(
    state: Mapping[str, Tensor], names: Mapping[str, str], network: Network, constants: Constants, where: str
) -> dict[str, Tensor]:
    """Our state dict: with their constants folded into the weights, our layers compute what theirs do.

    Args:
        state: theirs.
        names: of their layers, and of ours; see `check_names`.
        network: ours; of its weights only the shapes count.
        constants: theirs.
        where: for messages.
    """
    ours: dict[str, Tensor] = {}
    for theirs, name in names.items():
        for key, scale in _ratios(network, name, constants).items():
            value, shape = state[f"{theirs}.{key}"], network.get_parameter(f"{name}.{key}").shape
            if value.numel() != shape.numel() or value.shape[:1] != shape[:1]:
                raise ValueError(f"{where}: {theirs}.{key} has the shape {list(value.shape)}, not {list(shape)}")
            ours[f"{name}.{key}"] = (value.double() * scale).float().reshape(shape).contiguous()
    return ours


def write_layers(
    state: Mapping[str, Tensor], names: Mapping[str, str], network: Network, constants: Constants
) -> dict[str, Tensor]:
    """Their state dict, with weights in the shapes of our layers: the way back of `read_layers`."""
    return {
        f"{theirs}.{key}": (state[f"{name}.{key}"].double() / scale).float()
        for theirs, name in names.items()
        for key, scale in _ratios(network, name, constants).items()
    }


def _ratios(network: Network, name: str, constants: Constants) -> dict[str, float]:
    """What their weight and bias of a layer are multiplied with to become ours, whose bias is not scaled."""
    layer = network.get_submodule(name)
    weight = network.get_parameter(f"{name}.weight")
    of_weight, of_bias = constants.scales(weight[0].numel())
    return {"weight": of_weight / float(layer.scale), "bias": of_bias}  # type: ignore[arg-type]


def part(kind: type[N], init_args: dict[str, Any]) -> tuple[N, dict[str, Any]]:
    """A network without memory for its weights, and how a card names it."""
    card = {"class_path": f"bigtrain.networks.{kind.__name__}", "init_args": init_args}
    return cast(N, network_of(card)), card


def arguments(part: Part, kind: type[Network], required: Mapping[str, Any], target: str) -> dict[str, Any]:
    """All arguments of a network that is to be written in a foreign format.

    Args:
        part: the network.
        kind: its class.
        required: values of arguments without which the format cannot say what the network does.
        target: the format's name, for messages.
    """
    if class_name(part.network) != kind.__name__:
        raise ValueError(f"{part.network['class_path']} cannot be written as {target}: it must be a {kind.__name__}")
    found = arguments_of(part.network)
    for key, value in required.items():
        if found[key] != value:
            raise ValueError(f"{key} (={found[key]!r}) of the {kind.__name__} must be {value!r} to be {target}")
    return found
