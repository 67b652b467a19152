"""What the name maps share: a foreign state dict, tensor by tensor, under our names, with nothing left over."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bigtrain import networks
from bigtrain.interop.conversion import Part
from bigtrain.networks.base import Network

#: Beginnings of our names and what stands for them in the foreign ones, as `re.sub` takes them; the first that fits.
NameMap = Sequence[tuple[str, str | Callable[[re.Match[str]], str]]]


def state_of(content: Any, what: str) -> dict[str, Tensor]:
    """Tensors by name, in float32 where they are not whole numbers, without the `module.` of DataParallel.

    Raises:
        ValueError: if it is something else; `what` names it.
    """
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"{what} is not a state dict (tensors by name), but a {type(content).__name__}")
    state = {}
    for name, value in content.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"{what} is not a state dict: {name} is no tensor, but a {type(value).__name__}")
        if not _is_plain(value):
            raise ValueError(f"{what}: {name} is not a tensor of real numbers that are all in the file")
        numbers = value.detach().float() if value.is_floating_point() else value.detach()
        if not numbers.isfinite().all():
            raise ValueError(f"{what}: {name} has numbers that are not finite: take a copy from before they were")
        state[str(name).removeprefix("module.")] = numbers
    return state


def _is_plain(value: Tensor) -> bool:
    """Whether it is neither sparse, quantized nor complex, nor a view that repeats the few numbers it has."""
    stored = value.layout == torch.strided and value.device.type == "cpu" and not value.is_quantized
    return stored and not value.is_complex() and value.nbytes <= value.untyped_storage().nbytes()


def needed(state: Mapping[str, Tensor], name: str, what: str, dims: int | None = None) -> Tensor:
    """One of the tensors by which an architecture is known, with so many dimensions if that matters."""
    if name not in state:
        raise ValueError(f"{what} lacks {name} (it has {', '.join(sorted(state)[:3])}, …): is it of this format?")
    if dims not in (None, state[name].ndim):
        raise ValueError(f"{what}: {name} has the shape {list(state[name].shape)}, which must have {dims} dimensions")
    return state[name]


def by_name(settings: Any) -> Mapping[str, Any] | None:
    """Settings that are a mapping, or the attributes of an object; None if they are neither."""
    return settings if isinstance(settings, Mapping) else getattr(settings, "__dict__", None)


def check_number(value: Any, what: str) -> None:
    """Raises ValueError if a setting, which `what` names, is not a number."""
    if not isinstance(value, int | float):
        raise ValueError(f"{what} (={value!r}) must be a number")


def counted(state: Mapping[str, Tensor], pattern: str) -> int:
    r"""How many numbers there are in names that begin as a pattern such as `blocks\.(\d+)\.`."""
    return len({found[1] for name in state if (found := re.match(pattern, name))})


def foreign_name(ours: str, names: NameMap) -> str:
    """The name that a tensor of ours has there."""
    for pattern, replacement in names:
        found = re.match(pattern, ours)
        if found:
            head = replacement(found) if callable(replacement) else found.expand(replacement)
            return head + ours[found.end() :]
    raise AssertionError(f"no foreign name for {ours}")


def renamed(
    state: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], names: NameMap, what: str
) -> dict[str, Tensor]:
    """The tensors under our names, each in our shape where it has as many numbers.

    Args:
        state: by foreign names.
        shapes: of all tensors that are wanted, by our names.
        names: of ours in the foreign ones.
        what: is read, for messages.

    Raises:
        ValueError: naming the first tensor that is missing, unknown, or of another shape.
    """
    foreign = {ours: foreign_name(ours, names) for ours in shapes}
    for verdict, wrong in (
        ("lacks", sorted(set(foreign.values()) - state.keys())),
        ("has an unknown", sorted(state.keys() - set(foreign.values()))),
    ):
        if wrong:
            more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
            raise ValueError(f"{what} {verdict} {wrong[0]}{more}")
    for ours, name in foreign.items():
        if _sizes(state[name].shape) != _sizes(shapes[ours]):
            raise ValueError(
                f"{what}: {name} is {list(state[name].shape)}, but beside the others it must be {list(shapes[ours])}"
            )
    return {ours: state[name].reshape(shapes[ours]).clone() for ours, name in foreign.items()}


def _sizes(shape: torch.Size) -> list[int]:
    """Without dimensions of one."""
    return [size for size in shape if size != 1]


def network_of(part_network: Mapping[str, Any], device: str = "meta") -> Network:
    """The network of a card's class_path and init_args, which is one of bigtrain's own; by default without memory.

    Raises:
        ValueError: if its arguments do not fit together.
    """
    with torch.device(device):
        return getattr(networks, class_name(part_network))(**part_network["init_args"])


def class_name(part_network: Mapping[str, Any]) -> str:
    """Without the dotted path that a configuration may have before it."""
    return str(part_network["class_path"]).rpartition(".")[2]


def arguments_of(part_network: Mapping[str, Any]) -> dict[str, Any]:
    """All arguments of a card's network, those that it leaves out too."""
    parameters = inspect.signature(getattr(networks, class_name(part_network))).parameters.values()
    defaults = {
        parameter.name: parameter.default for parameter in parameters if parameter.default is not parameter.empty
    }
    return defaults | part_network["init_args"]


def loaded(part: Part) -> Network:
    """The network with its weights, in evaluation mode."""
    network = network_of(part.network, "cpu")
    network.load_state_dict(part.state)
    return network.requires_grad_(False).eval()
