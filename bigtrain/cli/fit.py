"""`bigtrain fit`: trains by a configuration. The same command resumes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def run(arguments: Sequence[str]) -> int:
    """Parses, builds, starts the ranks, finds the place in the run's folder, trains. 0 when training is finished."""
    from bigtrain.cli import rank  # noqa: PLC0415 (torch)
    from bigtrain.cli.configuration import as_dict, instantiate, make_parser, parse  # noqa: PLC0415
    from bigtrain.cli.run_folder import RunFolder  # noqa: PLC0415
    from bigtrain.runtime.compute import is_first  # noqa: PLC0415
    from bigtrain.runtime.launch import ranks, strategy_of  # noqa: PLC0415

    parser = make_parser()
    config = parse(parser, arguments)
    plain = as_dict(parser, config)
    with RunFolder(folder_of(config), keeper=is_first()) as folder:
        folder.check(plain)
        built = instantiate(parser, config)
        strategy_of(built.compute)
        with ranks(built.compute, ["fit", *arguments]):
            return rank.run(folder, built, plain)


def folder_of(config: Any) -> str:
    """The folder of the run that a configuration makes."""
    if config.run is None and not config.config:
        raise ValueError("bigtrain fit needs --config FILE (see configs/), or --run FOLDER")
    return str(config.run or f"runs/{Path(str(config.config[-1])).stem}")
