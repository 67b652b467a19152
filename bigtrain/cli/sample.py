"""`bigtrain sample`: images of a run or a snapshot, as a grid, a folder, a zip or an array file."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from bigtrain.cli.arguments import Parser


def run(arguments: Sequence[str]) -> int:
    """Makes samples 0 … num - 1 of a seed and writes them to --out."""
    options = _parser().parse_args(arguments)
    if options.num < 1:
        raise ValueError(f"--num (={options.num}) must be at least 1")

    from rich.console import Console  # noqa: PLC0415 (torch and rich: only when there is something to do)
    from rich.progress import track  # noqa: PLC0415

    from bigtrain.sampling.generate import Sampler, batches, cycled  # noqa: PLC0415
    from bigtrain.sampling.outputs import grid_columns, open_output  # noqa: PLC0415
    from bigtrain.snapshots import load_snapshot  # noqa: PLC0415

    snapshot = load_snapshot(options.source)
    classes = snapshot.generator.num_classes
    labels = cycled(_labels(options.labels, classes))
    sampler = Sampler(snapshot.generator, options.seed, labels, options.truncation, options.batch, snapshot.card.place)
    output = open_output(options.out, grid_columns(options.num, classes))
    parts = batches(sampler, options.num)
    total = -(-options.num // options.batch)
    for indices, images, asked in track(parts, "sampling", total, console=Console(stderr=True), transient=True):
        output.add(indices, images, asked if classes else None)
    output.close()
    print(f"{options.out}: {options.num} samples of {snapshot.name} at {snapshot.card.kimg:g} kimg")
    for score in snapshot.card.scores:
        print(f"{score['metric']}: {score['value']:.4f}  (by {score['protocol']['extractor']})")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="bigtrain sample", description="Samples of a run or a snapshot.")
    parser.add_argument("source", metavar="RUN_OR_SNAPSHOT", help="a run's folder (its newest snapshot) or a snapshot")
    parser.add_argument("--out", required=True, help="grid.png, a folder, FILE.zip or FILE.npz; a path or URL")
    parser.add_argument("--num", type=int, default=64, help="samples (default %(default)s)")
    parser.add_argument("--truncation", type=float, help="threshold of the truncation trick (default none)")
    parser.add_argument("--seed", type=int, default=0, help="of latents (default %(default)s)")
    parser.add_argument("--labels", help="classes in turn, such as 3,5 (default all)")
    parser.add_argument("--batch", type=int, default=64, help="samples made at a time (default %(default)s)")
    return parser


def _labels(text: str | None, num_classes: int) -> list[int]:
    """The classes that the samples have in turn."""
    if text is None:
        return list(range(max(1, num_classes)))
    if num_classes == 0:
        raise ValueError(f"--labels (={text}): the generator is unconditional; leave it out")
    try:
        labels = [int(part) for part in text.split(",")]
    except ValueError:
        labels = [-1]
    if not all(0 <= label < num_classes for label in labels):
        raise ValueError(f"--labels (={text}) must be class numbers from 0 to {num_classes - 1}, such as 0,1")
    return labels
