"""`bigtrain evaluate`: scores of a run, a snapshot, or a folder or zip of images, each with its protocol."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bigtrain.cli.arguments import Parser
from bigtrain.cli.reference import reference_shards

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from bigtrain.callbacks.scoring import Scorer
    from bigtrain.evaluation.protocol import Score
    from bigtrain.snapshots import Snapshot


def run(arguments: Sequence[str]) -> int:
    """Measures, prints a line a score, and writes them to --json."""
    options = _parser().parse_args(arguments)
    thresholds = _thresholds(options.truncation)
    snapshot = _snapshot(options.source)
    if snapshot is None and thresholds != [None]:
        raise ValueError(f"--truncation (={options.truncation}) is for generators; {options.source!r} holds images")
    scorer = _scorer(options, snapshot)
    scores: list[Score] = []
    for threshold in thresholds:
        made = _of_snapshot(snapshot, scorer, options, threshold) if snapshot else _of_images(scorer, options)
        scores.extend(made)
    for score in scores:
        spread = "" if score.std is None else f" ± {score.std:.4f}"
        at = "" if score.truncation is None else f"  truncation {score.truncation:g}"
        print(f"{score.metric}: {score.value:.4f}{spread}{at}  (by {score.protocol.extractor})")
    if options.json:
        text = json.dumps([score.to_dict() for score in scores], indent=1)
        Path(options.json).write_text(text + "\n", encoding="utf-8")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="bigtrain evaluate", description="Scores, each with how it was measured.")
    parser.add_argument("source", metavar="RUN_OR_SNAPSHOT_OR_FOLDER", help="what makes or holds the images")
    parser.add_argument("--reference", metavar="URL", help="shards of real images (default those of the run)")
    parser.add_argument("--metrics", default="fid,is,recognition", help="default %(default)s")
    parser.add_argument("--num", type=int, help="samples (default 10000; all images of a folder)")
    parser.add_argument("--truncation", help="thresholds to sweep, such as 0.2,0.5,1 (default none)")
    parser.add_argument("--seed", type=int, default=0, help="of latents and labels (default %(default)s)")
    parser.add_argument("--extractor", choices=("auto", "inception", "classifier"), default="auto")
    parser.add_argument("--inception-weights", metavar="URL", help="default: the usual place of downloads")
    parser.add_argument("--batch", type=int, default=100, help="images measured at a time (default %(default)s)")
    parser.add_argument("--json", metavar="FILE", help="where the scores and their protocols go")
    return parser


def _thresholds(text: str | None) -> list[float | None]:
    try:
        return [None] if text is None else [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"--truncation (={text}) must be numbers such as 0.2,0.5,1") from None


def _snapshot(source: str) -> Snapshot | None:
    """The snapshot that the source is or holds; None if it is a folder or zip of images."""
    from bigtrain.snapshots import holds_snapshot, load_snapshot  # noqa: PLC0415

    return load_snapshot(source) if holds_snapshot(source) else None


def _scorer(options: argparse.Namespace, snapshot: Snapshot | None) -> Scorer:
    from bigtrain.callbacks.scoring import Scorer  # noqa: PLC0415

    needed = snapshot.generator.resolution if snapshot else None
    shards, resolution = reference_shards(options.reference, snapshot, needed)
    return Scorer(shards, resolution, options.extractor, options.inception_weights, options.batch)


def _of_snapshot(
    snapshot: Snapshot, scorer: Scorer, options: argparse.Namespace, truncation: float | None
) -> list[Score]:
    from bigtrain.evaluation.protocol import Provenance  # noqa: PLC0415
    from bigtrain.sampling.generate import Sampler, drawn  # noqa: PLC0415

    card, conditional = snapshot.card, snapshot.generator.num_classes > 0
    labels = drawn(options.seed, card.class_counts)
    sampler = Sampler(snapshot.generator, options.seed, labels, truncation, options.batch, card.place)
    provenance = Provenance(
        seed=options.seed,
        label_distribution="frequencies of the data" if conditional else None,
        kimg=card.kimg,
        truncation=truncation,
        ema=True,
    )
    return scorer.score(sampler, options.metrics.split(","), options.num or 10000, provenance, conditional)


def _of_images(scorer: Scorer, options: argparse.Namespace) -> list[Score]:
    """A folder or zip of images: cropped and resized as `shards build` does, without labels."""
    from bigtrain.data.sources import open_source  # noqa: PLC0415
    from bigtrain.evaluation.protocol import Provenance  # noqa: PLC0415

    source = open_source(options.source, scorer.shards.channels, unlabelled=True)
    num = options.num or len(source)
    if num > len(source):
        raise ValueError(f"--num (={num}) is more than the {len(source)} images in {options.source!r}")
    return scorer.score(_images_of(source, scorer), options.metrics.split(","), num, Provenance(), conditional=False)


def _images_of(source, scorer: Scorer) -> Callable[[np.ndarray], tuple[Tensor, Tensor]]:  # type: ignore[no-untyped-def]
    import numpy as np  # noqa: PLC0415
    import torch  # noqa: PLC0415

    from bigtrain.data.images import prepare  # noqa: PLC0415

    resolution, channels = scorer.resolution, scorer.shards.channels

    def samples(indices: np.ndarray) -> tuple[Tensor, Tensor]:
        pictures = [prepare(source.load(int(i)), [resolution], channels)[resolution] for i in indices]
        pixels = np.stack([np.asarray(picture).reshape(resolution, resolution, channels) for picture in pictures])
        return torch.from_numpy(pixels).permute(0, 3, 1, 2), torch.zeros(len(indices), dtype=torch.int64)

    return samples
