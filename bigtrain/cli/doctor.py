"""`bigtrain doctor`: looks at a machine, or at all that a run by a configuration needs, before it is begun."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bigtrain.cli.arguments import Parser

if TYPE_CHECKING:
    from bigtrain.cli.checks.plan import Plan


def run(arguments: Sequence[str]) -> int:
    """Prints what each check finds. 1 if there is an error among it.

    Where torchrun or srun started several, the first one reports; the others look at their nodes, and take part in the
    all-reduce.
    """
    if arguments and arguments[0] == "all-reduce":
        from bigtrain.cli.checks import reduction  # noqa: PLC0415 (torch)

        return reduction.run(arguments[1:])
    options, rest = _parser().parse_known_args(arguments)
    from bigtrain.cli.checks.all import CHECKS  # noqa: PLC0415 (`--help` answers without it)
    from bigtrain.cli.checks.check import examine  # noqa: PLC0415
    from bigtrain.cli.checks.plan import Plan  # noqa: PLC0415
    from bigtrain.runtime.compute import is_first, launched  # noqa: PLC0415

    with contextlib.suppress(ImportError, OSError):  # a check will tell; the time that it takes is not that check's
        import torch  # noqa: F401, PLC0415
    plan = Plan(rest)
    if launched() and not is_first():
        return _beside(plan)
    checks = [check for check in CHECKS if plan.configured or not check.of_run]
    width = max(len(check.name) for check in checks)
    for check in checks:
        lines = examine(check, plan)
        plan.lines += lines
        for level, name, found, remedy in [] if options.json else lines:
            print(f"{level:<7}  {name:<{width}}  {found}" + (f"; {remedy}" if remedy else ""), flush=True)
    if options.json:
        print(json.dumps([line._asdict() for line in plan.lines], indent=1))
    return int(any(line.level == "error" for line in plan.lines))


def _parser() -> Parser:
    parser = Parser(
        prog="bigtrain doctor",
        description="Looks at this machine; with a configuration, at all that its run needs. A line a finding: ok, "
        "warning or error, what was found, and the remedy. Exit code 1 if there is an error. Nothing is changed: an "
        "object that is written beside the shards is removed again. Under "
        "torchrun or srun all ranks take part.",
        usage="bigtrain doctor [--config FILE ...] [--run DIR] [dotted overrides, as of bigtrain fit] [--json]",
    )
    parser.add_argument("--json", action="store_true", help="print the same as data")
    return parser


def _beside(plan: Plan) -> int:
    """A rank that is not the first one: the first of each node tells what it finds there, and all sum."""
    from bigtrain.cli.checks.all import CHECKS  # noqa: PLC0415
    from bigtrain.cli.checks.check import examine  # noqa: PLC0415
    from bigtrain.cli.checks.machine import local_first  # noqa: PLC0415
    from bigtrain.cli.checks.ranks import take_part  # noqa: PLC0415

    for check in CHECKS if local_first() else ():
        if check.of_node and (plan.configured or not check.of_run):
            plan.lines += examine(check, plan)
    take_part(plan)
    return 0
