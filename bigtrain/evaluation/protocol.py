"""What a score means: a number is printed and stored only together with how it was measured."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from bigtrain.evaluation.conventions import TF1, Conventions
from bigtrain.evaluation.extractors import Extractor
from bigtrain.evaluation.reference import Reference
from bigtrain.evaluation.table import METRICS


@dataclass(frozen=True)
class Provenance:
    """How the samples were made. Only the maker of the sampler knows it; evaluation passes it on.

    Attributes:
        seed: of latents and labels.
        label_distribution: the labels were drawn from, in words; None without labels.
        kimg: of the generator, in thousand real images; None for a folder of images.
        truncation: threshold of the latents; None without.
        standing_stats: what the batch-norm statistics were estimated from anew, in words; None for running averages.
        ema: whether the weights are the moving average's.
        prepared: what was done to images that were not made at the resolution they are measured at, in words.
    """

    seed: int = 0
    label_distribution: str | None = None
    kimg: float | None = None
    truncation: float | None = None
    standing_stats: str | None = None
    ema: bool = False
    prepared: str | None = None


@dataclass(frozen=True)
class Protocol:
    """How a score was measured. Scores of unequal protocols are not to be compared.

    Attributes:
        name: of the conventions (`PROTOCOLS`) that the rest of it follows.
        extractor: name of the network that made features and logits.
        weight_hash: first 12 hex digits of the SHA-256 of its weights.
        holdout_accuracy: of a classifier that was trained on the data; None for published weights.
        resize, quantisation: what the extractor does to images before its first layer.
        ddof: delta degrees of freedom of the covariances.
        splits: parts of the samples for the Inception Score (whose std has ddof 0); None for other metrics.
        num_real: images of the reference; None for a metric without one, or if it is not known.
        left_out: damaged images that the reference is without; None for a metric without one.
        num_fake: samples.
        reference: hash of the manifest of the real images, or the file of statistics that others have measured; None
            for a metric without reference.
        truncation, standing_stats, ema, label_distribution, seed, prepared: see `Provenance`.
        settings: what else fixes the metric (k, subsets …), in words; None if nothing does.
    """

    name: str
    extractor: str
    weight_hash: str
    holdout_accuracy: float | None
    resize: str
    quantisation: str
    ddof: int
    splits: int | None
    num_real: int | None
    left_out: int | None
    num_fake: int
    reference: str | None
    truncation: float | None
    standing_stats: str | None
    ema: bool
    label_distribution: str | None
    seed: int
    prepared: str | None = None
    settings: str | None = None

    @classmethod
    def of(
        cls,
        extractor: Extractor,
        reference: Reference | None,
        num_fake: int,
        splits: int | None,
        provenance: Provenance,
        num_real: int | None = None,
        settings: str | None = None,
        conventions: Conventions = TF1,
    ) -> Protocol:
        """The protocol of a metric of `num_fake` samples; reference and splits are None where it has none.

        `num_real` is how many images of the reference the metric looks at; all, if it is None.
        """
        return cls(
            name=conventions.name,
            extractor=extractor.name,
            weight_hash=extractor.weight_hash,
            holdout_accuracy=extractor.holdout_accuracy,
            resize=extractor.resize,
            quantisation=extractor.quantisation,
            ddof=conventions.ddof,
            splits=splits,
            num_real=None if reference is None else num_real or reference.num_real,
            left_out=None if reference is None else reference.left_out,
            num_fake=num_fake,
            reference=None if reference is None else reference.manifest,
            truncation=provenance.truncation,
            standing_stats=provenance.standing_stats,
            ema=provenance.ema,
            label_distribution=provenance.label_distribution,
            seed=provenance.seed,
            prepared=provenance.prepared,
            settings=settings,
        )


@dataclass(frozen=True)
class Score:
    """One number and what it means; `metric` carries the sample count, as in `fid50k_full`.

    Attributes:
        per_class: the same for the samples of each class (None for one without samples), where that is told.
    """

    metric: str
    value: float
    std: float | None
    num_fake: int
    num_real: int | None
    kimg: float | None
    truncation: float | None
    protocol: Protocol
    per_class: list[float | None] | None = None

    def to_dict(self) -> dict[str, Any]:
        """As `bigtrain evaluate --json` prints it; `per_class` is there only where it is told."""
        told = asdict(self)
        if self.per_class is None:
            del told["per_class"]
        return told


def score_name(metric: str, num_fake: int, full_reference: bool) -> str:
    """The metric's name with the sample count, and `_full` if it compares with a whole training set: `fid50k_full`.

    Args:
        metric: of METRICS.
        num_fake: samples; whole thousands are written with a k.
        full_reference: whether the reference is the whole training set; does not matter to a metric without one.
    """
    count = f"{num_fake // 1000}k" if num_fake % 1000 == 0 else str(num_fake)
    return f"{metric}{count}" + ("_full" if full_reference and "reference" in METRICS[metric].needs else "")
