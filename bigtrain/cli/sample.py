"""`bigtrain sample`: images of a run or a snapshot, one by one or set beside each other."""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from bigtrain.cli.arguments import Parser

if TYPE_CHECKING:
    from bigtrain.snapshots import Snapshot


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
    "history": Kind("samples from a run's first snapshot to its last", 16, (".gif", ".webp", ".mp4", ".png")),
}
#: Where samples by themselves go: what it is, and the ending of --out that it must have.
FORMS = {
    "grid": ("a PNG with all of them", ".png"),
    "folder": ("a folder with a PNG each, 000123_label.png", ""),
    "zip": ("a zip of such PNGs", ".zip"),
    "npz": ("uint8 images [n, h, w, c] and labels", ".npz"),
    "shards": ("as training reads them; nothing else may be there", ""),
}
#: Options that have no meaning for every kind: for which they have one, and what they are unless given.
OPTIONS: dict[str, tuple[set[str], Any]] = {
    "num": (KINDS.keys() - {"arithmetic"}, None),
    "indices": (KINDS.keys() - {"arithmetic"}, None),
    "truncation": (KINDS.keys() - {"truncation"}, None),
    "steps": ({"interpolation", "walk"}, None),
    "path": ({"interpolation", "walk"}, "spherical"),
    "between": ({"interpolation", "walk"}, "latents"),
    "fps": ({"walk", "history"}, None),
    "as": ({"samples"}, None),
    "devices": ({"samples"}, None),
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

    from bigtrain.cli import processes, sample_kinds  # noqa: PLC0415 (torch: only when there is something to do)
    from bigtrain.snapshots import load_snapshot  # noqa: PLC0415

    sample_kinds.check(options)
    compute = processes.compute_of(options.devices)
    if (number := math.prod(compute.layout())) > 1 and options.kind != "samples":
        raise ValueError(f"--kind {options.kind} is made by one process, and {number} were started: start one")
    snapshot = load_snapshot(options.source)
    options.labels = _labels(options.labels, snapshot.generator.num_classes)

    def make(rank: processes.Rank) -> None:
        found = processes.as_first_has(snapshot, rank.world)
        sampler = sample_kinds.sampler_of(options, found, rank.device)
        made = sample_kinds.MAKERS[options.kind](options, sampler, found, rank)
        if rank.world.is_first:
            _report(options, made, found)

    return processes.on_ranks(compute, ["sample", *arguments], make)


def _report(options: argparse.Namespace, made: str, snapshot: Snapshot) -> None:
    card = snapshot.card
    print(f"{options.out}: {made} of {snapshot.name} at {card.kimg:g} kimg")
    for score in card.scores if options.kind == "samples" else []:
        print(f"{score['metric']}: {score['value']:.4f}  (by {score['protocol']['extractor']})")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="bigtrain sample", description="Samples of a run or a snapshot.")
    add = parser.add_argument
    add("source", metavar="RUN_OR_SNAPSHOT", help="a run's folder (its newest snapshot) or a snapshot")
    add(
        "--out",
        required=True,
        help="grid.png, FILE.zip, FILE.npz, else a folder; of a walk or history .gif, .webp or .mp4; a path or URL",
    )
    forms = "; ".join(f"{name}: {what}" for name, (what, _) in FORMS.items())
    add("--as", choices=tuple(FORMS), help=f"what --out is, by its ending unless given. {forms}")
    kinds = "; ".join(f"{name}: {kind.what}" for name, kind in KINDS.items())
    add("--kind", choices=tuple(KINDS), default="samples", help=f"{kinds} (default %(default)s)")
    add("--num", type=int, help="samples 0 to NUM - 1 (default 64; a sheet 8, a walk 4, a history 16)")
    add("--indices", help="these samples instead, such as 3,17")
    add("--truncation", type=float, help="threshold of the truncation trick (default none)")
    add("--seed", type=int, default=0, help="of latents (default %(default)s)")
    add("--labels", help="classes in turn, such as 3,5 (default all)")
    add("--batch", type=int, default=64, help="samples made at a time (default %(default)s)")
    add(
        "--standing-stats",
        type=int,
        metavar="N",
        help="estimate batch-norm statistics on N batches, such as 100 (default: the training's running averages)",
    )
    add(
        "--devices",
        type=int,
        help="processes, a GPU each where there are some (default 1, or those of torchrun or SLURM); the samples are "
        "the same (on CPUs: with the same OMP_NUM_THREADS)",
    )
    way = parser.add_argument_group("interpolation, walk and history")
    way.add_argument("--between", choices=("latents", "classes", "both"), help="what changes (default latents)")
    way.add_argument("--path", choices=("spherical", "linear"), help="of the latents (default spherical)")
    way.add_argument("--steps", type=int, help="images of a row (default 8), frames from one to the next (default 16)")
    way.add_argument("--fps", type=int, help="frames in a second (of a walk: default 20; of a history: 5)")
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
    for name in ("num", "devices"):
        if (value := getattr(options, name)) is not None and value < 1:
            raise ValueError(f"--{name} (={value}) must be at least 1")
    if options.fps is not None and options.out.endswith(".png"):
        raise ValueError(f"--fps (={options.fps}) has no meaning for a .png; give --out another ending")
    if options.steps is None:
        options.steps = 16 if kind == "walk" else 8
    if options.fps is None:
        options.fps = 20 if kind == "walk" else 5
    options.indices = _indices(options.indices, KINDS[kind].num if options.num is None else options.num)
    _check_ending(options.out, kind)
    options.form = _form(options.out, getattr(options, "as"))
    _check_files(options)


def _form(out: str, given: str | None) -> str:
    """What --out is."""
    found = next((form for form, (_, ending) in FORMS.items() if ending and out.endswith(ending)), "folder")
    if given is None or given == found:
        return found
    ending = FORMS[given][1]
    if ending:
        raise ValueError(f"--out (={out}) must end in {ending} for --as {given}")
    if found != "folder":
        raise ValueError(f"--out (={out}) must be a folder for --as {given}, and ends in {FORMS[found][1]}")
    return given


def _check_files(options: argparse.Namespace) -> None:
    """A sample that is named twice would be two files of one name."""
    twice = [index for index, count in Counter(options.indices).items() if count > 1]
    if twice and options.kind == "samples" and options.form in ("folder", "zip", "shards"):
        raise ValueError(f"--indices name sample {twice[0]} twice; only a grid or npz can hold it so often")


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
