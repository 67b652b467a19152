"""`bigtrain evaluate`: scores of a run, a snapshot, or images in a folder, a zip or shards, each with its protocol."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bigtrain.cli.arguments import Parser, thresholds
from bigtrain.cli.comparison import ENDINGS, Entry, kind_of, minutes_of, plot, table
from bigtrain.cli.reference import reference_shards

if TYPE_CHECKING:
    from bigtrain.callbacks.scoring_base import Scoring
    from bigtrain.cli.pictures import Pictures
    from bigtrain.evaluation.protocol import Score
    from bigtrain.sampling.standing_stats import StandingStats
    from bigtrain.snapshots import Snapshot

_log = logging.getLogger(__name__)


def run(arguments: Sequence[str]) -> int:
    """Measures, prints a line a score, and writes them to --json, --table and --plot."""
    if arguments and arguments[0] == "train-extractor":
        from bigtrain.cli import train_extractor  # noqa: PLC0415 (only when it is asked for)

        return train_extractor.run(arguments[1:])
    options = _parser().parse_args(arguments)
    options.truncation, options.metrics = thresholds("--truncation", options.truncation), _names(options.metrics)
    for name, least in (("num", 2), ("batch", 1)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise ValueError(f"--{name} (={value}) must be at least {least}")
    if options.plot and not options.plot.endswith(ENDINGS):
        raise ValueError(f"--plot (={options.plot}) must end in one of {', '.join(ENDINGS)}")
    measures = [_Measure(source, options) for source in options.source]
    _check_comparable(measures)
    entries = []
    for measure in measures:
        entries.append(measure())
        if len(measures) > 1:
            print(f"{measure.source}:")
        for score in entries[-1].scores:
            _print(score)
    _write(entries, options)
    return 0


def _print(score: Score) -> None:
    spread = "" if score.std is None else f" ± {score.std:.4f}"
    at = "" if score.truncation is None else f"  truncation {score.truncation:g}"
    print(f"{score.metric}: {score.value:.4f}{spread}{at}  (by {score.protocol.extractor})")


def _write(entries: Sequence[Entry], options: argparse.Namespace) -> None:
    from bigtrain.sampling.outputs import place_of  # noqa: PLC0415 (torch: only when there is something to do)

    files: dict[str, bytes] = {}
    if options.json:
        several = len(entries) > 1
        scores = [
            score.to_dict() | ({"source": entry.name} if several else {}) for entry in entries for score in entry.scores
        ]
        files[options.json] = (json.dumps(scores, indent=1) + "\n").encode()
    if options.table:
        files[options.table] = table(entries).encode()
    if options.plot:
        files[options.plot] = plot(entries, options.plot[options.plot.rindex(".") :])
    for url, content in files.items():
        storage, name = place_of(url)
        storage.write(name, content)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="bigtrain evaluate",
        description="Scores, each with how it was measured. `bigtrain evaluate train-extractor --help` tells how an "
        "extractor is trained for images that ImageNet does not know.",
    )
    parser.add_argument(
        "source",
        metavar="RUN_OR_SNAPSHOT_OR_FOLDER",
        nargs="+",
        help="what makes or holds the images: also a zip, or shards",
    )
    parser.add_argument(
        "--reference",
        metavar="URL",
        help="shards of real images (default those of the run), or mu and sigma of another library in an .npz",
    )
    parser.add_argument(
        "--metrics", default="fid,is,recognition", help="default %(default)s; an unknown one has all of them named"
    )
    parser.add_argument(
        "--num", type=int, help="samples, or images chosen at random (default 10000 samples; all images)"
    )
    parser.add_argument(
        "--truncation", default="none", help="thresholds to sweep, such as 0.2,0.5,1,none (default none)"
    )
    parser.add_argument(
        "--standing-stats",
        type=int,
        metavar="N",
        help="estimate batch-norm statistics on N batches, such as 100 (default: the training's running averages)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of latents and labels (default %(default)s)")
    parser.add_argument("--protocol", metavar="NAME", help="tf1, clean, antialias, dgm-eval or stylegan3 (default tf1)")
    parser.add_argument(
        "--extractor",
        default="auto",
        help="inception, vgg16, clip-vit-{b-32,b-16,l-14,l-14-336px}, dinov2-vit-{s,b,l,g}-14, classifier (of the "
        "shards' labels), the FILE.safetensors of train-extractor, or the path of a class, such as my_package.MyNet "
        "(default: the protocol's; without a protocol the classifier where Inception's weights are not here)",
    )
    parser.add_argument("--weights", metavar="URL", help="of the extractor (default: the usual place of downloads)")
    parser.add_argument("--channels-last", action="store_true", help="may make the extractor's convolutions faster")
    parser.add_argument("--compiled", action="store_true", help="torch.compile the extractor, for many images")
    parser.add_argument("--batch", type=int, default=100, help="images measured at a time (default %(default)s)")
    parser.add_argument("--json", metavar="FILE", help="where the scores and their protocols go; a path or URL")
    parser.add_argument("--table", metavar="FILE.md", help="the same as a table, a row a source")
    parser.add_argument(
        "--plot", metavar="FILE.png", help="curves of FID and IS over the thresholds; .png, .svg or .pdf"
    )
    return parser


def _names(text: str) -> list[str]:
    from bigtrain.evaluation.table import check_metrics  # noqa: PLC0415 (torch: only when there is something to do)

    names = [part.strip() for part in text.split(",") if part.strip()]
    check_metrics(names)
    return names


class _Measure:
    """Of one source: what will be measured, and against what, is known before anything is.

    Raises:
        ValueError: if it cannot be measured.
    """

    def __init__(self, source: str, options: argparse.Namespace) -> None:
        from bigtrain.sampling.standing_stats import StandingStats, batch_norms  # noqa: PLC0415
        from bigtrain.snapshots import holds_snapshot, load_snapshot  # noqa: PLC0415

        self.source, self.options = source, options
        self.snapshot = load_snapshot(source) if holds_snapshot(source) else None
        if self.snapshot is None and options.truncation != [None]:
            raise ValueError(f"--truncation is for generators; {source!r} holds images")
        if self.snapshot is None and options.standing_stats is not None:
            raise ValueError(f"--standing-stats (={options.standing_stats}) is for generators; {source!r} holds images")
        self.standing: StandingStats | None = None
        if self.snapshot is not None and options.standing_stats is not None:
            self.standing = StandingStats(options.standing_stats, self.snapshot.card.class_counts)
            if len(options.source) > 1 and not batch_norms(self.snapshot.generator):
                self.standing = None  # nothing to estimate in this one
            else:
                self.standing.check(self.snapshot.generator)
        self.scorer = _scorer(source, self.snapshot, options)
        self.pictures = None if self.snapshot is not None else _pictures(source, self.scorer, options)

    def __call__(self) -> Entry:
        scores: list[Score] = []
        for threshold in self.options.truncation:
            if self.snapshot is None:
                assert self.pictures is not None
                scores.extend(_of_images(self.pictures, self.scorer, self.options))
            else:
                scores.extend(_of_snapshot(self.snapshot, self.scorer, self.options, threshold, self.standing))
        self._warn_of_few(scores)
        return Entry(self.source, scores, self.scorer.classes, minutes_of(self.source))

    def _warn_of_few(self, scores: Sequence[Score]) -> None:
        """A Fréchet distance of fewer samples than dimensions is mostly bias, whatever the samples are."""
        few = [score for score in scores if kind_of(score.metric) == "fid"]
        if few and few[0].num_fake <= (dim := self.scorer.extractor.feature_dim):
            _log.warning(
                "%s is of %d samples in %d dimensions: far above that of many samples; compare it only with scores of "
                "as many",
                few[0].metric,
                few[0].num_fake,
                dim,
            )


def _scorer(source: str, snapshot: Snapshot | None, options: argparse.Namespace) -> Scoring:
    """Against shards, or the statistics in an .npz, at the resolution of the snapshot or of the first image."""
    from bigtrain.callbacks.precomputed import PrecomputedScorer  # noqa: PLC0415 (torch: only when there is need)
    from bigtrain.callbacks.scoring import Scorer  # noqa: PLC0415
    from bigtrain.callbacks.scoring_base import Measurement  # noqa: PLC0415
    from bigtrain.cli.pictures import open_pictures  # noqa: PLC0415
    from bigtrain.evaluation.precomputed import is_precomputed  # noqa: PLC0415

    by = Measurement(
        options.extractor, options.weights, options.protocol, options.batch, options.channels_last, options.compiled
    )
    if options.reference is not None and is_precomputed(options.reference):
        if snapshot is None:
            return PrecomputedScorer(options.reference, open_pictures(source).resolution, None, by)
        generator = snapshot.generator
        return PrecomputedScorer(options.reference, generator.resolution, generator.image_channels, by)
    shards, resolution = reference_shards(
        options.reference, snapshot, None if snapshot is None else snapshot.generator.resolution
    )
    return Scorer(shards, resolution, by)


def _check_comparable(measures: Sequence[_Measure]) -> None:
    first, *others = measures
    for other in others:
        if (other.scorer.standard, other.scorer.kind) != (first.scorer.standard, first.scorer.kind):
            raise ValueError(
                f"{first.source!r} and {other.source!r} have other real images to be compared with "
                f"({first.scorer.standard} and {other.scorer.standard}): name one --reference, or evaluate them by "
                "themselves"
            )


def _of_snapshot(
    snapshot: Snapshot,
    scorer: Scoring,
    options: argparse.Namespace,
    truncation: float | None,
    standing: StandingStats | None,
) -> list[Score]:
    from bigtrain.evaluation.protocol import Provenance  # noqa: PLC0415
    from bigtrain.sampling.generate import Sampler, drawn  # noqa: PLC0415

    card, conditional = snapshot.card, snapshot.generator.num_classes > 0
    labels = drawn(options.seed, card.class_counts)
    sampler = Sampler(snapshot.generator, options.seed, labels, truncation, options.batch, card.place, standing)
    provenance = Provenance(
        seed=options.seed,
        label_distribution="frequencies of the data" if conditional else None,
        kimg=card.kimg,
        truncation=truncation,
        standing_stats=sampler.standing_stats,
        ema=True,
    )
    return scorer.score(sampler, options.metrics, options.num or 10000, provenance, conditional)


def _pictures(url: str, scorer: Scoring, options: argparse.Namespace) -> Pictures:
    from bigtrain.cli.pictures import open_pictures  # noqa: PLC0415
    from bigtrain.evaluation.metrics.path_length import PATH_METRICS  # noqa: PLC0415

    if of_generators := [name for name in options.metrics if name in PATH_METRICS]:
        raise ValueError(f"--metrics {','.join(of_generators)} are of a generator; {url!r} holds images")
    pictures = open_pictures(url, scorer.resolution, scorer.channels, options.seed)
    pictures.label_as(scorer.classes)
    if len(pictures) < 2:
        raise ValueError(f"there is only one image in {url!r}; scores need at least 2")
    if (options.num or 2) > len(pictures):
        raise ValueError(f"--num (={options.num}) is more than the {len(pictures)} images in {url!r}")
    return pictures


def _of_images(pictures: Pictures, scorer: Scoring, options: argparse.Namespace) -> list[Score]:
    num = options.num or len(pictures)
    scores = scorer.score(pictures, options.metrics, num, pictures.provenance, pictures.labelled)
    pictures.tell_of_others()
    return scores
