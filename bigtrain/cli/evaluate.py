"""`bigtrain evaluate`: scores of a run, a snapshot, or images in a folder, a zip or shards, each with its protocol."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bigtrain.cli.arguments import Parser, thresholds
from bigtrain.cli.comparison import ENDINGS, Entry, plot, table

if TYPE_CHECKING:
    from bigtrain.cli.processes import Rank
    from bigtrain.evaluation.protocol import Score


def run(arguments: Sequence[str]) -> int:
    """Measures, prints a line a score, and writes them to --json, --table and --plot."""
    if arguments and arguments[0] == "train-extractor":
        from bigtrain.cli import train_extractor  # noqa: PLC0415 (only when it is asked for)

        return train_extractor.run(arguments[1:])
    options = parse(arguments)

    from bigtrain.cli import processes  # noqa: PLC0415 (torch: only when there is something to do)

    compute = processes.compute_of(options.devices)
    return processes.on_ranks(compute, ["evaluate", *arguments], lambda rank: _evaluate(options, rank))


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options, as far as they can be checked before anything is opened.

    Raises:
        ValueError: naming the option, its value and what is valid.
    """
    options = _parser().parse_args(arguments)
    options.truncation, options.metrics = thresholds("--truncation", options.truncation), _names(options.metrics)
    for name, least in (("num", 2), ("batch", 1), ("devices", 1)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise ValueError(f"--{name} (={value}) must be at least {least}")
    if options.show and len(options.source) > 1:
        raise ValueError(f"--show is for one run; there are {len(options.source)}")
    if options.plot and not options.plot.endswith(ENDINGS):
        raise ValueError(f"--plot (={options.plot}) must end in one of {', '.join(ENDINGS)}")
    if (options.plot or options.show) and not ({"fid", "is"} <= set(options.metrics) and len(options.truncation) > 1):
        named = f"--plot (={options.plot})" if options.plot else "--show"
        raise ValueError(f"{named} draws curves: name fid and is in --metrics, two thresholds in --truncation")
    return options


def _evaluate(options: argparse.Namespace, rank: Rank) -> None:
    """What each rank does; the first one tells."""
    from bigtrain.cli.measure import Measure, check_comparable  # noqa: PLC0415

    measures = [Measure(source, options, rank) for source in options.source]
    check_comparable(measures)
    entries = []
    for measure in measures:
        entries.append(measure())
        if rank.world.is_first:
            if len(measures) > 1:
                print(f"{measure.source}:")
            for score in entries[-1].scores:
                _print(score)
    if rank.world.is_first:
        _write(entries, options)


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
    if options.show:
        from bigtrain.cli.loggers import show_curves  # noqa: PLC0415 (wandb)

        show_curves(entries[0].name, plot(entries, ".png"))


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
    parser.add_argument("--protocol", metavar="NAME", help="tf1, clean, antialias, dgm-eval or stylegan (default tf1)")
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
    parser.add_argument(
        "--devices",
        type=int,
        metavar="N",
        help="processes, a GPU each where there are some (default 1, or those of torchrun or SLURM); the scores are "
        "the same",
    )
    _add_outputs(parser)
    return parser


def _add_outputs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", metavar="FILE", help="where the scores and their protocols go; a path or URL")
    parser.add_argument("--table", metavar="FILE.md", help="the same as a table, a row a source")
    parser.add_argument(
        "--plot", metavar="FILE.png", help="curves of FID and IS over the thresholds; .png, .svg or .pdf"
    )
    parser.add_argument(
        "--show", action="store_true", help="the curves where the run is shown (its wandb, tensorboard)"
    )


def _names(text: str) -> list[str]:
    from bigtrain.evaluation.table import check_metrics, expanded  # noqa: PLC0415 (torch: only when it is needed)

    names = expanded([part.strip() for part in text.split(",") if part.strip()])
    check_metrics(names)
    return names
