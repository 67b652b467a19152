"""A player: one network and how it is updated. A game only decides whose turn it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from bigtrain import randomness
from bigtrain.games.loss_scale import LossScale
from bigtrain.networks.base import Network
from bigtrain.networks.layers import drive_spectral_norms
from bigtrain.regularizers import WeightRegularizer
from bigtrain.runtime.parallel import Parallel, Piece, Spread, local
from bigtrain.schedules import ConstantRate, LearningRate, Moment

T = TypeVar("T")
#: Of one path through a compiled network: with and without gradients, of other batches, fading or not.
VARIANTS = 32
#: Optimizers that treat every number of a weight alike, so that shards of it may be updated one by one.
ELEMENTWISE = (
    torch.optim.Adam,
    torch.optim.AdamW,
    torch.optim.NAdam,
    torch.optim.RAdam,
    torch.optim.Adamax,
    torch.optim.Adadelta,
    torch.optim.Adagrad,
    torch.optim.RMSprop,
    torch.optim.SGD,
)


class NonFiniteError(FloatingPointError):
    """A loss or a gradient that is not finite. It stops training before it can reach the weights."""


class Player(nn.Module):
    """One network, its optimizer, its learning rate, its clipping, and how it is spread over the ranks.

    Args:
        network: makes the network (in a configuration: its `class_path` and `init_args`).
        optimizer: makes the optimizer of the parameters.
        learning_rate: factor of the optimizer's learning rate in the course of training.
        max_grad_norm: gradients of a larger norm are scaled down to it; null for no clipping.
        reset_optimizer: whether the optimizer forgets its state at each new resolution (Progressive GAN's code does).
        channels_last: whether the weights of convolutions, and so the activations, have the channels innermost.
        compile: whether torch compiles the network, when it is first used.
        recompute: whether the blocks' activations are computed again in backward instead of being kept.
        weight_regularizers: penalties of the network's weights; null for none.
        power_iterations: by which its spectral norms' vectors move on in each turn in which it is used.

    Attributes:
        loss_scale: for float16; None for no scale.
    """

    network: Network
    optimizer: torch.optim.Optimizer
    spread: Spread
    parallel: Parallel
    name: str

    def __init__(
        self,
        network: Callable[[], Network],
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
        learning_rate: LearningRate | None = None,
        max_grad_norm: float | None = None,
        reset_optimizer: bool = False,
        channels_last: bool = False,
        compile: bool = False,
        recompute: bool = False,
        weight_regularizers: list[WeightRegularizer] | None = None,
        power_iterations: int = 1,
    ) -> None:
        super().__init__()
        if power_iterations < 1:
            raise ValueError(f"power_iterations (={power_iterations}) must be at least 1")
        if max_grad_norm is not None and max_grad_norm <= 0:
            raise ValueError(f"max_grad_norm (={max_grad_norm}) must be greater than 0, or null")
        if compile and recompute:
            raise ValueError("recompute (=true) is not for a compiled network: set recompute or compile to false")
        self._make_network, self._make_optimizer = network, optimizer
        self.learning_rate = learning_rate or ConstantRate()
        self.max_grad_norm, self.reset_optimizer = max_grad_norm, reset_optimizer
        self.channels_last, self.is_compiled, self.recompute = channels_last, compile, recompute
        self.weight_regularizers = weight_regularizers or []
        self.power_iterations, self._advanced = power_iterations, False
        self.loss_scale: LossScale | None = None

    def build(self, seed: int, name: str) -> None:
        """Makes the network with weights addressed by (seed, name), and its optimizer, for this process alone."""
        with randomness.seeded(seed, "init", name):
            self.network = self._make_network()
        self.network.recompute = self.recompute
        self._spectral_norms = drive_spectral_norms(self.network)
        if self.is_compiled:
            self.network.compile()  # in place: the names of the weights stay
            torch._dynamo.config.recompile_limit = max(VARIANTS, torch._dynamo.config.recompile_limit)
        self.name = name
        self.spread_over(Parallel(device=next(self.network.parameters()).device))  # where it was made

    def spread_over(self, parallel: Parallel) -> None:
        """Puts the network where the strategy wants it, with an optimizer that has no state yet."""
        if self.channels_last:
            if parallel.is_sharded:
                raise ValueError(
                    f"{self.name}.channels_last (=true) is not for {parallel.strategy}, which takes contiguous weights "
                    "only: set it to false, or compute.strategy to ddp"
                )
            self.network.to(memory_format=torch.channels_last)
        self.parallel, self.spread = parallel, parallel.spread(self.network.to(parallel.device))
        self._leaves = self.spread.leaves()
        self.optimizer = self._make_optimizer(self._leaves)
        if parallel.is_sharded and not isinstance(self.optimizer, ELEMENTWISE):
            raise ValueError(
                f"{self.name}.optimizer (={type(self.optimizer).__name__}) looks at whole weights, but under "
                f"{parallel.strategy} a process has shards; use {', '.join(kind.__name__ for kind in ELEMENTWISE)}"
            )
        self._base_rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        self._active: tuple[int, bool] | None = None

    def run(self, synchronize: bool, function: Callable[..., T], *arguments: Any) -> T:
        """Calls what computes this player's loss, or images that another's loss is of, before one backward.

        Args:
            synchronize: whether that backward is the last before `step`.
            function: uses the network as it likes.
            arguments: of the function.
        """
        return self.spread.run(synchronize, function, *arguments)

    def begin_turn(self) -> None:
        """Lets the spectral norms move on once more."""
        self._advanced = False

    def advance(self) -> None:
        """Moves the spectral norms on at its first call in a turn: where the weights are whole, before they are used.

        So the passes of a turn (real and fake, parts of the batch, penalties) all see the same network.
        """
        if not self._advanced:
            for layer in self._spectral_norms:
                layer.advance(self.power_iterations)
            self._advanced = True

    def penalties(self) -> dict[str, Tensor]:
        """What is added to the player's loss for its weights, by name: inside of `run`, where they are whole."""
        return {regularizer.name: regularizer(self.network) for regularizer in self.weight_regularizers}

    def whole(self) -> AbstractContextManager[None]:
        """A block in which the network may be used without gradients of its weights."""
        return self.spread.whole()

    def prepare(self, moment: Moment, total_images: int, rate_factor: float = 1.0) -> None:
        """What holds for the step that begins at that moment: the active path and the learning rate, times a factor."""
        place = (moment.resolution, moment.phase.kind == "transition")
        if place != self._active:
            self.network.activate(*place)
            self.spread.rewrap()
            if self.is_compiled:
                torch.compiler.reset()  # what was compiled is for the path before
            self._active = place
        if self.reset_optimizer and moment.first_of_resolution:
            self.optimizer.state.clear()
        factor = self.learning_rate.factor(moment, total_images)
        for group, base in zip(self.optimizer.param_groups, self._base_rates, strict=True):
            group["lr"] = base * factor * rate_factor

    def scaled(self, loss: Tensor) -> Tensor:
        """What backward is called on for that loss."""
        return loss if self.loss_scale is None else loss * self.loss_scale.value

    def step(self, loss: Tensor, images_seen: int) -> Tensor:
        """Updates the network with the gradients that are there, of the scaled loss, and forgets them.

        Args:
            loss: of this turn, not scaled, for the check alone.
            images_seen: for the message.

        Returns:
            the norm of the gradients before clipping; 0 if the loss scale was too large and the update was skipped.

        Raises:
            NonFiniteError: before the update, if the loss or the norm is not finite and a smaller scale cannot help.
        """
        gradients = self._take_gradients()
        if self.loss_scale is not None:
            torch._foreach_mul_(gradients, 1 / self.loss_scale.value)
        norm = self.spread.norm(gradients)
        if torch.isfinite(loss + norm):
            self._update(gradients, norm)
        elif self.loss_scale is not None and self.loss_scale.value > 1 and torch.isfinite(loss):
            self.loss_scale.shrink()
            norm = torch.zeros_like(norm)
        else:
            raise NonFiniteError(
                f"{self.name}: loss {float(loss):g}, gradient norm {float(norm):g} at {images_seen / 1000:g} kimg"
            )
        self.optimizer.zero_grad(set_to_none=True)
        self.network.zero_grad(set_to_none=True)
        return norm

    def _update(self, gradients: list[Tensor], norm: Tensor) -> None:
        if self.max_grad_norm is not None:
            torch._foreach_mul_(gradients, (self.max_grad_norm / (norm + 1e-6)).clamp(max=1.0))
        self.optimizer.step()
        if self.loss_scale is not None:
            self.loss_scale.grow()

    def scaling(self, turn: str) -> dict[str, Tensor]:
        """Of the loss scale, if there is one: how large it is, and how many updates were skipped so far."""
        if self.loss_scale is None:
            return {}
        values = {"loss_scale": self.loss_scale.value, "skipped": float(self.loss_scale.skipped)}
        return {f"{name}_{turn}": torch.tensor(value, device=self.parallel.device) for name, value in values.items()}

    def _take_gradients(self) -> list[Tensor]:
        """Hands the gradients to the optimizer's leaves, and returns those that there are."""
        gradients = []
        for parameter, leaf in zip(self.network.parameters(), self._leaves, strict=True):
            leaf.grad = None if parameter.grad is None else local(parameter.grad)
            if leaf.grad is not None:
                gradients.append(leaf.grad)
        return gradients

    def optimizer_pieces(self) -> dict[str, Piece]:
        """What this rank holds of the optimizer's state, as `parameter name/entry`; numbers become tensors.

        A loss scale is there as `loss_scale/entry`.
        """
        scale = {} if self.loss_scale is None else self.loss_scale.state()
        pieces = {f"loss_scale/{entry}": self.parallel.piece(value) for entry, value in scale.items()}
        for (name, parameter), leaf in zip(self.network.named_parameters(), self._leaves, strict=True):
            held = self.parallel.piece(parameter)
            for entry, value in self.optimizer.state.get(leaf, {}).items():
                tensor = torch.as_tensor(value)
                same = tensor.shape == leaf.shape
                pieces[f"{name}/{entry}"] = replace(held, tensor=tensor) if same else self.parallel.piece(tensor)
        return pieces

    def load_optimizer(self, tensors: Mapping[str, Tensor], prefix: str) -> None:
        """The reverse of `optimizer_pieces`, from those whole tensors whose names have the prefix."""
        self.optimizer.state.clear()
        if self.loss_scale is not None:
            self.loss_scale.load(tensors, f"{prefix}loss_scale/")
        leaves = {
            name: (self.parallel.piece(parameter), leaf)
            for (name, parameter), leaf in zip(self.network.named_parameters(), self._leaves, strict=True)
        }
        on_device = {id(p) for g in self.optimizer.param_groups if _numbers_on_device(g) for p in g["params"]}
        for key in tensors:
            if not key.startswith(prefix) or key.startswith(f"{prefix}loss_scale/"):
                continue
            name, entry = key.removeprefix(prefix).rsplit("/", 1)
            (held, leaf), value = leaves[name], tensors[key]
            if value.shape == held.shape:  # laid out as the parameter is
                mine = torch.empty_like(leaf, dtype=value.dtype, requires_grad=False).copy_(held.rows_of(value))
            else:  # torch keeps the count of steps on the host, unless it is told otherwise
                mine = value.to(leaf.device if id(leaf) in on_device else "cpu", copy=True)
            self.optimizer.state[leaf][entry] = mine


def _numbers_on_device(group: dict[str, object]) -> bool:
    """Whether torch keeps the counts of steps of these parameters beside them, rather than on the host."""
    return bool(group.get("fused") or group.get("capturable"))
