"""Adversarial losses: functions of logits, each with the discriminator's part and the generator's."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor
from torch.nn import functional as F


class Objective(ABC):
    """What the two players minimise. Logits are [n]; losses are means over the batch."""

    @abstractmethod
    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor: ...

    @abstractmethod
    def generator(self, fake_logits: Tensor) -> Tensor: ...


class NonSaturating(Objective):
    """Goodfellow et al., arXiv 1406.2661: -log σ(D(x)) - log(1 - σ(D(G(z)))), and -log σ(D(G(z))) for the generator."""

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()

    def generator(self, fake_logits: Tensor) -> Tensor:
        return F.softplus(-fake_logits).mean()


class Hinge(Objective):
    """Lim and Ye, arXiv 1705.02894: max(0, 1 - D(x)) + max(0, 1 + D(G(z))), and -D(G(z)) for the generator."""

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean()

    def generator(self, fake_logits: Tensor) -> Tensor:
        return -fake_logits.mean()


class Wasserstein(Objective):
    """Arjovsky et al., arXiv 1701.07875: D(G(z)) - D(x), and -D(G(z)) for the generator."""

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return fake_logits.mean() - real_logits.mean()

    def generator(self, fake_logits: Tensor) -> Tensor:
        return -fake_logits.mean()
