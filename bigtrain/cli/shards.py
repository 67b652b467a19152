"""`bigtrain shards build SOURCE DEST` and `bigtrain shards verify URL`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from bigtrain.cli.arguments import Parser
from bigtrain.data.kinds import KINDS


def run(arguments: Sequence[str]) -> int:
    """Builds or verifies shards; 1 if what is verified has problems."""
    parser = Parser(prog="bigtrain shards", description="Builds and verifies the shards that training reads.")
    added = parser.add_subparsers(dest="command", metavar="build|verify", required=True)
    commands = {
        "build": added.add_parser("build", help="make shards of images, at every resolution"),
        "verify": added.add_parser("verify", help="read back every file of a set of shards"),
    }
    _add_build(commands["build"])
    commands["verify"].add_argument("url", metavar="URL", help="of the shards: a path, s3://, gs://, az:// or https://")
    options, unknown = parser.parse_known_args(arguments)
    if unknown:  # told by the command's own parser, which knows the closest option
        commands[options.command].error(f"unrecognized arguments: {' '.join(unknown)}")
    values = vars(options)
    return _build(**values) if values.pop("command") == "build" else _verify(**values)


def _add_build(parser: argparse.ArgumentParser) -> None:
    parser.description = "Makes shards of images. The same command goes on with a build that was interrupted."
    add = parser.add_argument
    add("source", metavar="SOURCE", help=KINDS)
    add("dest", metavar="DEST", help="URL to write to: a path, s3://, gs:// or az://")
    add("--resolutions", type=_integers, help="powers of two, such as 4,8,16,32 (default: from 4 up to the images')")
    add("--samples-per-shard", type=int, default=4096, help="(default: 4096)")
    add("--encoding", choices=("auto", "png", "jpeg"), default="auto", help="auto: png up to 64 pixels, jpeg above")
    add("--quality", type=int, default=95, help="of jpeg, 1 to 100 (default: 95)")
    add("--channels", type=int, choices=(1, 3), help="(default: 1 for digits and idx, 3 for files)")
    add(
        "--upscale",
        action=argparse.BooleanOptionalAction,
        help="enlarge images smaller than the largest resolution instead of skipping them (default: digits and idx)",
    )
    add("--unlabelled", action="store_true", help="drop the labels")
    add("--subfolder", metavar="NAME", help="of a folder or zip, to begin with")
    add("--workers", type=int, help="processes (default: one for each CPU)")
    add("--seed", type=int, default=0, help="of the order in which images are mixed over the shards (default: 0)")


def _integers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} must be numbers with commas, such as 4,8,16,32") from None


def _build(
    source: str, dest: str, channels: int | None, subfolder: str | None, unlabelled: bool, **options: object
) -> int:
    from bigtrain.data.sources import open_source  # noqa: PLC0415 - `--help` answers without it
    from bigtrain.data.writer import build, summary  # noqa: PLC0415
    from bigtrain.storage import Storage  # noqa: PLC0415

    storage = Storage(dest)
    manifest = build(open_source(source, channels, subfolder, unlabelled), storage, **options)  # type: ignore[arg-type]
    print("\n".join(summary(storage, manifest)))
    return 0


def _verify(url: str) -> int:
    from bigtrain.data.verify import summary, verify  # noqa: PLC0415

    problems = verify(url)
    print("\n".join(problems or [summary(url)]))
    return 1 if problems else 0
