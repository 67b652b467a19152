"""Files of tensors, read without executing anything in them: torch.save's, and safetensors.

What a pickle of plain tensors cannot hold is read by an unpickler that knows a short list of names. The classes on it
are not imported: an object of one becomes a `StandIn`, which has its attributes and can do nothing.
"""

from __future__ import annotations

import collections
import io
import json
import pickle
import warnings
import zipfile
from collections.abc import Callable
from typing import Any, ClassVar, Final

import numpy as np
import safetensors.torch
import torch

ZIP, PICKLE = b"PK", b"\x80"


class StandIn:
    """The attributes of an object whose class is not imported."""

    dump_patches = False  # asked by torch of files of its first format


#: Classes of settings that checkpoints hold beside their tensors.
HARMLESS: Final = {
    ("argparse", "Namespace"),
    ("types", "SimpleNamespace"),
    ("models.utils.config", "BaseConfig"),  # pytorch_GAN_zoo
    ("torch.nn.modules.activation", "ReLU"),  # BigGAN-PyTorch's settings name activations by an object
    ("torch.nn.modules.activation", "LeakyReLU"),
}


class _NumberType:
    """In place of `numpy.dtype`: its name."""

    def __init__(self, name: str, *_: object) -> None:
        self.name, self.order = name, "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]


def _number(kind: _NumberType, content: bytes) -> Any:
    """In place of numpy's `scalar`: the number, of Python's own type."""
    numeric = np.dtype(kind.name)
    if numeric.kind not in "biuf":
        raise RefusedError(f"numpy.{kind.name}")
    return np.frombuffer(content, numeric.newbyteorder(">" if kind.order == ">" else "<"))[0].item()


def _encode(text: str, _: str) -> bytes:
    """In place of `_codecs.encode`, by which the bytes of a number are written."""
    return text.encode("latin1")


#: All that a file may name, and what is taken for it.
KNOWN: Final[dict[tuple[str, str], Callable[..., Any]]] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("builtins", "set"): set,
    ("torch", "Size"): torch.Size,
    ("torch._utils", "_rebuild_tensor"): torch._utils._rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
    ("numpy", "dtype"): _NumberType,
    ("numpy.core.multiarray", "scalar"): _number,
    ("numpy._core.multiarray", "scalar"): _number,
    ("_codecs", "encode"): _encode,
    **{name: type(name[1], (StandIn,), {}) for name in HARMLESS},
}


class RefusedError(ValueError):
    """A file names something that is not on the list."""


#: What a file may give attributes to: an object of its own. All others outlive the file that names them.
_SETTLED: Final = (collections.OrderedDict, StandIn, _NumberType)


class _Unpickler(pickle._Unpickler):  # C's makes room for as many objects as a file says that it has
    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(pickle._Unpickler.dispatch)
    stack: list[Any]

    def find_class(self, module: str, name: str) -> Any:
        module = "builtins" if module == "__builtin__" else module  # as Python 2 has it, and the protocol still
        if (module, name) not in KNOWN:
            raise RefusedError(f"{module}.{name}")
        return KNOWN[module, name]

    def load_build(self) -> None:
        """Gives the object on the stack its attributes."""
        if not isinstance(self.stack[-2], _SETTLED):
            raise ValueError(f"it would change a {type(self.stack[-2]).__name__}")
        super().load_build()  # type: ignore[misc]

    dispatch[pickle.BUILD[0]] = load_build


class _Reader:
    """What `torch.load` takes for the module `pickle`."""

    Unpickler = _Unpickler

    @staticmethod
    def load(file: Any, **options: Any) -> Any:
        return _Unpickler(file, **options).load()


def check_kind(head: bytes, name: str) -> None:
    """Whether a file that begins so can be a checkpoint.

    Raises:
        ValueError: if it is none, by its first bytes; those that an ending tells are not looked at.
    """
    if not name.endswith((".json", ".safetensors")) and not head.startswith((ZIP, PICKLE)):
        raise ValueError(f"{name} is not a checkpoint: neither torch.save nor safetensors (.safetensors) wrote it")


def load_file(content: bytes, name: str) -> Any:
    """What a file holds: tensors on the CPU, containers, numbers, strings, and `StandIn`s.

    Args:
        content: of the file.
        name: of it, whose ending tells safetensors and json from what torch.save writes.

    Raises:
        ValueError: if it is damaged, of another kind, or names anything that is not on the list of this module.
    """
    if name.endswith(".json"):
        try:
            return json.loads(content)
        except ValueError as error:
            raise ValueError(f"{name} is not json ({error})") from error
    if name.endswith(".safetensors"):
        try:
            return safetensors.torch.load(content)
        except Exception as error:
            raise ValueError(f"{name} is damaged, or not a safetensors file ({_line(error)})") from error
    return _unpickled(content, name)


def _unpickled(content: bytes, name: str) -> Any:
    check_kind(content, name)
    try:
        if content.startswith(ZIP):
            _check_archive(content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # (storages of old files; sources that cannot be compared)
            try:
                return torch.load(io.BytesIO(content), "cpu", weights_only=True)
            except pickle.UnpicklingError:
                return torch.load(io.BytesIO(content), "cpu", _Reader, weights_only=False)
    except RefusedError as error:
        raise ValueError(
            f"{name} is a pickle that names {error}, which is not imported: nothing in it was executed; only tensors, "
            f"containers, numbers and {', '.join(sorted('.'.join(pair) for pair in HARMLESS))} are read"
        ) from None
    except Exception as error:  # torch, zipfile and pickle fail in many ways, and each means the same to the user
        raise ValueError(f"{name} is damaged, cut off or no checkpoint ({_line(error)})") from error


def _check_archive(content: bytes) -> None:
    """Refuses what torch would hand to another reader, and a zip that is not whole."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names, size = archive.namelist(), sum(member.file_size for member in archive.infolist())
    if size > len(content):  # torch.save does not compress
        raise ValueError(f"it would unpack to {size} bytes, and has {len(content)}")
    if any(name.endswith("constants.pkl") for name in names):
        raise RefusedError("a TorchScript program")
    if not any(name.endswith("data.pkl") for name in names):
        raise ValueError("a zip without data.pkl")


def _line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]} …"
