"""What one rank writes of a checkpoint: its share of the pieces, as the bytes of a safetensors file."""

from __future__ import annotations

import json
from collections.abc import Mapping

import torch
from torch import Tensor

from bigtrain.runtime.parallel import Piece

#: What safetensors calls the types of elements.
TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
    torch.complex64: "C64",
}


def share_of(rank: int, pieces: Mapping[str, Piece]) -> dict[str, Piece]:
    """Which of the pieces that a rank holds it also writes: of those with several holders, an equal part in bytes.

    The holders of a piece choose alike without asking each other: the choice depends only on the pieces that have the
    same holders, and these all of them see. The largest go first, each to the holder with the least so far.
    """
    loads: dict[tuple[int, ...], dict[int, int]] = {}
    share = {}
    for name in sorted(pieces, key=lambda name: (-pieces[name].tensor.nbytes, name)):
        piece = pieces[name]
        assert rank in piece.holders, f"rank {rank} does not hold {name}"
        load = loads.setdefault(piece.holders, dict.fromkeys(piece.holders, 0))
        writer = min(load, key=load.__getitem__)
        load[writer] += piece.tensor.nbytes
        if writer == rank:
            share[name] = piece
    return share


def rows_of(tensor: Tensor) -> int:
    """A scalar is one row."""
    return len(tensor) if tensor.ndim else 1


class Share:
    """A copy of a rank's share in the memory of the host, laid out as the file that will be written.

    So it is copied once, and the memory is used again by the next copy. It is pinned where tensors come from a GPU.
    """

    def __init__(self) -> None:
        self._memory = torch.empty(0, dtype=torch.uint8)
        self._size = 0
        #: By name: the first row, how many, the type, and the shape of the whole tensor.
        self.pieces: dict[str, dict[str, object]] = {}

    @property
    def content(self) -> memoryview:
        """The bytes of the file, as they are until the next copy."""
        return self._memory[: self._size].numpy().data

    @torch.no_grad()
    def copy(self, pieces: Mapping[str, Piece]) -> None:
        """Takes these pieces as they are now.

        Raises:
            ValueError: if one is of a type that the format does not have.
        """
        self.pieces = {name: _described(name, pieces[name]) for name in sorted(pieces)}
        # The widest elements first, so that each tensor begins at a multiple of its elements' size.
        tensors = {name: pieces[name].tensor for name in sorted(pieces)}
        tensors = dict(sorted(tensors.items(), key=lambda item: -item[1].itemsize))
        header = _header(tensors)
        on_gpu = any(tensor.is_cuda for tensor in tensors.values())
        self._reserve(len(header) + sum(tensor.nbytes for tensor in tensors.values()), on_gpu)
        self._memory[: len(header)] = torch.frombuffer(header, dtype=torch.uint8)
        start = len(header)
        for tensor in tensors.values():
            place = self._memory[start : start + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
            place.copy_(tensor, non_blocking=tensor.is_cuda)
            start += tensor.nbytes
        if on_gpu:
            torch.cuda.current_stream().synchronize()

    def _reserve(self, size: int, pinned: bool) -> None:
        self._size = size
        if size > len(self._memory) or (pinned and not self._memory.is_pinned()):
            self._memory = torch.empty(size, dtype=torch.uint8, pin_memory=pinned)


def _described(name: str, piece: Piece) -> dict[str, object]:
    tensor, shape = piece.tensor, piece.shape
    rows, total = rows_of(tensor), shape[0] if shape else 1
    assert tensor.shape[1:] == shape[1:], f"{name}: a piece must be whole rows of {shape}, not {tuple(tensor.shape)}"
    assert 0 <= piece.start <= piece.start + rows <= total, f"{name}: rows {piece.start} to {piece.start + rows}"
    if tensor.dtype not in TYPES:
        raise ValueError(f"{name} is of type {tensor.dtype}, but a checkpoint can hold {', '.join(map(str, TYPES))}")
    return {"start": piece.start, "rows": rows, "type": TYPES[tensor.dtype], "shape": list(shape)}


def _header(tensors: Mapping[str, Tensor]) -> bytearray:
    """What a safetensors file begins with: the length of a json, and the json, filled up to a multiple of 8 bytes."""
    places, start = {}, 0
    for name, tensor in tensors.items():
        offsets = [start, start + tensor.nbytes]
        places[name] = {"dtype": TYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
        start = offsets[1]
    text = json.dumps(places, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return bytearray(len(text).to_bytes(8, "little") + text)
