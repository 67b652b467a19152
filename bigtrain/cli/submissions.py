"""The kinds of jobs that `bigtrain submit` knows: what each is to do is checked here, before it is submitted."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bigtrain.cli.checks.sizes import existing
from bigtrain.cli.run_folder import RunFolder
from bigtrain.cli.slurm_options import layout, pattern_of
from bigtrain.storage import is_remote


@dataclass(frozen=True)
class Submission:
    """One job, or one array of them.

    Args:
        script: of slurm/.
        what: it does, in a few words.
        arguments: of the script.
        folder: where its log goes.
        options: of sbatch that follow from the kind.
        indices: of the array; empty if it is none.
        variables: for its environment.
        runs: that it makes, each by a task of the array.
        folders: that a container has to see.
    """

    script: str
    what: str
    arguments: list[str]
    folder: Path
    options: list[str] = field(default_factory=list)
    indices: range = range(0)
    variables: Mapping[str, str] = field(default_factory=dict)
    runs: list[RunFolder] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)

    @property
    def output(self) -> str:
        """Where the log goes, as SLURM is told."""
        return f"{pattern_of(self.folder)}/slurm-{'%A_%a' if self.indices else '%j'}.log"

    def tasks(self, job: str) -> list[str]:
        """The numbers of the jobs that are submitted by that number."""
        return [f"{job}_{index}" for index in self.indices] or [job]

    def log_of(self, task: str) -> str:
        return f"{self.folder}/slurm-{task}.log"


def train(options: argparse.Namespace, arguments: list[str]) -> list[Submission]:
    """A training by a configuration, which is checked."""
    run, files = _checked(options, arguments)
    name = re.sub(r"[^\w.@+-]", "_", run.path.resolve().name, flags=re.ASCII)
    nodes, processes = layout(options)
    return [
        Submission(
            "train.sbatch",
            f"training {run.path}, nodes: {nodes}, processes on each: {processes}",
            [*arguments, *([] if _named(arguments) else ["--run", str(run.path)])],
            run.path,
            [f"--ntasks-per-node={processes}", *([] if options.job_name else [f"--job-name=bigtrain-{name}"])],
            runs=[run],
            folders=[Path.cwd(), run.path, *files],
        )
    ]


def sweep(options: argparse.Namespace, arguments: list[str]) -> list[Submission]:
    """A training for each value of an option."""
    name, *values = options.over
    if not values or re.fullmatch(r"\w[\w.]*", name, re.ASCII) is None:
        raise ValueError(f"--over (={' '.join(options.over)}) must be an option and its values, such as seed 0 1 2")
    if "--" in values:
        raise ValueError("--over must not have -- for a value")
    whole, _ = _checked(options, arguments)
    folders = [whole.path / f"{name}={re.sub(r'[^A-Za-z0-9._-]', '_', value)}" for value in values]
    if len({str(folder) for folder in folders}) < len(values):
        raise ValueError(f"--over (={' '.join(options.over)}) must give every value a folder of its own")
    several = [
        _checked(options, [*arguments, "--run", str(folder), f"--{name}={value}"])
        for folder, value in zip(folders, values, strict=True)
    ]
    nodes, processes = layout(options)
    return [
        Submission(
            "sweep.sbatch",
            f"{len(values)} trainings in {whole.path}, nodes of each: {nodes}, processes on each: {processes}",
            [name, *values, "--", *arguments],
            whole.path,
            [f"--ntasks-per-node={processes}", _array(0, len(values), options.at_once)],
            range(len(values)),
            {"BIGTRAIN_RUNS": str(whole.path)},
            [run for run, _ in several],
            [Path.cwd(), whole.path, *several[0][1]],
        )
    ]


def evaluate(options: argparse.Namespace, arguments: list[str]) -> list[Submission]:
    """Scores."""
    from bigtrain.cli import evaluate as verb  # noqa: PLC0415 (only when it is asked for)

    named: list[str | None] = []
    if arguments[:1] == ["train-extractor"]:
        _check_one_process(options)
    else:
        parsed = verb.parse(arguments)
        named = [*parsed.source, parsed.reference, parsed.weights, parsed.json, parsed.table, parsed.plot]
        if parsed.devices is not None:
            raise ValueError(f"--devices (={parsed.devices}) is not for SLURM: say --gpus-per-node and --nodes")
    nodes, processes = layout(options)
    what = f"scores, nodes: {nodes}, processes on each: {processes}"
    tasks = [f"--ntasks-per-node={processes}"]
    return [Submission("evaluate.sbatch", what, arguments, Path.cwd(), tasks, folders=_folders(named))]


def shards(options: argparse.Namespace, arguments: list[str]) -> list[Submission]:
    """An array that builds shards, and a job that merges the parts when all of them are there."""
    from bigtrain.cli import shards as verb  # noqa: PLC0415 (only when it is asked for)

    _check_one_process(options)
    count = _count("--parts", options.parts)
    _, parsed = verb.parse(["build", *arguments])
    if parsed["part"] is not None:
        raise ValueError("--part is each task's own: --parts N says how many there are")
    here = Path.cwd()
    folders = _folders([parsed["source"], parsed["dest"]])
    build = Submission(
        "build_shards.sbatch",
        f"shards {parsed['dest']}, tasks: {count}",
        ["build", *arguments],
        here,
        [_array(1, count, options.at_once)],
        range(1, count + 1),
        folders=folders,
    )
    merge = replace(build, what="merges the parts", arguments=["index", parsed["dest"]], options=[], indices=range(0))
    return [build, merge]


def _checked(options: argparse.Namespace, arguments: Sequence[str]) -> tuple[RunFolder, list[Path]]:
    """The run that a configuration makes, and the folders of its files.

    Raises:
        ValueError: if the configuration, or what it says of processes, is wrong, or the run was begun with another.
    """
    from bigtrain.cli.configuration import as_dict, make_parser, parse  # noqa: PLC0415 (torch)
    from bigtrain.cli.fit import folder_of  # noqa: PLC0415
    from bigtrain.runtime.compute import Compute  # noqa: PLC0415
    from bigtrain.runtime.launch import strategy_of  # noqa: PLC0415

    parser = make_parser()
    config = parse(parser, arguments)
    run = RunFolder(folder_of(config))
    run.check(as_dict(parser, config))
    nodes, processes = layout(options)
    # What a GPU can do is not asked here, where there may be none.
    compute = replace(Compute(**config.compute.as_dict()), precision="32-true", accelerator="cpu")
    tasks = {"SLURM_PROCID": "0", "SLURM_NNODES": str(nodes), "SLURM_NTASKS": str(nodes * processes)}
    try:
        strategy_of(compute, tasks)
    except ValueError as error:
        raise ValueError(f"for --nodes (={nodes}) with {processes} processes each: {error}") from error
    return run, [Path(str(file)).parent for file in config.config or []]


def _folders(named: Sequence[str | None]) -> list[Path]:
    """Where paths lie, and what is still to be written: the nearest folders that are there; and the present one."""
    local = [Path(one) for one in named if one and not is_remote(one)]
    found = (existing(path.absolute()) for path in local if path.exists() or path.parent != Path())
    return [Path.cwd(), *(folder for folder in found if folder != Path(folder.anchor))]


def _named(arguments: Sequence[str]) -> bool:
    """Whether the arguments say which run it is."""
    return any(word.partition("=")[0] == "--run" for word in arguments)


def _array(first: int, count: int, at_once: str | None) -> str:
    limit = "" if at_once is None else f"%{_count('--at-once', at_once)}"
    return f"--array={first}-{first + count - 1}{limit}"


def _count(name: str, value: str) -> int:
    if not (value.isascii() and value.isdigit() and 0 < int(value) <= 100_000):
        raise ValueError(f"{name} (={value!r}) must be a number from 1 on")
    return int(value)


def _check_one_process(options: argparse.Namespace) -> None:
    for name, value in (("nodes", options.nodes), ("gpus-per-node", options.gpus_per_node)):
        if value is not None and int(value.rpartition(":")[2]) > 1:
            raise ValueError(f"--{name} (={value}) must be 1: this is done by one process")
