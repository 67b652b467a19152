"""`bigtrain sample`: images of a run or a snapshot, one by one or set beside each other."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NamedTuple

from bigtrain.cli.arguments import Parser


class Kind(NamedTuple):
    """What can be made."""

    what: str
    num: int  # samples it is made of, unless `--num` or `--indices` say otherwise
    endings: tuple[str, ...]  # of --out


KINDS = {
    "samples": Kind("samples by themselves", 64, ()),
    "classes": Kind("a row a class, a column a latent", 8, (".png",)),
    "interpolation": Kind("a row from each sample to the next", 8, (".png",)),
    "walk": Kind("an animation through samples, back to the first", 4, (".gif", ".webp", ".mp4")),
    "truncation": Kind("a row a threshold, a column a sample", 8, (".png",)),
    "neighbours": Kind("a row a sample, with the nearest real images", 8, (".png",)),
    "arithmetic": Kind("latents added and subtracted, a row a class", 0, (".png",)),
}
#: Options that have no meaning for every kind: for which they have one, and what they are unless given.
OPTIONS: dict[str, tuple[set[str], Any]] = {
    "num": (KINDS.keys() - {"arithmetic"}, None),
    "indices": (KINDS.keys() - {"arithmetic"}, None),
    "truncation": (KINDS.keys() - {"truncation"}, None),
    "steps": ({"interpolation", "walk"}, None),
    "path": ({"interpolation", "walk"}, "spherical"),
    "between": ({"interpolation", "walk"}, "latents"),
    "fps": ({"walk"}, 20),
    "thresholds": ({"truncation"}, "0.2,0.5,1,none"),
    "reference": ({"neighbours"}, None),
    "nearest": ({"neighbours"}, 5),
    "extractor": ({"neighbours"}, "pixels"),
    "formula": ({"arithmetic"}, None),
}


def run(arguments: Sequence[str]) -> int:
    """Makes what --kind says and writes it to --out."""
    options = _parser().parse_args(arguments)
    _settle(options)

    from bigtrain.cli import sample_kinds  # noqa: PLC0415 (torch and rich: only when there is something to do)
    from bigtrain.sampling.generate import Sampler, cycled  # noqa: PLC0415
    from bigtrain.snapshots import load_snapshot  # noqa: PLC0415

    sample_kinds.check(options)
    snapshot = load_snapshot(options.source)
    card, generator = snapshot.card, snapshot.generator
    options.labels = _labels(options.labels, generator.num_classes)
    sampler = Sampler(generator, options.seed, cycled(options.labels), options.truncation, options.batch, card.place)
    made = sample_kinds.MAKERS[options.kind](options, sampler, snapshot)
    print(f"{options.out}: {made} of {snapshot.name} at {card.kimg:g} kimg")
    for score in card.scores if options.kind == "samples" else []:
        print(f"{score['metric']}: {score['value']:.4f}  (by {score['protocol']['extractor']})")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="bigtrain sample", description="Samples of a run or a snapshot.")
    add = parser.add_argument
    add("source", metavar="RUN_OR_SNAPSHOT", help="a run's folder (its newest snapshot) or a snapshot")
    add(
        "--out",
        required=True,
        help="grid.png, a folder, FILE.zip or FILE.npz; of a walk .gif, .webp or .mp4; a path or URL",
    )
    kinds = "; ".join(f"{name}: {kind.what}" for name, kind in KINDS.items())
    add("--kind", choices=tuple(KINDS), default="samples", help=f"{kinds} (default %(default)s)")
    add("--num", type=int, help="samples 0 to NUM - 1 (default 64; a sheet 8, a walk 4)")
    add("--indices", help="these samples instead, such as 3,17")
    add("--truncation", type=float, help="threshold of the truncation trick (default none)")
    add("--seed", type=int, default=0, help="of latents (default %(default)s)")
    add("--labels", help="classes in turn, such as 3,5 (default all)")
    add("--batch", type=int, default=64, help="samples made at a time (default %(default)s)")
    way = parser.add_argument_group("interpolation and walk")
    way.add_argument("--between", choices=("latents", "classes", "both"), help="what changes (default latents)")
    way.add_argument("--path", choices=("spherical", "linear"), help="of the latents (default spherical)")
    way.add_argument("--steps", type=int, help="images of a row (default 8), frames from one to the next (default 16)")
    way.add_argument("--fps", type=int, help="frames of a walk in a second (default 20)")
    sheet = parser.add_argument_group("truncation, neighbours and arithmetic")
    sheet.add_argument("--thresholds", help="default 0.2,0.5,1,none")
    sheet.add_argument("--reference", metavar="URL", help="shards of real images (default those of the run)")
    sheet.add_argument("--nearest", type=int, help="neighbours of a sample (default 5)")
    sheet.add_argument(
        "--extractor", choices=("pixels", "classifier", "inception"), help="whose distances (default pixels)"
    )
    sheet.add_argument("--formula", help="of samples, such as '3 - 5 + 8'")
    return parser


def _settle(options: argparse.Namespace) -> None:
    """Refuses what has no meaning for the kind, and fills in what was not given.

    Raises:
        ValueError: naming the option, its value and what it is for.
    """
    kind = options.kind
    for name, (kinds, default) in OPTIONS.items():
        value = getattr(options, name)
        if value is None:
            setattr(options, name, default)
        elif kind not in kinds:
            meant = [one for one in KINDS if one in kinds]
            raise ValueError(f"--{name} (={value}) has no meaning for --kind {kind}; it is for {', '.join(meant)}")
    if options.num is not None and options.indices is not None:
        raise ValueError(f"--num (={options.num}) and --indices (={options.indices}) exclude each other; leave one out")
    if options.num is not None and options.num < 1:
        raise ValueError(f"--num (={options.num}) must be at least 1")
    if options.steps is None:
        options.steps = 16 if kind == "walk" else 8
    options.indices = _indices(options.indices, KINDS[kind].num if options.num is None else options.num)
    _check_ending(options.out, kind)


def _check_ending(out: str, kind: str) -> None:
    endings = KINDS[kind].endings
    if endings and not out.endswith(endings):
        raise ValueError(f"--out (={out}) must end in {' or '.join(endings)} for --kind {kind}")
    if not endings and out.endswith(KINDS["walk"].endings):
        raise ValueError(
            f"--out (={out}): an animation is made by --kind walk; samples go to .png, .zip, .npz, a folder"
        )


def _indices(text: str | None, num: int) -> Sequence[int]:
    """The samples that are named, else the first ones."""
    if text is None:
        return range(num)
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise ValueError(f"--indices (={text}) must be sample numbers from 0, such as 3,17")
    return [int(part) for part in parts]


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
