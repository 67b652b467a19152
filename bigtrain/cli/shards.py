"""`bigtrain shards build SOURCE DEST`, `bigtrain shards index URL ...` and `bigtrain shards verify URL`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

from bigtrain.cli.arguments import Parser
from bigtrain.data.kinds import KINDS


def run(arguments: Sequence[str]) -> int:
    """Builds, indexes or verifies shards; 1 if what is indexed or verified has problems."""
    command, values = parse(arguments)
    verbs: dict[str, Callable[..., int]] = {"build": _build, "index": _index, "verify": _verify}
    return verbs[command](**values)


def parse(arguments: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """The command, and its arguments by name.

    Raises:
        ValueError: one line, for what it does not know.
    """
    parser = Parser(prog="bigtrain shards", description="Builds, indexes and verifies the shards that training reads.")
    added = parser.add_subparsers(dest="command", metavar="build|index|verify", required=True)
    commands = {
        "build": added.add_parser("build", help="make shards of images, at every resolution"),
        "index": added.add_parser("index", help="take shards made elsewhere; or merge the parts of a build"),
        "verify": added.add_parser("verify", help="read back every file of a set of shards"),
    }
    _add_build(commands["build"])
    _add_index(commands["index"])
    commands["verify"].add_argument("url", metavar="URL", help="of the shards: a path, s3://, gs://, az:// or https://")
    options, unknown = parser.parse_known_args(arguments)
    if unknown:  # told by the command's own parser, which knows the closest option
        commands[options.command].error(f"unrecognized arguments: {' '.join(unknown)}")
    values = vars(options)
    return values.pop("command"), values


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
    add("--split", metavar="NAME", help="of torchvision:NAME, such as train or test (default: train)")
    add("--download", action="store_true", help="let torchvision:NAME download what is not there")
    add("--workers", type=int, help="processes (default: one for each CPU)")
    add("--seed", type=int, default=0, help="of the order in which images are mixed over the shards (default: 0)")

    add(
        "--part",
        type=_part,
        metavar="I/N",
        help="build only the I-th of N parts, for a job array; `shards index DEST` merges them when all are done",
    )


def _add_index(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Makes the manifest of shards as WebDataset and img2dataset write them, by reading their headers; the shards "
        "stay as they are. Of a build with --part, merges the parts."
    )
    add = parser.add_argument
    add("urls", metavar="URL", nargs="+", help="a folder of tars, one .tar, or a pattern: 'data/{0000..0123}.tar'")
    add("--to", metavar="DEST", help="URL for the manifest and the indexes (default: URL, if it is one folder)")
    add("--label", metavar="RULE", help="cls, json:FIELD or none (default: cls, if there are any)")
    add("--classes", metavar="FILE|COUNT", help="a class name a line, or their number (default: by the labels)")
    add("--channels", type=int, choices=(1, 3), help="to which images are converted when they are read (default: 3)")
    add(
        "--checksums",
        action=argparse.BooleanOptionalAction,
        help="read all bytes, so that damage is found when training reads them (default: only if all shards are local)",
    )
    add("--workers", type=int, help="threads (default: four for each CPU)")


def _part(text: str) -> tuple[int, int]:
    number, slash, count = text.partition("/")
    if not (slash and number.isdigit() and count.isdigit() and 1 <= int(number) <= int(count)):
        raise argparse.ArgumentTypeError(f"{text!r} must be I/N with I from 1 to N, such as 3/16")
    return int(number), int(count)


def _integers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} must be numbers with commas, such as 4,8,16,32") from None


def _build(
    source: str,
    dest: str,
    channels: int | None,
    subfolder: str | None,
    unlabelled: bool,
    split: str | None,
    download: bool,
    **options: object,
) -> int:
    from bigtrain.data.sources import open_source  # noqa: PLC0415 - `--help` answers without it
    from bigtrain.data.writer import build, summary  # noqa: PLC0415
    from bigtrain.storage import Storage  # noqa: PLC0415

    storage = Storage(dest)
    found = open_source(source, channels, subfolder, unlabelled, split, download)
    manifest = build(found, storage, **options)  # type: ignore[arg-type]
    if manifest is None:
        print(f"this part is finished; when all are, run `bigtrain shards index {dest}`")
    else:
        print("\n".join(summary(storage, manifest)))
    return 0


def _index(urls: list[str], **options: object) -> int:
    from bigtrain.data.indexing import RefusedShardsError, index, summary  # noqa: PLC0415
    from bigtrain.data.merging import merge_machines  # noqa: PLC0415
    from bigtrain.data.writer import is_build  # noqa: PLC0415
    from bigtrain.data.writer import summary as build_summary  # noqa: PLC0415
    from bigtrain.storage import Storage  # noqa: PLC0415

    given = {name: value for name, value in options.items() if value is not None}
    if len(urls) == 1 and is_build(urls[0]):
        if given:
            raise ValueError(f"--{next(iter(given))} is not for {urls[0]!r}, a build whose parts are merged")
        storage = Storage(urls[0])
        print("\n".join(build_summary(storage, merge_machines(storage))))
        return 0
    try:
        print("\n".join(summary(index(urls, **given))))  # type: ignore[arg-type]
    except RefusedShardsError as error:
        print("\n".join(error.lines()), file=sys.stderr)
        return 1
    return 0


def _verify(url: str) -> int:
    from bigtrain.data.verify import summary, verify  # noqa: PLC0415

    problems = verify(url)
    print("\n".join(problems or [summary(url)]))
    return 1 if problems else 0
