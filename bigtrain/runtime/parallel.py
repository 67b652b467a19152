"""How a network is spread over the ranks: not at all, copied (DDP), or sharded (FSDP2, HSDP).

A network is wrapped in a module whose `forward` runs a function of the player's turn. So however often the function
passes through the network, however often it differentiates (R1, gradient penalty), the wrapper sees one forward and one
backward: each gradient is reduced once, and weights that are sharded stay whole from the one to the other. The wrappers
by themselves see every pass: DDP cannot follow, and FSDP2 reduces once a pass and fails in a double backward.
"""

from __future__ import annotations

import contextlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from bigtrain.runtime.reductions import gather_across

T = TypeVar("T")
Strategy = Literal["single", "ddp", "fsdp", "hsdp"]


@dataclass(frozen=True)
class Piece:
    """What a rank holds of a tensor: the rows from `start` on, of a whole of that shape.

    Args:
        tensor: the rows.
        start: of the first of them.
        shape: of the whole tensor.
        holders: the ranks that hold this piece.
    """

    tensor: Tensor
    start: int
    shape: tuple[int, ...]
    holders: tuple[int, ...]

    def rows_of(self, whole: Tensor) -> Tensor:
        """The same rows of another whole tensor of that shape."""
        return whole[self.start : self.start + len(self.tensor)] if whole.ndim else whole


def local(tensor: Tensor) -> Tensor:
    """The tensor, or what this rank holds of it, in the same memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """The tensor with the rows of all ranks, which call this together."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


class Turn(nn.Module):
    """What is wrapped in place of a network: its forward is a function that uses the network as it likes."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)


class Spread(ABC):
    """One network in a strategy."""

    def __init__(self, network: nn.Module) -> None:
        self.turn = Turn(network)

    @property
    def network(self) -> nn.Module:
        return self.turn.network

    @abstractmethod
    def run(self, synchronize: bool, function: Callable[..., T], *arguments: Any) -> T:
        """Calls the function with the network's weights whole, and keeps them so for one backward of its result.

        Args:
            synchronize: whether that backward averages the gradients, with those that were accumulated before, over
                all ranks.
            function: may use the network many times, and differentiate through it.
            arguments: of the function.
        """

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        """Inside the block the weights are whole; gradients of them are not computed. All ranks enter together."""
        yield

    def rewrap(self) -> None:  # noqa: B027 (most strategies need nothing)
        """To be called when other parameters than before are trained."""

    def leaves(self) -> list[nn.Parameter]:
        """What the optimizer updates, one for each parameter: what this rank holds of it, in the same memory."""
        return list(self.network.parameters())

    def norm(self, gradients: list[Tensor]) -> Tensor:
        """The norm of the leaves' gradients, over all ranks."""
        return torch.nn.utils.get_total_norm(gradients, foreach=True)


class Single(Spread):
    """The network as it is."""

    def run(self, synchronize: bool, function: Callable[..., T], *arguments: Any) -> T:
        return function(*arguments)


