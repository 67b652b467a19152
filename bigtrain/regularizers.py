"""Penalties of the discriminator: functions of it and of the images it was shown."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Shown:
    """What the discriminator was shown in a turn, and what it said."""

    real: Tensor  # [n, c, h, w] in [-1, 1]; the logits can be differentiated by it if a regularizer is `of_real_logits`
    fake: Tensor  # likewise, without a gradient
    real_logits: Tensor  # [n]
    fake_logits: Tensor  # [n]
    discriminate: Callable[[Tensor], Tensor]  # other images [n, c, h, w] → logits [n], given the labels of the reals
    uniform: Callable[[], Tensor]  # [n, 1], uniform in (0, 1), addressed by the images' indices


class Regularizer(ABC):
    """A penalty that is added to the discriminator's loss.

    Args:
        weight: what the penalty is multiplied with.

    Attributes:
        of_real_logits: whether it differentiates the logits of the real images by the images.
    """

    of_real_logits = False

    def __init__(self, weight: float) -> None:
        if weight < 0:
            raise ValueError(f"weight (={weight}) of {type(self).__name__} must not be negative")
        self.weight = weight

    @property
    def name(self) -> str:
        return type(self).__name__

    @abstractmethod
    def __call__(self, shown: Shown) -> Tensor:
        """The weighted penalty, a scalar."""


def _gradient(logits: Tensor, images: Tensor) -> Tensor:
    """Each image's gradient of its logit, flat [n, c·h·w], differentiable again."""
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.flatten(1)


class GradientPenalty(Regularizer):
    """Gulrajani et al., arXiv 1704.00028, equation 3: weight · E ((‖∇D(x̂)‖ - target) / target)², x̂ between x and G(z).

    Args:
        weight: λ, 10 in the paper.
        target: norm that is aimed at; 1 in the paper, 750 in Progressive GAN's CIFAR-10 run.
    """

    def __init__(self, weight: float = 10.0, target: float = 1.0) -> None:
        super().__init__(weight)
        if target <= 0:
            raise ValueError(f"target (={target}) of GradientPenalty must be greater than 0")
        self.target = target

    def __call__(self, shown: Shown) -> Tensor:
        mix = shown.uniform().reshape(-1, 1, 1, 1)
        between = torch.lerp(shown.real, shown.fake, mix).detach().requires_grad_(True)
        norm = _gradient(shown.discriminate(between), between).norm(dim=1)
        return self.weight * ((norm - self.target) / self.target).square().mean()


class R1(Regularizer):
    """Mescheder et al., arXiv 1801.04406, equation 9: γ/2 · E ‖∇D(x)‖² on the reals; `weight` is γ.

    It takes the gradient of the pass that the loss uses, not of one of its own.
    """

    of_real_logits = True

    def __init__(self, weight: float = 10.0) -> None:
        super().__init__(weight)

    def __call__(self, shown: Shown) -> Tensor:
        return self.weight / 2 * _gradient(shown.real_logits, shown.real).square().sum(dim=1).mean()


class Drift(Regularizer):
    """Karras et al., arXiv 1710.10196, appendix A.1: weight · E D(x)², so that the critic does not drift away."""

    def __init__(self, weight: float = 1e-3) -> None:
        super().__init__(weight)

    def __call__(self, shown: Shown) -> Tensor:
        return self.weight * shown.real_logits.square().mean()
