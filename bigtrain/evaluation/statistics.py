"""Sufficient statistics of samples, as sums: parts (batches, shards, ranks) merge by addition, in any order."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributed import all_reduce
from torchmetrics import Metric


def _all_reduced(sums: Tensor, group: object | None = None) -> list[Tensor]:
    """One all-reduce of a state. torchmetrics' own gather would hold `world_size` copies of it on every rank."""
    total = sums.clone()
    all_reduce(total, group=group)  # type: ignore[arg-type]
    return [total]


class Sums(Metric):
    """Float64 sums over samples. `merge_state` adds another part of the samples, `sync` those of all other ranks.

    Nothing synchronises by itself: a `compute` on one rank only must not wait for the others.
    """

    full_state_update = False

    def __init__(self) -> None:
        super().__init__(sync_on_compute=False)

    def add_sum(self, name: str, *shape: int) -> None:
        """Declares a state that starts at zero."""
        self.add_state(name, torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")

    def sums(self) -> dict[str, Tensor]:
        """The states by name, as they are stored."""
        return {name: getattr(self, name).cpu() for name in self.metric_state}

    def compute(self) -> dict[str, Tensor]:
        """The same, as torchmetrics wants it. Metrics read the states: it caches this value beyond `merge_state`."""
        return self.sums()

    def add_ranks(self) -> None:
        """Adds the sums of all ranks; every rank has to call it, and ends with the same sums."""
        self.sync(dist_sync_fn=_all_reduced)


class FeatureStatistics(Sums):
    """Count, sum and second moment of feature vectors, from which mean and covariance follow.

    Args:
        dim: length d of a feature vector.
        shift: float [d], close to the mean (say, that of the real features): the sums are of x - shift, so that the
            covariance is not the small difference of two large numbers. Parts to be merged must share it.
        ddof: of the covariance, which is the sum of squares over n - ddof. The sums are the same for each.
    """

    shift: Tensor
    count: Tensor
    total: Tensor
    outer: Tensor

    def __init__(self, dim: int, shift: Tensor | None = None, ddof: int = 1) -> None:
        super().__init__()
        self.dim, self.ddof = dim, ddof
        shift = torch.zeros(dim) if shift is None else shift.detach()
        self.register_buffer("shift", shift.to(torch.float64), persistent=False)
        self.add_sum("count")
        self.add_sum("total", dim)  # Σ (x - shift)
        self.add_sum("outer", dim, dim)  # Σ (x - shift)(x - shift)ᵀ

    def update(self, features: Tensor) -> None:
        """Adds features, float [n, d]."""
        centred = features.to(torch.float64) - self.shift
        self.count += len(features)
        self.total += centred.sum(dim=0)
        self.outer += centred.T @ centred

    def merge_state(self, incoming_state: dict[str, Tensor] | Metric) -> None:
        """Adds the sums of other samples.

        Raises:
            ValueError: if they were taken around another shift.
        """
        if isinstance(incoming_state, FeatureStatistics) and not torch.equal(incoming_state.shift, self.shift):
            raise ValueError("feature statistics with different shifts cannot be merged; give all parts the same shift")
        super().merge_state(incoming_state)

    @property
    def mean(self) -> Tensor:
        """Float64 [d]."""
        return self.shift + self.total / self.count

    @property
    def covariance(self) -> Tensor:
        """With `ddof` 1 the unbiased one, float64 [d, d].

        Raises:
            ValueError: if there are fewer than two samples.
        """
        if self.count < 2:
            raise ValueError(f"count (={int(self.count)}) of samples must be at least 2 for a covariance")
        return (self.outer - torch.outer(self.total, self.total) / self.count) / (self.count - self.ddof)


class SpatialStatistics(FeatureStatistics):
    """The same of spatial features."""

    def update(self, spatial: Tensor) -> None:
        """Adds spatial features, float [n, d]."""
        super().update(spatial)


class LogitStatistics(Sums):
    """What the Inception Score needs: count, Σ p and Σ p·log p of each split, where p = softmax(logits).

    Sample i of `num` belongs to split `i * splits // num`, so the splits are the same however the samples are spread
    over batches and ranks.

    Args:
        num: samples there will be.
        num_classes: length k of the logits.
        splits: parts of the samples whose scores are averaged; by convention 10.
    """

    count: Tensor
    marginal: Tensor
    negentropy: Tensor

    def __init__(self, num: int, num_classes: int, splits: int = 10) -> None:
        super().__init__()
        if not 1 <= splits <= num:
            raise ValueError(f"splits (={splits}) must be at least 1 and at most the number of samples (={num})")
        self.num, self.splits = num, splits
        self.add_sum("count", splits)
        self.add_sum("marginal", splits, num_classes)  # Σ p
        self.add_sum("negentropy", splits)  # Σ p·log p

    def update(self, logits: Tensor, indices: Tensor) -> None:
        """Adds logits, float [n, k], of the samples with these global indices, int64 [n]."""
        log_p = logits.to(torch.float64).log_softmax(dim=1)
        p = log_p.exp()
        split = torch.nn.functional.one_hot(indices * self.splits // self.num, self.splits).to(torch.float64)
        self.count += split.sum(dim=0)
        self.marginal += split.T @ p
        self.negentropy += split.T @ torch.special.entr(p).sum(dim=1).neg()


class RecognitionCount(Sums):
    """How many samples of each class a classifier recognises as the class that was asked for.

    Args:
        num_classes: length k of the logits.
    """

    count: Tensor
    recognised: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.add_sum("count", num_classes)
        self.add_sum("recognised", num_classes)

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Adds logits, float [n, k], of samples of these labels, int64 [n]."""
        right = logits.argmax(dim=1) == labels
        self.count += torch.bincount(labels, minlength=len(self.count))
        self.recognised += torch.bincount(labels[right], minlength=len(self.count))

    @property
    def fraction(self) -> Tensor:
        return self.recognised.sum() / self.count.sum()

    @property
    def per_class(self) -> Tensor:
        """The fraction of each class, [k]; NaN for one that there are no samples of."""
        return self.recognised / self.count


class DirectionStatistics(Sums):
    """Count and second moment of feature vectors scaled to length one, for the Vendi score.

    Args:
        dim: length d of a feature vector.
    """

    count: Tensor
    outer: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.add_sum("count")
        self.add_sum("outer", dim, dim)

    def update(self, features: Tensor) -> None:
        """Adds features, float [n, d]."""
        directions = torch.nn.functional.normalize(features.to(torch.float64), dim=1)
        self.count += len(features)
        self.outer += directions.T @ directions


class PosteriorStatistics(Sums):
    """Count, Σ p, Σ log p and Σ p·log p of the samples that the classifier takes for each class, p = softmax(logits).

    Args:
        num_classes: length k of the logits.
    """

    count: Tensor
    marginal: Tensor
    log_marginal: Tensor
    negentropy: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.add_sum("count", num_classes)
        self.add_sum("marginal", num_classes, num_classes)  # Σ p
        self.add_sum("log_marginal", num_classes, num_classes)  # Σ log p
        self.add_sum("negentropy", num_classes)  # Σ p·log p

    def update(self, logits: Tensor) -> None:
        """Adds logits, float [n, k]."""
        log_p = logits.to(torch.float64).log_softmax(dim=1)
        p = log_p.exp()
        taken_for = logits.argmax(dim=1)
        self.count += torch.bincount(taken_for, minlength=len(self.count))
        self.marginal.index_add_(0, taken_for, p)
        self.log_marginal.index_add_(0, taken_for, log_p)
        self.negentropy.index_add_(0, taken_for, torch.special.entr(p).sum(dim=1).neg())

    @property
    def mean_posterior(self) -> Tensor:
        """E p over all samples, float64 [k]."""
        return self.marginal.sum(dim=0) / self.count.sum()