class Copied(Spread):
    """A copy on each rank, by DistributedDataParallel: gradients are reduced in buckets while backward runs."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self._wrapper: DistributedDataParallel | None = None

    def run(self, synchronize: bool, function: Callable[..., T], *arguments: Any) -> T:
        if self._wrapper is None:  # not before the first turn of a phase: it looks at what is trained
            with warnings.catch_warnings():  # newer versions of torch call `broadcast_buffers` otherwise
                warnings.simplefilter("ignore", FutureWarning)
                self._wrapper = DistributedDataParallel(
                    self.turn, broadcast_buffers=False, gradient_as_bucket_view=True
                )
        with contextlib.nullcontext() if synchronize else self._wrapper.no_sync():
            return self._wrapper(function, *arguments)

    def rewrap(self) -> None:
        self._wrapper = None


class Sharded(Spread):
    """A shard of each weight, of its gradient and of its optimizer's state on each rank, by fully_shard (FSDP2).

    The weights are gathered for a player's turn and its gradients scattered after it, in one collective each.

    Args:
        mesh: one-dimensional, or (copies, shards) for HSDP.
    """

    def __init__(self, network: nn.Module, mesh: DeviceMesh) -> None:
        super().__init__(network)
        self._shards = mesh.get_group(mesh.ndim - 1)
        fully_shard(self.turn, mesh=mesh, reshard_after_forward=False)

    @property
    def _sharded(self) -> FSDPModule:
        return cast(FSDPModule, self.turn)

    def run(self, synchronize: bool, function: Callable[..., T], *arguments: Any) -> T:
        self._sharded.set_requires_gradient_sync(synchronize)
        return self.turn(function, *arguments)

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        self._sharded.unshard()
        try:
            yield
        finally:
            self._sharded.reshard()

    def leaves(self) -> list[nn.Parameter]:
        """Plain tensors: an optimizer takes 20 times as long over DTensors of small networks on a CPU."""
        return [nn.Parameter(local(parameter.detach())) for parameter in self.network.parameters()]

    def norm(self, gradients: list[Tensor]) -> Tensor:
        squared = super().norm(gradients).square()
        dist.all_reduce(squared, group=self._shards)
        return squared.sqrt()


class Parallel:
    """The strategy of a training, the same for all of its networks.

    Args:
        strategy: `single`, `ddp`, `fsdp` or `hsdp`.
        device: of this rank.
        shard: ranks that share one copy of the weights under `hsdp`.

    Raises:
        ValueError: if the strategy does not fit the number of ranks.
    """

    def __init__(self, strategy: Strategy = "single", device: torch.device | str = "cpu", shard: int = 0) -> None:
        self.strategy, self.device = strategy, torch.device(device)
        alone = strategy == "single"
        self.rank, self.world = (0, 1) if alone else (dist.get_rank(), dist.get_world_size())
        if not alone:
            check_strategy(strategy, self.world, shard)
        self.mesh: DeviceMesh | None = None
        if strategy == "fsdp":
            self.mesh = init_device_mesh(self.device.type, (self.world,))
        elif strategy == "hsdp":
            names = ("copies", "shards")
            self.mesh = init_device_mesh(self.device.type, (self.world // shard, shard), mesh_dim_names=names)

    @property
    def is_sharded(self) -> bool:
        """Whether a rank holds but a part of each weight."""
        return self.mesh is not None

    def set_timeout(self, seconds: float) -> None:
        """After which a collective that waits for another rank fails, from now on."""
        if self.world == 1:
            return
        groups = [dist.group.WORLD, *(self.mesh.get_all_groups() if self.mesh is not None else ())]
        for group in groups:
            if hasattr(group, "set_timeout"):  # (before torch 2.15 it stays what it was at the start)
                group.set_timeout(timedelta(seconds=seconds))

    def spread(self, network: nn.Module) -> Spread:
        """Wraps a network, in place under `fsdp` and `hsdp`; its layers are told how to look at the whole batch."""
        if self.world > 1:
            for module in network.modules():
                if hasattr(module, "gather"):
                    object.__setattr__(module, "gather", gather_across)
                    object.__setattr__(module, "rank", self.rank)
        if self.mesh is not None:
            return Sharded(network, self.mesh)
        return Copied(network) if self.world > 1 else Single(network)

    def piece(self, tensor: Tensor) -> Piece:
        """What this rank holds of a parameter, a buffer, or an optimizer's tensor."""
        if not isinstance(tensor, DTensor):
            return Piece(tensor, 0, tuple(tensor.shape), tuple(range(self.world)))
        mesh = tensor.device_mesh
        shards, place = mesh.size(-1), mesh.get_local_rank(mesh.ndim - 1)
        start = min(len(tensor), place * -(-len(tensor) // shards))  # as torch.chunk cuts
        holders = mesh.mesh.reshape(-1, shards)[:, place].tolist()
        return Piece(tensor.to_local(), start, tuple(tensor.shape), tuple(holders))

    @torch.no_grad()
    def load(self, target: Tensor, whole: Tensor) -> None:
        """Copies what this rank holds of `target` from the whole tensor."""
        piece = self.piece(target)
        piece.tensor.copy_(piece.rows_of(whole))


def check_strategy(strategy: Strategy, world: int, shard: int) -> None:
    """Raises ValueError if the strategy is not for so many ranks."""
    if strategy == "single" and world > 1:
        raise ValueError(f"compute.strategy (=single) is for one process, there are {world}: ddp, fsdp or hsdp")
    if strategy != "single" and world == 1:
        raise ValueError(
            f"compute.strategy (={strategy}) needs more than one process: raise compute.devices or compute.num_nodes, "
            "or set compute.strategy to single"
        )
    if strategy == "hsdp" and (shard < 2 or world % shard or shard == world):
        valid = [size for size in range(2, world) if world % size == 0]
        raise ValueError(
            f"compute.shard (={shard}) must divide the number of processes (={world}) under hsdp and leave at least "
            f"two copies; valid: {valid or 'none, use fsdp'}"
        )
