"""A pool of processes that are the ranks of a training, over gloo, kept for all tests of a session."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


class Ranks:
    """`size` processes with a process group; `run` calls a function on each of them and returns what each gives."""

    def __init__(self, size: int, folder: Path) -> None:
        self.size = size
        folder.mkdir(exist_ok=True)
        context = mp.get_context("spawn")
        self._ends: list[Connection] = []
        self._processes = []
        for rank in range(size):
            mine, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(rank, size, str(folder / f"store-{size}"), theirs))
            process.start()
            self._ends.append(mine)
            self._processes.append(process)

    def run(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        for end in self._ends:
            end.send((function, arguments))
        answers = [end.recv() for end in self._ends]
        failed = [f"rank {rank}:\n{error}" for rank, (error, _) in enumerate(answers) if error]
        assert not failed, "\n".join(failed)
        return [result for _, result in answers]

    def close(self) -> None:
        for end in self._ends:
            end.send(None)
        for process in self._processes:
            process.join(10)
            process.kill()


def _serve(rank: int, size: int, store: str, end: Connection) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)
    while (task := end.recv()) is not None:
        function, arguments = task
        try:
            end.send(("", function(*arguments)))
        except BaseException:
            end.send((traceback.format_exc(), None))
    dist.destroy_process_group()
