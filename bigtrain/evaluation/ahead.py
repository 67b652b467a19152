"""Samples are made, or read and decoded, while those before them are measured."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

from bigtrain.evaluation.extractors import exact_arithmetic

Batch = TypeVar("Batch")
Made = TypeVar("Made")


def made_ahead(
    make: Callable[[Batch], Made], batches: Iterable[Batch], device: torch.device
) -> Generator[tuple[Batch, Made], None, None]:
    """The batches in their order, each with what is made of it; the next one is made meanwhile, by another thread.

    Args:
        make: is called for one batch at a time, with exact arithmetic.
        batches: of which no more than two are held.
        device: on which they are measured.

    Raises:
        whatever `make` raises, where its batch would have come.
    """

    def made(batch: Batch) -> Made:
        with _current(device), exact_arithmetic(device):  # these hold for one thread
            return make(batch)

    coming = iter(batches)
    with ThreadPoolExecutor(1, "samples") as thread:  # which ends with the batch that it is at, whatever happens here

        def begin() -> tuple[Batch, Future[Made]] | None:
            return next(((batch, thread.submit(made, batch)) for batch in coming), None)

        ahead = begin()
        while ahead is not None:
            batch, found = ahead[0], ahead[1].result()
            ahead = begin()
            yield batch, found


def _current(device: torch.device) -> contextlib.AbstractContextManager[object]:
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()
