"""Files of published weights: where they come from, what they are checked against, and nothing in them is executed."""

from __future__ import annotations

import hashlib
import io
import os
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from bigtrain.sampling.outputs import place_of


@dataclass(frozen=True)
class Published:
    """A file of weights that is downloaded on first use.

    Args:
        url: where it is published.
        name: of the file that it is kept in, below torch.hub's folder; by default the URL's. What stands before its
            ending behind a `-` is the start of its SHA-256.
    """

    url: str
    name: str = ""

    @property
    def path(self) -> Path:
        """Where torch.hub, and so torch-fidelity too, keeps it."""
        return Path(torch.hub.get_dir()) / "checkpoints" / (self.name or self.url.rpartition("/")[2])


class Weights(NamedTuple):
    """Tensors by name, the first 12 hex digits of the SHA-256 of their file, and what to call it in messages."""

    tensors: dict[str, Tensor]
    hash: str
    source: str


def load_weights(source: str | os.PathLike[str] | None, published: Published | None = None) -> Weights:
    """The tensors of a file of weights.

    Args:
        source: a path, a URL of an object store, or None for the published ones.
        published: where those are, if there are any.

    Raises:
        OSError: if the file is not there and cannot be downloaded; the message says which file to put where.
        ValueError: if it is not what its name promises, or holds anything but tensors by name.
    """
    if source is None:
        assert published is not None
        _download(published)
        where, content = str(published.path), published.path.read_bytes()
    else:
        where = os.fspath(source)
        storage, name = place_of(where)
        content = storage.read(name)
    found = hashlib.sha256(content).hexdigest()
    promised = re.search(r"-([0-9a-f]{8,64})\.\w+$", where)
    if promised and not found.startswith(promised[1]):
        raise ValueError(
            f"{where}: its SHA-256 starts with {found[:8]}, not with the {promised[1][:8]} of its name; delete it"
        )
    is_known = published is not None and f"-{found}." in published.path.name
    return Weights(_tensors(content, where, is_known), found[:12], where)


def _download(published: Published) -> None:
    path = published.path
    if path.is_file():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(published.url, str(path), progress=False)
    except OSError as error:
        raise OSError(
            f"{published.url} cannot be downloaded ({error}); fetch it elsewhere and put it at {path}"
        ) from error


def _tensors(content: bytes, source: str, is_known: bool) -> dict[str, Tensor]:
    """Of a safetensors file or a pickle of tensors only; of a TorchScript archive if its whole hash is known."""
    try:
        if is_known:
            return _of_script(content)
        if source.endswith(".safetensors"):
            return safetensors.torch.load(content)
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # the readers refuse in many ways, and each means the same to the user
        raise ValueError(f"weights {source!r}: not a file of tensors only ({type(error).__name__})") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"weights {source!r}: not a state dict (tensors by name)")
    return dict(state)


def _of_script(content: bytes) -> dict[str, Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, but published weights are what they are
        return dict(torch.jit.load(io.BytesIO(content), map_location="cpu").state_dict())
