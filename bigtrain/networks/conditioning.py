"""How networks see the label."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bigtrain.networks.base import Discriminator, Generator
from bigtrain.networks.blocks import Kind
from bigtrain.networks.initialisers import Init, initialise, initialise_embedding
from bigtrain.networks.layers import LinearFromZero

Conditioning = Literal["projection", "concatenation", "classifier", "none"]

#: Length of the label's vector that is concatenated, as in the public code of Miyato and Koyama.
LABEL_DIM = 128


class OneHotGenerator(Generator):
    """A generator that sees its label one-hot, so that it can be shown mixtures of classes as well."""

    def embed_label(self, label: Tensor) -> Tensor:
        if not self.num_classes:
            return super().embed_label(label)
        if label.is_floating_point():
            return label
        return F.one_hot(label, self.num_classes).to(next(self.parameters()).dtype)


class SharedEmbeddingGenerator(OneHotGenerator):
    """A generator all of whose blocks see one embedding of the classes (arXiv 1809.11096, section 3).

    Without the embedding they see the classes one-hot.
    """

    shared: nn.Embedding | None

    def _initialise(self, init: Init) -> None:
        initialise(self, init)
        if self.shared is not None:
            initialise_embedding(self.shared, init)
        for module in self.modules():
            if isinstance(module, LinearFromZero):  # gains and biases without spectral norm; they do not start from 0
                initialise_embedding(module, init)

    def embed_label(self, label: Tensor) -> Tensor:
        if self.shared is None:
            return super().embed_label(label)
        return label if label.is_floating_point() else self.shared(label)

    def _seen_of(self, label: Tensor | None) -> list[Tensor]:
        """The vectors of the labels, or nothing without classes."""
        return [self.embed_label(self.needed_label(label))] if self.num_classes else []


class LabelledDiscriminator(Discriminator):
    """A discriminator of blocks, whose logit is linear in its last features, and what it does with the label.

    The ways are those that Miyato and Koyama compare (arXiv 1802.05637, figure 1): by `projection`, a vector of the
    label times the features is added to the logit; by `concatenation`, a vector of the label is put beside the features
    of each pixel after half of the blocks; a `classifier` is not told the label but says it, by logits that are linear
    in the features too. With `none` the label is not looked at, as without classes.

    Raises:
        ValueError: if there is no conditioning of that name.
    """

    logit: nn.Module
    projection: nn.Module | None
    label_vectors: nn.Module | None
    classifier: nn.Module | None

    def __init__(self, resolution: int, image_channels: int, num_classes: int, conditioning: Conditioning) -> None:
        super().__init__(resolution, image_channels, num_classes)
        if conditioning not in get_args(Conditioning):
            raise ValueError(f"conditioning (={conditioning!r}) must be one of {sorted(get_args(Conditioning))}")
        self.conditioning: Conditioning = conditioning if num_classes else "none"
        self.classifies = self.conditioning == "classifier"

    def _block_channels(self, channels: list[int]) -> list[tuple[int, int]]:
        """Channels that each block takes and gives, from those before the first block and after each."""
        self._label_at = (len(channels) - 1) // 2
        taken = channels[:-1]
        if self.conditioning == "concatenation":
            taken[self._label_at] += LABEL_DIM
        return list(zip(taken, channels[1:], strict=True))

    def _make_head(self, features: int, kind: Kind) -> None:
        """Makes the layers that see or say the label, and that gives the logit."""
        self.logit = kind.linear(features, 1)
        self.projection = self.label_vectors = self.classifier = None
        if self.conditioning == "projection":
            self.projection = kind.embedding(self.num_classes, features)
            if isinstance(self.projection, nn.Embedding):  # torch draws it from N(0, 1): it would drown the logit
                initialise_embedding(self.projection, "normal")
        elif self.conditioning == "concatenation":
            self.label_vectors = kind.embedding(self.num_classes, LABEL_DIM)
        elif self.classifies:
            self.classifier = kind.linear(features, self.num_classes)

    def _beside_label(self, index: int, x: Tensor, label: Tensor | None) -> Tensor:
        """What the block of that index takes: x [n, c, h, w], or [n, c + LABEL_DIM, h, w] where the label joins it."""
        if self.label_vectors is None or index != self._label_at:
            return x
        vector = self.label_vectors(self.needed_label(label))[:, :, None, None]  # [n, LABEL_DIM, 1, 1]
        return torch.cat((x, vector.expand(-1, -1, *x.shape[2:])), dim=1)

    def _logits(self, features: Tensor, label: Tensor | None) -> Tensor:
        """[n, features] → [n], or [n, 1 + num_classes] if it classifies."""
        if self.classifier is not None:
            return torch.cat((self.logit(features), self.classifier(features)), dim=1)
        logits = self.logit(features).squeeze(1)
        if self.projection is None:
            return logits
        return logits + (self.projection(self.needed_label(label)) * features).sum(dim=1)
