"""The ranks of a training, and the few small things that they tell each other beside gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


class World:
    """This process among the others of the training. Alone, every method answers at once.

    What is told here are numbers and short facts, over gloo on the host, also where gradients go over NCCL: no
    pickled object of another machine is ever read.

    Args:
        timeout: after which a rank that does not answer is an error: long, because they wait here while one of them
            evaluates; who stands still, `Watch` sees.
    """

    def __init__(self, timeout: timedelta = timedelta(days=1)) -> None:
        self.distributed = dist.is_available() and dist.is_initialized()
        self.rank = dist.get_rank() if self.distributed else 0
        self.size = dist.get_world_size() if self.distributed else 1
        self._group: dist.ProcessGroup | None = None
        if self.distributed:
            group = dist.new_group(backend="gloo", timeout=timeout)
            assert isinstance(group, dist.ProcessGroup)
            self._group = group

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0: the one that writes what is written once."""
        return self.rank == 0

    def gather(self, values: Sequence[float]) -> list[list[float]]:
        """The numbers of every rank, by rank; each gives as many."""
        mine = torch.tensor(list(values), dtype=torch.float64)
        if self._group is None:
            return [mine.tolist()]
        parts = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(parts, mine, group=self._group)
        return [part.tolist() for part in parts]

    def gather_lists(self, values: Sequence[float]) -> list[list[float]]:
        """The numbers of every rank, by rank, of which each may have another number."""
        lengths = [int(length) for (length,) in self.gather([len(values)])]
        padded = [*values, *[0.0] * (max(lengths) - len(values))]
        rows = self.gather(padded) if padded else [[] for _ in lengths]
        return [row[:length] for row, length in zip(rows, lengths, strict=True)]

    def collect(self, mine: Tensor) -> list[Tensor]:
        """Tensors of all ranks, of one shape and on the host, by rank: on rank 0. The others get none."""
        if self._group is None:
            return [mine]
        theirs = [torch.empty_like(mine) for _ in range(self.size)] if self.is_first else []
        dist.gather(mine.contiguous(), theirs or None, dst=0, group=self._group)
        return theirs

    def means(self, values: Sequence[Tensor]) -> list[float]:
        """Means over the ranks of scalars that each rank has."""
        mine = torch.stack([value.detach().to("cpu", torch.float64) for value in values])
        if self._group is not None:
            dist.all_reduce(mine, group=self._group)
        return (mine / self.size).tolist()

    def tell(self, text: str | None) -> str | None:
        """What rank 0 says, on every rank."""
        if self._group is None:
            return text
        content = (text or "").encode()
        size = torch.tensor([-1 if text is None else len(content)])
        dist.broadcast(size, 0, group=self._group)
        if size < 0:
            return None
        data = torch.zeros(int(size) + 1, dtype=torch.uint8)  # (never empty)
        if self.is_first:
            data[: len(content)] = torch.frombuffer(bytearray(content + b"."), dtype=torch.uint8)[:-1]
        dist.broadcast(data, 0, group=self._group)
        return bytes(data[:-1].tolist()).decode()

    def first_does(self, action: Callable[[], T]) -> T | None:
        """Rank 0 does something while the others wait for it; its result on rank 0."""
        result = action() if self.is_first else None
        self.wait()
        return result

    def wait(self) -> None:
        """Until every rank is here."""
        if self._group is not None:
            dist.barrier(group=self._group)

    def leave(self) -> None:
        """Ends the process group, when everything went well."""
        if self._group is not None:
            self.wait()
            dist.destroy_process_group()
