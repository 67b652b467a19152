"""The table of metrics: what each is computed from, what it needs, and how."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from torch import Tensor

from bigtrain.evaluation import metrics
from bigtrain.evaluation.conventions import TF1, Conventions
from bigtrain.evaluation.extractors import Extractor
from bigtrain.evaluation.metrics.classification import classification_accuracy
from bigtrain.evaluation.metrics.path_length import PATH_METRICS
from bigtrain.evaluation.reference import REAL_FEATURES, REAL_IMAGES, Labelled, Reference

#: MiFID takes a set whose mean distance is at least this for new (torchmetrics and the Kaggle competition).
COSINE_THRESHOLD = 0.1
#: Statistics that keep samples, and the part of the reference that they are compared with.
KEPT_PARTS = {"kept": REAL_FEATURES, "images": REAL_IMAGES}


class Result(NamedTuple):
    """A metric's value, its deviation, and the values of each class (None for one without samples)."""

    value: float
    std: float | None = None
    per_class: list[float | None] | None = None


@dataclass(frozen=True, eq=False)
class Gathered:
    """The statistics of all fakes by name, what is known of the reals, and what several metrics share of both."""

    statistics: Mapping[str, Any]
    known: Reference | None
    extractor: Extractor
    conventions: Conventions = TF1

    @property
    def reference(self) -> Reference:
        assert self.known is not None
        return self.known

    @property
    def posterior(self) -> Tensor:
        """Mean p(y|x) of the reals."""
        assert self.reference.posterior is not None
        return self.reference.posterior

    @property
    def fake(self) -> Tensor:
        return self.statistics["kept"].rows

    def _reals(self, statistic: str) -> Labelled:
        return self.reference.kept if statistic == "kept" else self.reference.images

    @cached_property
    def pairs(self) -> metrics.Pairs:
        """Features of reals and fakes, on the extractor's device."""
        device = self.extractor.device
        return metrics.Pairs(self.reference.kept.rows.to(device), self.fake.to(device), self.conventions.strict)

    @cached_property
    def precision_recall(self) -> tuple[float, float]:
        return metrics.precision_recall(self.pairs, self.conventions.neighbours)

    def settings(self, metric: Metric) -> str | None:
        """What else fixes the metric, with its numbers."""
        ball = "<" if self.conventions.strict else "<="
        return metric.settings and metric.settings.format(neighbours=self.conventions.neighbours, ball=ball)

    @cached_property
    def fid(self) -> float:
        reference = self.reference
        return metrics.frechet_distance(reference.features, self.statistics["features"], reference.root)

    def counts(self, statistic: str, num: int) -> tuple[int, int | None]:
        """Fakes and reals that a metric of this statistic looks at, of `num` fakes."""
        if statistic in KEPT_PARTS:
            compared = self.known is not None and KEPT_PARTS[statistic] in self.known.load
            return len(self.statistics[statistic].rows), len(self._reals(statistic).rows) if compared else None
        return num, None if self.known is None else self.known.num_real


@dataclass(frozen=True)
class Metric:
    """How a metric is had.

    Attributes:
        statistics: names of STATISTICS (evaluate.py); the first says of how many samples the value is.
        value: of what was gathered.
        needs: of NEEDS (evaluate.py).
        settings: what else fixes the number, in words, for the protocol; see `Gathered.settings`.
        least: samples below which there is no such number.
    """

    statistics: tuple[str, ...]
    value: Callable[[Gathered], Result]
    needs: tuple[str, ...] = ()
    settings: str | None = None
    least: int = 2


def _spatial_frechet(gathered: Gathered) -> Result:
    reference = gathered.reference
    assert reference.spatial is not None
    return Result(metrics.frechet_distance(reference.spatial, gathered.statistics["spatial"], reference.spatial_root))


def _frechet_of_classes(gathered: Gathered) -> Result:
    fakes, reals = gathered.statistics["kept"], gathered.reference.kept
    classes = len(gathered.reference.class_counts)
    each = metrics.frechet_distances_of_classes(
        reals.rows, reals.labels, fakes.rows, fakes.labels, classes, gathered.conventions.ddof
    )
    return _mean_of_classes(each)


def _mean_of_classes(each: list[float | None]) -> Result:
    there = [value for value in each if value is not None]
    if not there:
        raise ValueError("intra_fid needs two samples and two real images of at least one class; take a larger num")
    return Result(sum(there) / len(there), None, each)


