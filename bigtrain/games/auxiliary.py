"""Conditioning by an auxiliary classifier: AC-GAN (Odena et al., arXiv 1610.09585), for any objective."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from bigtrain.games.adversarial import AdversarialGame
from bigtrain.games.checks import check_classifier_weights
from bigtrain.games.player import Player
from bigtrain.objectives import Objective
from bigtrain.regularizers import Regularizer
from bigtrain.schedules import Moment, Schedule


class AuxiliaryClassifierGame(AdversarialGame):
    """The discriminator also says which class it sees; the generator wants its fakes to be taken for theirs.

    With L_S the objective and L_C(x, y) = -log P(y | x) the cross-entropy of the class (section 3):
    the discriminator minimises L_S + real_weight · E L_C(x, y) + fake_weight · E L_C(G(z, y'), y'),
    and the generator its own L_S + generator_weight · E L_C(G(z, y'), y').
    All weights are 1 in the paper and in Progressive GAN's code; others teach the classifier by real images alone.
    Penalties of the discriminator are of the logit of real against fake.

    Args:
        generator: the player that makes images.
        discriminator: the player that tells them from real ones, and which class they are of.
        objective: what both minimise.
        schedule: resolution, alpha and batch size in the course of training (set by the configuration's `schedule`).
        real_weight: of the discriminator's cross-entropy on real images,
        fake_weight: and on fakes.
        generator_weight: of the generator's cross-entropy.
        regularizers: penalties of the discriminator.
        accumulation: each batch is played in so many equal parts, whose gradients are averaged.
        joint_pass: whether real and fake images go through the discriminator in one batch (BigGAN) or two.
        fake_labels: labels of the fakes in D turns: `drawn` from the classes' frequencies, or those of the `real` ones.
        ema_half_life_kimg: of the average of the generator.
        ema_start_kimg: the average is a copy before that.
        seed: of everything random (set by the configuration's `seed`).
        class_counts: images of each class in the data, the frequencies of drawn labels (set by the data).
    """

    classifies = True

    def __init__(
        self,
        generator: Player,
        discriminator: Player,
        objective: Objective,
        schedule: Schedule,
        real_weight: float = 1.0,
        fake_weight: float = 1.0,
        generator_weight: float = 1.0,
        regularizers: list[Regularizer] = [],  # noqa: B006 (read only)
        accumulation: int = 1,
        joint_pass: bool = False,
        fake_labels: Literal["drawn", "real"] = "drawn",
        ema_half_life_kimg: float = 10.0,
        ema_start_kimg: float = 0.0,
        seed: int = 0,
        class_counts: list[int] | None = None,
    ) -> None:
        check_classifier_weights(real_weight, fake_weight, generator_weight)
        super().__init__(
            generator,
            discriminator,
            objective,
            schedule,
            regularizers,
            accumulation,
            joint_pass,
            fake_labels,
            ema_half_life_kimg,
            ema_start_kimg,
            seed,
            class_counts,
        )
        self.real_weight, self.fake_weight, self.generator_weight = real_weight, fake_weight, generator_weight

    def logits(self, verdict: Tensor) -> Tensor:
        """Of real against fake [n], in a verdict [n, 1 + num_classes]."""
        return verdict[:, 0]

    def class_losses(self, of_real: Tensor, label: Tensor, of_fake: Tensor, fake_label: Tensor) -> dict[str, Tensor]:
        """L_C of both; how often the classifier is right is measured beside it."""
        self.measure(**{"accuracy/real": _right(of_real, label), "accuracy/fake": _right(of_fake, fake_label)})
        return {
            "classifier_real": self.real_weight * _cross_entropy(of_real, label),
            "classifier_fake": self.fake_weight * _cross_entropy(of_fake, fake_label),
        }

    def generator_loss(self, moment: Moment, fake: Tensor, label: Tensor) -> Tensor:
        verdict = self.discriminate(moment, fake, label)
        losses = {
            "adversarial": self.objective.generator(self.logits(verdict)),
            "classifier": self.generator_weight * _cross_entropy(verdict, label),
        }
        self.measure(**{f"loss_g/{name}": value for name, value in losses.items()})
        return losses["adversarial"] + losses["classifier"]


def _cross_entropy(verdict: Tensor, label: Tensor) -> Tensor:
    """L_C of verdicts [n, 1 + num_classes]: the mean of -log P(label)."""
    return F.cross_entropy(verdict[:, 1:], label)


def _right(verdict: Tensor, label: Tensor) -> Tensor:
    """1 for each image whose likeliest class is its label, [n]."""
    return (verdict[:, 1:].argmax(dim=1) == label).to(verdict)
