"""Named tensors with a card (what they are, as json) in the safetensors format, in which nothing can be executed."""

from __future__ import annotations

import json
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor


def pack(tensors: dict[str, Tensor], card: dict[str, Any]) -> bytes:
    """The bytes of a safetensors file whose metadata holds the card."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return safetensors.torch.save(contiguous, metadata={"card": json.dumps(card)})


def unpack(content: bytes, name: str = "the file") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and card of what `pack` wrote.

    Raises:
        ValueError: naming the file, if it is anything else.
    """
    length = int.from_bytes(content[:8], "little")  # of the json header, which the library reads only from files
    try:
        header = json.loads(content[8 : 8 + length])
        return safetensors.torch.load(content), json.loads(header["__metadata__"]["card"])
    except (ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise ValueError(f"{name} is damaged, or no safetensors file of bigtrain ({type(error).__name__})") from error