def _mifid(gathered: Gathered) -> Result:
    """FID over the memorization distance, where that is below the threshold."""
    distance = metrics.memorization_distance(gathered.pairs)
    return Result(gathered.fid / (max(distance, 1e-14) if distance < COSINE_THRESHOLD else 1))


def _frechet_infinity(gathered: Gathered) -> Result:
    reference = gathered.reference
    return Result(metrics.frechet_infinity(reference.features, gathered.fake, reference.root))


def _recognition(gathered: Gathered) -> Result:
    counts = gathered.statistics["recognition"]
    return Result(float(counts.fraction), None, _known(counts.per_class))


def _known(values: Tensor) -> list[float | None]:
    return [None if value != value else value for value in values.tolist()]  # noqa: PLR0124 (NaN)


def _classification(gathered: Gathered) -> Result:
    fakes, reals = gathered.statistics["images"], gathered.reference.images
    classes = len(gathered.reference.class_counts)
    counts = classification_accuracy(
        fakes.rows.cpu(), fakes.labels.cpu(), reals.rows, reals.labels, classes, gathered.extractor.device
    )
    return Result(float(counts.fraction), None, _known(counts.per_class))


def _similarity(gathered: Gathered) -> Result:
    kept = gathered.statistics["images"]
    value, each = metrics.ms_ssim_diversity(kept.rows, kept.labels)
    return Result(value, None, each if kept.labels.any() else None)


def _wasserstein(gathered: Gathered) -> Result:
    fake, real = gathered.statistics["images"].rows, gathered.reference.images.rows
    if fake.shape[1:] != real.shape[1:]:
        raise ValueError(f"swd compares images of one shape; fakes are {list(fake.shape[1:])}, reals {real.shape[1:]}")
    return Result(metrics.sliced_wasserstein(real[:SWD_IMAGES], fake[:SWD_IMAGES]))


def _modes(gathered: Gathered) -> Result:
    counts = gathered.statistics["posteriors"].count
    return Result(float((counts > 0).sum()), None, (counts / counts.sum()).tolist())


def _mode_divergence(gathered: Gathered) -> Result:
    return Result(metrics.mode_divergence(gathered.statistics["posteriors"].count, gathered.reference.class_counts))


def _modified_inception(gathered: Gathered) -> Result:
    value, each = metrics.modified_inception_scores(gathered.statistics["posteriors"])
    return Result(value, None, each)


def _of_pairs(function: Callable[[metrics.Pairs], float]) -> Callable[[Gathered], Result]:
    return lambda gathered: Result(function(gathered.pairs))


def _of_features(function: Callable[[Tensor, Tensor], Any]) -> Callable[[Gathered], Result]:
    def value(gathered: Gathered) -> Result:
        found = function(gathered.pairs.real, gathered.pairs.fake)
        return Result(*found) if isinstance(found, tuple) else Result(found)

    return value


SWD_IMAGES = 4096
_PAIRS, _PIXELS = ("reference", REAL_FEATURES), ("reference", REAL_IMAGES)
_POSTERIOR = ("reference", "logits", "posterior")
_BALLS = "k {neighbours}, {ball}"

