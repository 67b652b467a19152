"""Counter-based randomness: every number is addressed by (seed, stream, index), so nothing has to be carried along.

Philox-4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), vectorised over indices. The
integers are the same on every machine and for every number of ranks; the floats are computed in float64 on the host.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (np.uint64(0x9E3779B9), np.uint64(0xBB67AE85))
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
Words = NDArray[np.uint64]


def address(seed: int, *stream: str | int) -> int:
    """A 64-bit key for the stream of that name under that seed (BLAKE2b)."""
    text = "\0".join(str(part) for part in (seed, *stream))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def philox(counter: tuple[Words, Words, Words, Words], key: int) -> tuple[Words, Words, Words, Words]:
    """Philox-4x32-10: four 32-bit counter words and a 64-bit key to four random 32-bit words (each held in uint64)."""
    c0, c1, c2, c3 = counter
    k0, k1 = np.uint64(key & 0xFFFFFFFF), np.uint64(key >> 32)
    for _ in range(10):
        product0, product1 = _MULTIPLIERS[0] * c0, _MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (
            (product1 >> _SHIFT) ^ c1 ^ k0,
            product1 & _LOW,
            (product0 >> _SHIFT) ^ c3 ^ k1,
            product0 & _LOW,
        )
        k0, k1 = (k0 + _WEYL[0]) & _LOW, (k1 + _WEYL[1]) & _LOW
    return c0, c1, c2, c3


def words(seed: int, stream: str, indices: ArrayLike, count: int, attempt: int = 0) -> Words:
    """`count` random 32-bit words for each index, [len(indices), count]; `attempt` addresses fresh redraws."""
    index = np.asarray(indices, dtype=np.uint64).reshape(-1, 1)
    block = np.arange((count + 3) // 4, dtype=np.uint64)[None, :]
    zero = np.zeros_like(index + block)
    counter = (block + zero, (index & _LOW) + zero, (index >> _SHIFT) + zero, np.uint64(attempt) + zero)
    drawn = np.stack(philox(counter, address(seed, stream)), axis=-1)  # [index, block, 4]
    return drawn.reshape(len(index), -1)[:, :count]


def uniform(seed: int, stream: str, indices: ArrayLike, count: int = 1, attempt: int = 0) -> NDArray[np.float64]:
    """Uniform numbers in (0, 1), float64 [len(indices), count]."""
    return (words(seed, stream, indices, count, attempt).astype(np.float64) + 0.5) * 2.0**-32


def normal(seed: int, stream: str, indices: ArrayLike, count: int, attempt: int = 0) -> NDArray[np.float64]:
    """Standard normal numbers, float64 [len(indices), count], by the Box-Muller transform."""
    pairs = uniform(seed, stream, indices, count + count % 2, attempt)
    radius, angle = np.sqrt(-2.0 * np.log(pairs[:, 0::2])), 2.0 * np.pi * pairs[:, 1::2]
    return np.stack((radius * np.cos(angle), radius * np.sin(angle)), axis=-1).reshape(len(pairs), -1)[:, :count]


def permutation(size: int, seed: int, *stream: str | int) -> NDArray[np.int64]:
    """A random permutation of range(size): the stable order of 64-bit random numbers."""
    blocks = np.arange((size + 1) // 2, dtype=np.uint64)
    zero = np.zeros_like(blocks)
    w0, w1, w2, w3 = philox((blocks & _LOW, blocks >> _SHIFT, zero, zero), address(seed, *stream))
    values = np.stack(((w0 << _SHIFT) | w1, (w2 << _SHIFT) | w3), axis=-1).reshape(-1)[:size]
    return np.argsort(values, kind="stable")


def seed_generators(seed: int, *stream: str | int) -> None:
    """Puts torch's global generators at the address (without torch.manual_seed's search for devices at each call)."""
    key = address(seed, *stream)
    torch.default_generator.manual_seed(key)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(key)


@contextlib.contextmanager
def seeded(seed: int, *stream: str | int) -> Iterator[None]:
    """Torch's global generators stand at the address inside the block and are put back after it."""
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        seed_generators(seed, *stream)
        yield
