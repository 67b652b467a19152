"""What the code of other trainers computes, as it was recorded once; its weights are made again by name and shape.

A case has the shapes of a state dict, the tensors of it that training moved (statistics, singular vectors), inputs, and
every few pixels of the images that the code made. `filled` makes all other tensors.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

FIXTURES = Path(__file__).parent.parent / "fixtures" / "interop"
#: The pixels of the images that are recorded.
SEEN = (..., slice(1, None, 7), slice(2, None, 7))


def filled(name: str, shape: list[int]) -> Tensor:
    """A tensor that follows from its name and shape, of about the size that such weights have."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    drawn = np.random.Generator(np.random.PCG64(seed)).standard_normal(shape)
    last = name.rpartition(".")[2]
    if last == "gamma":
        drawn = np.full(shape, 0.7)
    elif last.startswith("sv") or last in ("accumulation_counter", "num_batches_tracked"):
        drawn = np.zeros(shape)
    elif "var" in last:
        drawn = 0.5 + np.abs(drawn)
    elif last == "gain" or name == "generator.bn.weight":
        drawn = 1 + drawn / 5
    elif last in ("bias", "stored_mean", "running_mean", "running_means"):
        drawn = drawn / 5
    elif last in ("weight_u", "weight_v"):
        drawn = drawn / np.linalg.norm(drawn)
    elif len(shape) > 1 and not last.startswith("u"):
        drawn = drawn / math.sqrt(math.prod(shape[1:]))
    return torch.from_numpy(np.asarray(drawn, np.float32)).reshape(shape)


def recorded(name: str) -> dict[str, dict[str, Any]]:
    """The cases of a format by name: settings as they were recorded, states made again, arrays as tensors."""
    with np.load(FIXTURES / f"{name}.npz", allow_pickle=False) as file:
        cases = json.loads(bytes(file["cases"]))
        arrays = {key: torch.from_numpy(file[key]) for key in file.files if key != "cases"}
    for case, said in cases.items():
        moved = {network: arrays.get(f"{case}/{network}/moved") for network in said["states"]}
        said["states"] = {network: _state(**state, values=moved[network]) for network, state in said["states"].items()}
        said.update(
            {key.removeprefix(f"{case}/"): value for key, value in arrays.items() if key.startswith(f"{case}/")}
        )
    return cases


def _state(shapes: dict[str, list[int]], moved: list[str], values: Tensor | None) -> dict[str, Tensor]:
    """Tensors by name: those that training moved one after the other in `values`, the others made again."""
    state = {name: filled(name, shape) for name, shape in shapes.items()}
    if values is not None:
        for name, part in zip(moved, values.split([state[name].numel() for name in moved]), strict=True):
            state[name] = part.reshape(shapes[name])
    return state
