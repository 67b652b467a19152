"""Penalties: of the discriminator, functions of it and of the images it was shown; of any player, of its weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Shown:
    """What the discriminator was shown in a turn, and what it said."""

    real: Tensor  # [n, c, h, w] in [-1, 1]; the logits can be differentiated by it if a regularizer is `of_real_logits`
    fake: Tensor  # likewise, without a gradient
    real_logits: Tensor  # [n]
    fake_logits: Tensor  # [n]
    discriminate: Callable[[Tensor], Tensor]  # other images [k·n, c, h, w] → logits [k·n]: k a real image, side by side
    uniform: Callable[[], Tensor]  # [n, 1], uniform in (0, 1), addressed by the images' indices
    normal: Callable[[int], Tensor]  # so many numbers an image, [n, count], standard normal, likewise


class _Penalty:
    """What is added to a loss under a name, times a weight.

    Args:
        weight: what the penalty is multiplied with.
    """

    def __init__(self, weight: float) -> None:
        if weight < 0:
            raise ValueError(f"weight (={weight}) of {type(self).__name__} must not be negative")
        self.weight = weight

    @property
    def name(self) -> str:
        return type(self).__name__


class Regularizer(_Penalty, ABC):
    """A penalty that is added to the discriminator's loss.

    Attributes:
        of_real_logits: whether it differentiates the logits of the real images by the images.
        of_gradients: whether it is a function of gradients, so that its own gradient differentiates twice.
    """

    of_real_logits = False
    of_gradients = False

    @abstractmethod
    def __call__(self, shown: Shown) -> Tensor:
        """The weighted penalty, a scalar."""


class WeightRegularizer(_Penalty, ABC):
    """A penalty of a player's weights that is added to its loss, whichever player it is."""

    @abstractmethod
    def __call__(self, network: nn.Module) -> Tensor:
        """The weighted penalty of the weights that are trained, a scalar. It is given them whole."""


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

    of_gradients = True

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
    of_gradients = True

    def __init__(self, weight: float = 10.0) -> None:
        super().__init__(weight)

    def __call__(self, shown: Shown) -> Tensor:
        return self.weight / 2 * _gradient(shown.real_logits, shown.real).square().sum(dim=1).mean()


class ApproximateR1(Regularizer):
    """R1 without differentiating twice: γ/2 · E ((D(x) - D(x + σε)) / σ)², ε ~ N(0, 1); `weight` is γ.

    After Lin et al., arXiv 2501.08316. The expectation over ε tends to R1's ‖∇D(x)‖² as σ → 0. Both logits are of one
    pass, with each image beside its neighbour: so spectral norms are the same for both, and groups of images that are
    looked at together consist of the same images. Otherwise the difference would not vanish with σ.

    Args:
        weight: γ of R1.
        sigma: σ, in units of the images, which lie in [-1, 1].
    """

    def __init__(self, weight: float = 10.0, sigma: float = 0.01) -> None:
        super().__init__(weight)
        if sigma <= 0:
            raise ValueError(f"sigma (={sigma}) of ApproximateR1 must be greater than 0")
        self.sigma = sigma

    def __call__(self, shown: Shown) -> Tensor:
        real = shown.real.detach()
        near = real + self.sigma * shown.normal(real[0].numel()).reshape(real.shape)
        logits = shown.discriminate(torch.stack((real, near), dim=1).flatten(0, 1))  # [n · 2]
        here, there = logits.reshape(-1, 2).unbind(1)
        return self.weight / 2 * ((here - there) / self.sigma).square().mean()


class Drift(Regularizer):
    """Karras et al., arXiv 1710.10196, appendix A.1: weight · E D(x)², so that the critic does not drift away."""

    def __init__(self, weight: float = 1e-3) -> None:
        super().__init__(weight)

    def __call__(self, shown: Shown) -> Tensor:
        return self.weight * shown.real_logits.square().mean()


class OrthogonalReg(WeightRegularizer):
    """Brock et al., arXiv 1809.11096, equation 3: β‖WᵀW ⊙ (1 - I)‖²_F, summed over the layers; `weight` is β.

    A column of W is a filter: what makes one output channel, flat. So it punishes filters that are alike, and leaves
    their lengths alone. Its gradient is 4β W(WᵀW ⊙ (1 - I)). The authors' PyTorch code adds half of that: its 1e-4 is
    5e-5 here. As there, W are all parameters of two or more dimensions, except tables of vectors without spectral norm
    (`nn.Embedding`), and are taken as they are stored, before spectral norm.

    Args:
        weight: β, 1e-4 in the paper.
    """

    def __init__(self, weight: float = 1e-4) -> None:
        super().__init__(weight)

    def __call__(self, network: nn.Module) -> Tensor:
        tables = {id(module.weight) for module in network.modules() if isinstance(module, nn.Embedding)}
        weights = [p for p in network.parameters() if p.ndim > 1 and p.requires_grad and id(p) not in tables]
        device = next(network.parameters()).device.type
        # in the weights' own precision, as squares of squares need it
        with torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext():
            return self.weight * torch.stack([_likeness(weight.flatten(1)) for weight in weights]).sum()


def _likeness(filters: Tensor) -> Tensor:
    """Squared inner products of all pairs of different filters [n, m], which are the rows here, summed.

    The sum over all pairs is that of the smaller of both products of the matrix with itself: a first dense layer has
    tens of thousands of filters of a few numbers each.
    """
    if len(filters) <= filters.shape[1]:
        products = filters @ filters.T  # [n, n]
        return (products - torch.diag(products.diagonal())).square().sum()
    lengths = filters.square().sum(dim=1)  # squared, [n]
    return (filters.T @ filters).square().sum() - lengths.square().sum()
