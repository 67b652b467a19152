"""The parts of a configuration that belong to the run as a whole, not to the game or its data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from bigtrain.callbacks.guard_signs import Limits


@dataclass(frozen=True)
class Cadences:
    """What is written in the course of training, every so many kimg (0: only at the end).

    Args:
        metrics_kimg: a line of metrics.jsonl.
        samples_kimg: a grid in samples/.
        checkpoint_kimg: a checkpoint, and a snapshot of the averaged generator.
        keep_checkpoints: how many of the newest are kept.
        num_samples: images in a grid.
    """

    metrics_kimg: float = 1.0
    samples_kimg: float = 50.0
    checkpoint_kimg: float = 50.0
    keep_checkpoints: int = 3
    num_samples: int = 100


@dataclass(frozen=True)
class Evaluation:
    """Scores of the averaged generator in the course of training, in evaluation.jsonl.

    Args:
        every_kimg: the cadence (0: only at the end).
        num: samples.
        metrics: any that `bigtrain evaluate --metrics` takes; an unknown one has all of them named.
        extractor: `inception`, `vgg16`, `clip-vit-l-14` … (see `bigtrain evaluate --help`), `classifier` (trained on
            the labelled shards), the FILE.safetensors of one that was trained before, or the path of a class; `auto`
            takes the protocol's, but without a protocol the classifier where Inception's weights are not here.
        weights: a path or URL of the extractor's weights; null for the usual place of downloads.
        protocol: `tf1`, `clean`, `antialias`, `dgm-eval` or `stylegan`; null for `tf1`.
        truncation: of the samples; null for none.
        standing_stats: batches on which batch-norm statistics are estimated for the samples, such as 100; null for the
            training's running averages.
        max_minutes: that a scoring may take; where that is not enough fewer samples are scored: 1, 2 or 5 times a power
            of ten, and the scores' names say so (`fid2k` for `fid10k`). null for as long as it takes.
        batch_size: images that a process makes and measures at a time.
        channels_last, compiled: how the extractor computes; worth it for many images.
    """

    every_kimg: float = 0.0
    num: int = 10000
    metrics: list[str] = field(default_factory=lambda: ["fid", "is", "recognition"])
    extractor: str = "auto"
    weights: str | None = None
    protocol: str | None = None
    truncation: float | None = None
    standing_stats: int | None = None
    max_minutes: float | None = None
    batch_size: int = 100
    channels_last: bool = False
    compiled: bool = False

    def __post_init__(self) -> None:
        if self.max_minutes is not None and not self.max_minutes > 0:
            raise ValueError(
                f"evaluation.max_minutes (={self.max_minutes:g}) must be greater than 0, or null for no limit"
            )


@dataclass(frozen=True)
class WandB:
    """Where Weights & Biases keeps the run.

    Args:
        project: its project.
        name: of the run; null for the run folder's.
        entity: the user or team whose project it is; null for the user's own.
        mode: `offline` needs no account: `wandb sync` later sends what was kept in the run folder. `online` becomes
            that where the service cannot be reached.
        snapshots_mib: snapshots up to this size are kept as artifacts, made from that of the data; 0 for none.
        timeout_seconds: for which the service is waited for; the training meanwhile goes on.
    """

    project: str = "bigtrain"
    name: str | None = None
    entity: str | None = None
    mode: Literal["online", "offline"] = "offline"
    snapshots_mib: float = 0.0
    timeout_seconds: float = 60.0

    def __post_init__(self) -> None:
        if self.snapshots_mib < 0:
            raise ValueError(f"wandb.snapshots_mib (={self.snapshots_mib}) must not be negative")
        if self.timeout_seconds <= 0:
            raise ValueError(f"wandb.timeout_seconds (={self.timeout_seconds}) must be greater than 0")


@dataclass(frozen=True)
class GuardSettings(Limits):
    """What is watched for a collapse, in guard.jsonl, and what follows one.

    Args:
        every_kimg: the cadence of its looks (0: none). A few looks between two checkpoints are enough; with large
            batches let some dozens of steps lie between them.
        on_collapse: `warn` only says so; `stop` ends the training; `rollback` goes back to the last good checkpoint.
        rollback: what is other afterwards: `reseed`: latents, labels and all else that is drawn beside the data;
            `slower`: the learning rates, by `factor`.
        max_rollbacks: after which a collapse ends the training.
        factor: of the learning rates, once more with each rollback that makes them slower.
        spectrum: how many of the largest singular values of each weight are recorded; the first is what is judged.
    """

    every_kimg: float = 10.0
    on_collapse: Literal["warn", "stop", "rollback"] = "warn"
    rollback: Literal["reseed", "slower"] = "reseed"
    max_rollbacks: int = 3
    factor: float = 0.5
    spectrum: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_rollbacks < 1:
            raise ValueError(f"guard.max_rollbacks (={self.max_rollbacks}) must be at least 1")
        if self.spectrum < 1:
            raise ValueError(f"guard.spectrum (={self.spectrum}) must be at least 1")
        if not 0 < self.factor < 1:
            raise ValueError(f"guard.factor (={self.factor}) must be between 0 and 1")
