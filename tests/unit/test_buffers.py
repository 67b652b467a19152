"""Batches' memory is used again, and never while somebody holds it."""

import gc

import numpy as np
import torch

from bigtrain.data.batches import to_tensor
from bigtrain.data.buffers import Buffers


def address(array):
    return array.__array_interface__["data"][0]


def test_memory_comes_back_when_nobody_holds_it():
    buffers = Buffers()
    first = buffers.empty((2, 4, 4, 3))
    where = address(first)
    assert address(buffers.empty((2, 4, 4, 3))) != where  # it is held
    del first
    gc.collect()
    assert address(buffers.empty((2, 4, 4, 3))) == where
    assert address(buffers.empty((1, 4, 4, 3))) != where


def test_a_tensor_made_of_it_holds_it():
    buffers = Buffers()
    array = buffers.empty((2, 4, 4, 3))
    array[:] = 7
    part = to_tensor(array)[1:, :2]
    del array
    others = [buffers.empty((2, 4, 4, 3)) for _ in range(3)]
    for other in others:
        other[:] = 0
    assert torch.equal(part, torch.full((1, 2, 4, 4), 7, dtype=torch.uint8))


def test_only_so_many_are_kept():
    buffers = Buffers(keep=2)
    lent = [buffers.empty((4,)) for _ in range(5)]
    assert len({address(array) for array in lent}) == 5
    del lent
    gc.collect()
    assert sum(len(free) for free in buffers._free.values()) == 2
    assert np.asarray(buffers.empty((4,))).shape == (4,)