METRICS = {
    # sums
    "fid": Metric(("features",), lambda gathered: Result(gathered.fid), ("reference",)),
    "sfid": Metric(("spatial",), _spatial_frechet, ("reference", "spatial")),
    "is": Metric(
        ("logits",), lambda gathered: Result(*metrics.inception_score(gathered.statistics["logits"])), ("logits",)
    ),
    "mode_score": Metric(
        ("posteriors",),
        lambda gathered: Result(metrics.mode_score(gathered.statistics["posteriors"], gathered.posterior)),
        _POSTERIOR,
    ),
    "am": Metric(
        ("posteriors",),
        lambda gathered: Result(metrics.am_score(gathered.statistics["posteriors"], gathered.posterior)),
        _POSTERIOR,
    ),
    "mis": Metric(("posteriors",), _modified_inception, ("logits",), "classes as predicted, their mean"),
    "modes": Metric(("posteriors",), _modes, ("logits", "classifier"), "classes with a sample; each class's share"),
    "modes_kl": Metric(("posteriors",), _mode_divergence, ("reference", "logits", "classifier", "real_labels")),
    "recognition": Metric(("recognition",), _recognition, ("logits", "classifier", "labels")),
    "vendi": Metric(
        ("directions",),
        lambda gathered: Result(metrics.vendi_score(gathered.statistics["directions"])),
        settings="cosine kernel",
    ),
    # kept features
    "kid": Metric(
        ("kept",), _of_features(metrics.kernel_distance), _PAIRS, "100 subsets of at most 1000, seed 0; std ddof 0"
    ),
    "kid_all": Metric(("kept",), _of_features(metrics.kernel_distance_of_all), _PAIRS, "unbiased, all pairs"),
    "cmmd": Metric(("kept",), _of_features(metrics.cmmd), _PAIRS, "unit length, sigma 10, times 1000"),
    "precision": Metric(("kept",), lambda gathered: Result(gathered.precision_recall[0]), _PAIRS, _BALLS, least=6),
    "recall": Metric(("kept",), lambda gathered: Result(gathered.precision_recall[1]), _PAIRS, _BALLS, least=6),
    "density": Metric(
        ("kept",), _of_pairs(lambda pairs: metrics.density_coverage(pairs)[0]), _PAIRS, "k 5, {ball}", least=6
    ),
    "coverage": Metric(
        ("kept",), _of_pairs(lambda pairs: metrics.density_coverage(pairs)[1]), _PAIRS, "k 5, {ball}", least=6
    ),
    "c2st": Metric(("kept",), _of_pairs(metrics.nearest_neighbour_accuracy), _PAIRS, "1-NN, leave one out"),
    "retrieval": Metric(("kept",), _of_pairs(metrics.retrieval_distance), _PAIRS, "Euclidean, real to nearest fake"),
    "mifid": Metric(("kept", "features"), _mifid, _PAIRS, f"cosine threshold {COSINE_THRESHOLD}"),
    "ndb": Metric(("kept",), _of_features(metrics.different_bins), _PAIRS, "at most 100 bins, seed 0, z-test at 0.05"),
    "support": Metric(("kept",), _of_pairs(metrics.support_size), _PAIRS, "alike below half the reals' median"),
    "fid_infinity": Metric(("kept",), _frechet_infinity, _PAIRS, "15 sizes", least=20),
    "intra_fid": Metric(("kept",), _frechet_of_classes, (*_PAIRS, "labels", "real_labels"), "mean over classes"),
    # kept images
    "ms_ssim": Metric(("images",), _similarity, settings="at most 1000 pairs, within a class if there are any"),
    "swd": Metric(("images",), _wasserstein, _PIXELS, f"7x7 patches of at most {SWD_IMAGES} images, seed 0"),
    "cas": Metric(
        ("images",), _classification, (*_PIXELS, "labels", "real_labels"), "bigtrain's classifier, seed 0", least=20
    ),
}


#: Names that stand for several metrics. prdc: Naeem et al., arXiv 2002.09797.
GROUPS = {"prdc": ("precision", "recall", "density", "coverage")}


def expanded(names: Sequence[str]) -> list[str]:
    """The metrics that names stand for: most for themselves."""
    return [metric for name in names for metric in GROUPS.get(name, (name,))]


def check_metrics(names: Sequence[str], valid: Collection[str] = METRICS.keys() | PATH_METRICS.keys()) -> None:
    """Refuses what cannot be a list of metrics.

    Raises:
        ValueError: if there are none, or one is unknown or there twice.
    """
    unknown = [name for name in names if name not in valid]
    twice = sorted({name for name in names if names.count(name) > 1})
    if not names or unknown:
        problem = f"{unknown} are unknown" if unknown else "name one at least"
        raise ValueError(f"metrics (={list(names)}): {problem}; valid are {', '.join(sorted({*valid, *GROUPS}))}")
    if twice:
        raise ValueError(f"metrics (={list(names)}): {', '.join(twice)} is there twice; name each once")


def needs_of(names: Sequence[str]) -> set[str]:
    """Of all these metrics.

    Raises:
        ValueError: as `check_metrics`, of those of this table.
    """
    check_metrics(names, METRICS)
    return {need for name in names for need in METRICS[name].needs}


def least_of(names: Sequence[str], splits: int) -> int:
    """Samples below which one of these metrics cannot be had; `splits` are those of the Inception Score."""
    return max((splits if name == "is" else METRICS[name].least for name in names), default=2)
