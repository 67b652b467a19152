"""The ranks together: an all-reduce with its bandwidth, their clocks, and what the other nodes found."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from bigtrain.cli.checks.finding import Finding, Level, Line, error, ok, warning
from bigtrain.cli.checks.plan import Plan
from bigtrain.cli.checks.sizes import shown
from bigtrain.runtime.compute import Compute, launched, under_slurm

#: In which all ranks must have started and answered: they import torch, and may wait for a busy file system.
SECONDS = 300.0
#: Bus bandwidth on GPUs below which gradients hold up a training; 10 Gbit Ethernet reaches it.
SLOW = 1e9
#: Seconds by which clocks of ranks may differ, as logs and certificates are compared.
SKEW = 5.0


def all_reduce(plan: Plan) -> list[Finding]:
    """A sum over the ranks that torchrun or srun started, or over as many as the run will have on this node."""
    if launched() and under_slurm() and "SLURM_STEP_ID" not in os.environ and plan.processes > 1:
        return [warning("in a job, but srun has not started its ranks", "srun bigtrain doctor, with fit's arguments")]
    compute, processes = _compute(plan)
    if processes == 1:
        return [ok("not needed by one process")]
    answer = measured(compute, plan.lines)
    return [_sum(answer, processes), *_clocks(answer["clocks"]), *_others(answer["nodes"])]


def take_part(plan: Plan) -> None:
    """The same of a rank that does not report it."""
    with contextlib.suppress(OSError, ValueError):  # the first rank tells of it
        plan.compute.layout()  # where that is wrong, the first rank does not come
        measured(Compute(plan.compute.accelerator), plan.lines)


def _compute(plan: Plan) -> tuple[Compute, int]:
    """On what it is measured: what was started, or what will be on this node; two processes of a CPU otherwise."""
    import torch  # noqa: PLC0415

    nodes, devices = plan.compute.layout()
    if launched():
        return Compute(plan.compute.accelerator), nodes * devices
    if not plan.configured:
        devices = torch.cuda.device_count() or 2
    return Compute(plan.compute.accelerator, devices=devices), devices


def measured(compute: Compute, lines: Sequence[Line], seconds: float = SECONDS) -> dict[str, Any]:
    """What the ranks measure, in processes of their own, so that one that hangs or dies does no harm here.

    Args:
        compute: on what.
        lines: what was found on this node, to be told to the first one.
        seconds: to wait.

    Raises:
        OSError: if they fail, or do not answer.
    """
    command = [sys.executable, "-m", "bigtrain", "doctor", "all-reduce"]
    command += ["--accelerator", compute.accelerator, "--devices", str(compute.devices)]
    pipe = subprocess.PIPE
    # (a new session of its own would have Linux share the CPUs otherwise, and is all that Python 3.10 knows)
    apart: dict[str, Any] = {"process_group": 0} if sys.version_info >= (3, 11) else {"start_new_session": True}
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, **apart)
    atexit.register(_kill, process)
    try:
        said, complaint = process.communicate(json.dumps(lines), timeout=seconds)
    except subprocess.TimeoutExpired:
        _kill(process)
        process.communicate()
        raise OSError(
            f"no answer of all ranks in {seconds:g} s: look for a firewall between the nodes, a network interface that "
            "only one of them has (NCCL_SOCKET_IFNAME, GLOO_SOCKET_IFNAME); NCCL_DEBUG=INFO tells more"
        ) from None
    finally:
        _kill(process)
        atexit.unregister(_kill)
    if os.environ.get("NCCL_DEBUG"):
        sys.stderr.write(complaint)
    if process.returncode:
        raise OSError(f"failed: {(complaint.strip().splitlines() or ['without a word'])[-1]}")
    return json.loads(said) if said.strip() else {}


def _kill(process: subprocess.Popen[str]) -> None:
    """And the ranks that it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _sum(answer: dict[str, Any], processes: int) -> Finding:
    seconds, count, backend = answer["seconds"], answer["bytes"], answer["backend"]
    bandwidth = 2 * (processes - 1) / processes * count / seconds  # as nccl-tests have it
    said = f"{processes} ranks by {backend}: {shown(count)} in {seconds * 1000:.3g} ms, {bandwidth / 1e9:.3g} GB/s"
    if not answer["right"]:
        return error(f"{said}, and the sum is wrong", "NCCL_P2P_DISABLE=1; if that helps, switch off the IOMMU's ACS")
    if backend == "nccl" and bandwidth < SLOW:
        return warning(f"{said}: slow", "NCCL_DEBUG=INFO tells which way it takes (NVLink, PCIe, InfiniBand, sockets)")
    return ok(said)


def _clocks(clocks: list[float]) -> list[Finding]:
    """Read at the same time, but for the moment that a barrier takes."""
    skew = max(clocks) - min(clocks)
    if skew > SKEW:
        return [warning(f"the ranks' clocks differ by {skew:.0f} s", "let the nodes keep time by NTP (chrony)")]
    return [ok(f"the ranks' clocks differ by less than {max(0.1, skew):.1f} s")]


def _others(nodes: dict[str, list[tuple[Level, str, str, str]]]) -> list[Finding]:
    """Of the other nodes only what is not in order."""
    if not nodes:
        return []
    found = [
        Finding(level, f"{node}: {check}: {text}", remedy)
        for node, lines in sorted(nodes.items())
        for level, check, text, remedy in lines
        if level != "ok"
    ]
    return found or [ok(f"{', '.join(sorted(nodes))} found nothing wrong either")]
