"""A player: one network and how it is updated. A game only decides whose turn it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from bigtrain import randomness
from bigtrain.networks.base import Network
from bigtrain.schedules import ConstantRate, LearningRate, Moment


class NonFiniteError(FloatingPointError):
    """A loss or a gradient that is not finite. It stops training before it can reach the weights."""


class Player(nn.Module):
    """One network, its optimizer, its learning rate and its clipping.

    Args:
        network: makes the network (in a configuration: its `class_path` and `init_args`).
        optimizer: makes the optimizer of the parameters.
        learning_rate: factor of the optimizer's learning rate in the course of training.
        max_grad_norm: gradients of a larger norm are scaled down to it; null for no clipping.
        reset_optimizer: whether the optimizer forgets its state at each new resolution (Progressive GAN's code does).
    """

    network: Network
    optimizer: torch.optim.Optimizer
    name: str

    def __init__(
        self,
        network: Callable[[], Network],
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
        learning_rate: LearningRate | None = None,
        max_grad_norm: float | None = None,
        reset_optimizer: bool = False,
    ) -> None:
        super().__init__()
        if max_grad_norm is not None and max_grad_norm <= 0:
            raise ValueError(f"max_grad_norm (={max_grad_norm}) must be greater than 0, or null")
        self._make_network, self._make_optimizer = network, optimizer
        self.learning_rate = learning_rate or ConstantRate()
        self.max_grad_norm, self.reset_optimizer = max_grad_norm, reset_optimizer

    def build(self, seed: int, name: str) -> None:
        """Makes the network with weights addressed by (seed, name), and its optimizer."""
        with randomness.seeded(seed, "init", name):
            self.network = self._make_network()
        self.optimizer = self._make_optimizer(self.network.parameters())
        self._base_rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        self.name = name
        self._active: tuple[int, bool] | None = None

    def forward(self, *arguments: Any, **options: Any) -> Tensor:
        return self.network(*arguments, **options)

    def prepare(self, moment: Moment, total_images: int) -> None:
        """What holds for the step that begins at that moment: the active path and the learning rate."""
        place = (moment.resolution, moment.phase.kind == "transition")
        if place != self._active:
            self.network.activate(*place)
            self._active = place
        if self.reset_optimizer and moment.first_of_resolution:
            self.optimizer.state.clear()
        factor = self.learning_rate.factor(moment, total_images)
        for group, base in zip(self.optimizer.param_groups, self._base_rates, strict=True):
            group["lr"] = base * factor

    def step(self, loss: Tensor, images_seen: int) -> Tensor:
        """Updates the network with the gradients that are there, and forgets them.

        Args:
            loss: of this turn, for the check alone.
            images_seen: for the message.

        Returns:
            the norm of the gradients before clipping.

        Raises:
            NonFiniteError: before the update, if the loss or the norm is not finite.
        """
        parameters = [p for p in self.network.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None], foreach=True)
        if not torch.isfinite(loss + norm):
            raise NonFiniteError(
                f"{self.name}: loss {float(loss):g}, gradient norm {float(norm):g} at {images_seen / 1000:g} kimg"
            )
        if self.max_grad_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, self.max_grad_norm, norm, foreach=True)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def optimizer_tensors(self) -> dict[str, Tensor]:
        """The optimizer's state as `parameter name/entry`; numbers become tensors."""
        names = {id(p): name for name, p in self.network.named_parameters()}
        return {
            f"{names[id(parameter)]}/{entry}": torch.as_tensor(value)
            for parameter, state in self.optimizer.state.items()
            for entry, value in state.items()
        }

    def load_optimizer_tensors(self, tensors: dict[str, Tensor]) -> None:
        """The reverse of `optimizer_tensors`; parameters without an entry have no state yet."""
        self.optimizer.state.clear()
        parameters = dict(self.network.named_parameters())
        for key, value in tensors.items():
            name, entry = key.rsplit("/", 1)
            parameter = parameters[name]
            device = parameter.device if value.ndim else value.device  # as torch keeps the count of steps
            self.optimizer.state[parameter][entry] = value.to(device, copy=True)
