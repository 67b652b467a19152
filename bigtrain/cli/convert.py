"""`bigtrain convert`: weights of other trainers as snapshots, and snapshots as files of other programs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from bigtrain.cli.arguments import Parser
from bigtrain.interop.formats import FORMATS

#: What a snapshot can become beside the foreign formats that have a way back.
OWN = {"safetensors": ".safetensors", "onnx": ".onnx"}
WRITTEN = (*OWN, *(name for name, known in FORMATS.items() if known.writes))
#: Options that a format needs for what its files do not tell, and the formats that have them.
OPTIONS: dict[str, tuple[str, ...]] = {
    "suffix": ("biggan-pytorch",),
    "raw": ("biggan-pytorch",),
    "sn_eps": ("biggan-pytorch",),
    "bn_eps": ("biggan-pytorch",),
    "last_bn_eps": ("biggan-pytorch",),
    "cross_replica": ("biggan-pytorch",),
    "truncation": ("hf-biggan",),
    "interpolation": ("hf-biggan",),
    "resolution": ("pro-gan-pth",),
    "alpha": ("pro-gan-pth",),
    "equalized": ("pro-gan-pth",),
}


def run(arguments: Sequence[str]) -> int:
    """Reads SRC in one format and writes DST in another."""
    options = _parser().parse_args(arguments)
    given = check(options)

    from bigtrain.cli import conversions  # noqa: PLC0415 (torch: only when there is something to do)

    if options.source_format is not None:
        made = conversions.from_foreign(options.source, options.destination, options.source_format, given)
    elif options.format == "safetensors":
        made = conversions.to_snapshot(options.source, options.destination)
    elif options.format == "onnx":
        made = conversions.to_onnx(options.source, options.destination)
    else:
        made = conversions.to_foreign(options.source, options.destination, options.format)
    print(f"{options.destination}: {made}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="bigtrain convert",
        description="Weights of other trainers as a snapshot, which `sample`, `evaluate` and `fit --start_from` take; "
        "and snapshots as files of other programs. Nothing in a file is executed.",
    )
    add = parser.add_argument
    add("source", metavar="SRC", help="a file or folder of the format; with --to a run or a snapshot; a path or URL")
    add(
        "destination",
        metavar="DST",
        help="NAME.safetensors (with its card, NAME.json), or a folder with snapshots/; with --to a file or folder",
    )
    add("--from", dest="source_format", choices=tuple(FORMATS), help=_told({n: f.what for n, f in FORMATS.items()}))
    add("--to", dest="format", choices=WRITTEN, help="what is written of a snapshot")
    biggan = parser.add_argument_group("--from biggan-pytorch")
    biggan.add_argument("--suffix", help="of the files' names, such as best0 of G_ema_best0.pth (default none)")
    biggan.add_argument("--raw", action="store_const", const=True, help="G rather than its average G_ema")
    biggan.add_argument("--sn-eps", type=float, help="SN_eps (default that of state_dict.pth, else 1e-8)")
    biggan.add_argument("--bn-eps", type=float, help="BN_eps (default that of state_dict.pth, else 1e-5)")
    biggan.add_argument(
        "--last-bn-eps", type=float, help="of the last batch norm, which BN_eps does not reach there (default 1e-5)"
    )
    biggan.add_argument(
        "--cross-replica",
        choices=("added", "multiplied"),
        help="what a run with --cross_replica does with gains: that code adds them unless it is on several GPUs, so "
        "also when it samples (default added)",
    )
    hf = parser.add_argument_group("--from hf-biggan")
    hf.add_argument("--truncation", type=float, help="whose batch statistics are taken, of those stored (default 1)")
    hf.add_argument(
        "--interpolation",
        choices=("source", "linear"),
        help="between two stored truncations: as that code does, which takes the weights of the two the wrong way "
        "round, or linear (default source)",
    )
    pro_gan = parser.add_argument_group("--from pro-gan-pth")
    pro_gan.add_argument("--resolution", type=int, help="at which it stands: depth_5 is 32 (default its largest)")
    pro_gan.add_argument("--alpha", type=float, help="how far its last block has faded in (default 1)")
    pro_gan.add_argument(
        "--no-equalized",
        dest="equalized",
        action="store_const",
        const=False,
        help="a file of version 2 is of a network without equalized learning rate",
    )
    return parser


def _told(what: dict[str, str]) -> str:
    return "; ".join(f"{name}: {text}" for name, text in what.items())


def check(options: argparse.Namespace) -> dict[str, Any]:
    """The options of the format that were given.

    Raises:
        ValueError: naming what is missing, or has no meaning beside the others.
    """
    if (options.source_format is None) == (options.format is None):
        raise ValueError("one of --from FORMAT (into a snapshot) and --to FORMAT (of a run or snapshot) is needed")
    ending = OWN.get(options.format)
    if ending and not options.destination.endswith(ending):
        raise ValueError(f"DST (={options.destination}) must end in {ending} for --to {options.format}")
    given = {name: value for name in OPTIONS if (value := getattr(options, name)) is not None}
    for name, value in given.items():
        if options.source_format not in OPTIONS[name]:
            flag = f"--{name.replace('_', '-')}"
            raise ValueError(f"{flag} (={value}) is for --from {' and --from '.join(OPTIONS[name])} only")
    return given
