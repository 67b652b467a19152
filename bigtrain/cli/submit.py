"""`bigtrain submit`: lets SLURM run the scripts of slurm/, which this package has in its own folder of that name."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bigtrain.cli.arguments import Parser
from bigtrain.cli.jobs import ask
from bigtrain.cli.slurm_options import add_options, check_words, container_variables, joined, sbatch_options
from bigtrain.cli.submissions import Submission, evaluate, shards, sweep, train

SCRIPTS = Path(__file__).parent / "slurm"
KINDS: dict[str, tuple[Callable[[argparse.Namespace, list[str]], list[Submission]], str]] = {
    "train": (train, "ARGUMENTS OF bigtrain fit"),
    "evaluate": (evaluate, "ARGUMENTS OF bigtrain evaluate"),
    "shards": (shards, "SOURCE DEST, OPTIONS OF bigtrain shards build"),
    "sweep": (sweep, "ARGUMENTS OF bigtrain fit"),
}
SECONDS_TO_SUBMIT = 120.0


def run(arguments: Sequence[str]) -> int:
    """Checks all that is asked for, and only then submits; says how to follow what it has submitted."""
    kind, *rest = arguments if arguments and arguments[0] in KINDS else ("train", *arguments)
    make, _ = KINDS[kind]
    options, handed_on = _parser(kind).parse_known_args(joined(rest))
    check_words([*handed_on, *getattr(options, "over", ())])
    given = sbatch_options(options)
    submissions = make(options, handed_on)
    variables = container_variables(options, submissions[0].folders)
    if options.dry_run:
        for before, one in zip((None, "JOB"), submissions, strict=False):
            print(_shown(one, given, variables, before))
        return 0
    if shutil.which("sbatch") is None:
        raise ValueError("there is no sbatch on this machine: submit where SLURM's commands are, or look by --dry-run")
    after: str | None = None
    for one in submissions:
        _check_free(one)
        one.folder.mkdir(parents=True, exist_ok=True)
        after = _submit(one, given, variables, after)
        for run, task in zip(one.runs, one.tasks(after), strict=False):  # (there are tasks without runs)
            run.path.mkdir(exist_ok=True)
            run.jobs.submitted(task, one.log_of(task))
        print(_followed(one, after))
    return 0


def _parser(kind: str) -> Parser:
    parser = Parser(
        prog="bigtrain submit",
        usage=f"bigtrain submit [{'|'.join(KINDS)}] [OPTIONS] {KINDS[kind][1]}",
        description="Submits a job to SLURM: a training (which goes on after its time limit, preemption and lost "
        "nodes), scores, shards built by an array, or a training for each value of an option. What is no option here "
        "is handed on, and checked before anything is submitted.",
    )
    add_options(parser)
    if kind != "shards":
        parser.set_defaults(nodes="1")
    if kind in ("shards", "sweep"):
        parser.add_argument("--at-once", metavar="N", help="tasks that run at the same time (default: all)")
    if kind == "shards":
        parser.add_argument("--parts", metavar="N", required=True, help="tasks that build a part each")
    if kind == "sweep":
        over = ("--over", "OPTION VALUE", "of the configuration, and the values of which each is a run in --run FOLDER")
        parser.add_argument(over[0], nargs="+", metavar=over[1], required=True, help=over[2])
    return parser


def _check_free(submission: Submission) -> None:
    """One run, one job: a second one would find the run's folder in use."""
    for run in submission.runs:
        job = run.jobs.newest
        if job is not None and (answer := ask(job)).alive:
            raise ValueError(f"job {job} of the run in {run.path} is {answer.state}: wait for it, or scancel {job}")


def _command(submission: Submission, given: Sequence[str], after: str | None) -> list[str]:
    options = [*submission.options, *given, f"--output={submission.output}"]
    if after is not None:
        options += [f"--dependency=afterok:{after}", "--kill-on-invalid-dep=yes"]
    return ["sbatch", "--parsable", *options, str(SCRIPTS / submission.script), *submission.arguments]


def _submit(submission: Submission, given: Sequence[str], variables: Mapping[str, str], after: str | None) -> str:
    """The number of the job."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    environment |= {name: value for name, value in os.environ.items() if name == "SLURM_CONF"}
    environment |= {**variables, **submission.variables}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', os.defpath)}"
    try:
        done = subprocess.run(
            _command(submission, given, after),
            env=environment,
            capture_output=True,
            text=True,
            timeout=SECONDS_TO_SUBMIT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f"sbatch did not answer in {SECONDS_TO_SUBMIT:g} s; squeue tells what is submitted") from None
    if done.returncode:
        raise ValueError(f"sbatch refused the job: {done.stderr.strip() or f'exit code {done.returncode}'}")
    return done.stdout.strip().split(";")[0]


def _shown(submission: Submission, given: Sequence[str], variables: Mapping[str, str], after: str | None) -> str:
    """The command, as a shell would take it, and the script."""
    told = [f"{name}={value}" for name, value in {**variables, **submission.variables}.items()]
    command = shlex.join([*(["env", *told] if told else []), *_command(submission, given, after)])
    return "\n\n".join([command, (SCRIPTS / submission.script).read_text(encoding="utf-8")])


def _followed(submission: Submission, job: str) -> str:
    log = submission.log_of(submission.tasks(job)[0])
    lines = [f"job {job}: {submission.what}", f"log      {log}"]
    lines += [f"follow   tail -F {shlex.quote(log)}", f"         squeue --jobs={job}"]
    lines += [f"         bigtrain status {shlex.quote(str(run.path))}" for run in submission.runs]
    return "\n".join([*lines, f"stop     scancel {job}"])
