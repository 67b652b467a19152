"""The GPUs, and the driver that torch's CUDA needs."""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
import warnings
from pathlib import Path

from bigtrain.cli.checks.finding import Finding, error, ok, warning
from bigtrain.cli.checks.plan import Plan
from bigtrain.cli.checks.sizes import shown
from bigtrain.data.machine import cpus
from bigtrain.runtime.compute import launched

#: The oldest driver that serves any CUDA of a generation (NVIDIA's table of minor version compatibility).
OLDEST_DRIVER = {11: (450, 80, 2), 12: (525, 60, 13), 13: (580,)}
_LOADED = Path("/proc/driver/nvidia/version")
_ASKED = ("uuid", "driver_version", "ecc.errors.uncorrected.volatile.total", "mig.mode.current")


def gpus(plan: Plan) -> list[Finding]:
    """Each GPU: its name and memory, whether it computes, whether somebody else uses it."""
    import torch  # noqa: PLC0415

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        return [_none(plan, "; ".join(str(one.message) for one in said))]
    known = _asked()
    found = [_gpu(number, known) for number in range(count)]
    if not launched() and plan.compute.accelerator != "cpu" and plan.compute.devices > count:
        found.append(error(f"compute.devices (={plan.compute.devices}) are more than {count}", "set it to 0: all"))
    return found


def _none(plan: Plan, said: str) -> Finding:
    import torch  # noqa: PLC0415

    if plan.compute.accelerator == "cpu":
        return ok(f"none are asked for: {cpus()} CPU cores")
    if not (_LOADED.exists() or _asked()):
        if plan.compute.accelerator == "gpu":
            return error("none, but compute.accelerator is gpu", "train where there are some, or set it to auto")
        return ok(f"none: {cpus()} CPU cores train")
    if torch.version.cuda is None:
        return error(
            f"there are some, but torch {torch.__version__} is built without CUDA",
            "install the torch that pytorch.org names for this driver",
        )
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None:
        return error(f"CUDA_VISIBLE_DEVICES (={hidden!r}) leaves none", "unset it, or ask the scheduler for some")
    return error(f"there are some, but torch cannot use them: {said or 'it does not say why'}", "see driver below")


def _gpu(number: int, known: dict[str, dict[str, str]]) -> Finding:
    import torch  # noqa: PLC0415

    device = torch.cuda.get_device_properties(number)
    about = known.get(f"GPU-{getattr(device, 'uuid', '')}", {})
    try:
        right = computes(number)
        free, total = torch.cuda.mem_get_info(number)
    except RuntimeError as problem:
        return error(
            f"{number}: {device.name} does not compute: {str(problem).splitlines()[0]}",
            f"install a torch for its compute capability {device.major}.{device.minor}, or look at dmesg for Xid",
        )
    said = f"{number}: {device.name}, {shown(free)} of {shown(total)} free"
    said += f", MIG {about['mig.mode.current'].lower()}" if about.get("mig.mode.current", "[").isalpha() else ""
    errors = about.get("ecc.errors.uncorrected.volatile.total", "")
    if not right:
        return error(f"{said}: it computes wrong numbers", "take it out of service")
    if errors.isdigit() and int(errors):
        return error(f"{said}, {errors} uncorrected ECC errors", "reset it (nvidia-smi -r), or take it out of service")
    if free < 0.9 * total:
        return warning(f"{said}: somebody else uses it", "nvidia-smi names the process")
    return ok(said + (", no ECC errors" if errors == "0" else ""))


def computes(number: int) -> bool:
    """Whether a product of matrices of ones on that GPU is what it must be."""
    import torch  # noqa: PLC0415

    ones = torch.ones(256, 256, device=f"cuda:{number}")
    return bool((ones @ ones == 256).all())


def driver(plan: Plan) -> list[Finding]:
    """Whether the driver serves the CUDA that torch was built with."""
    import torch  # noqa: PLC0415

    cuda, version = torch.version.cuda, _driver_version()
    if version is None or cuda is None:
        return [ok(f"{'none' if version is None else version}; torch {torch.__version__} {_built(cuda)}")]
    oldest = OLDEST_DRIVER.get(int(cuda.partition(".")[0]), ())
    if tuple(map(int, version.split("."))) < oldest:
        needed = ".".join(map(str, oldest))
        found = warning if torch.cuda.is_available() else error  # with NVIDIA's compatibility package it may do
        return [
            found(
                f"{version} is too old for CUDA {cuda} of torch {torch.__version__}, which needs {needed}",
                "update the driver, or install a torch for an older CUDA",
            )
        ]
    libraries = f"cuDNN {torch.backends.cudnn.version()}"
    if torch.distributed.is_available() and torch.distributed.is_nccl_available():
        libraries += f", NCCL {'.'.join(map(str, torch.cuda.nccl.version()))}"
    return [ok(f"{version} serves CUDA {cuda} of torch {torch.__version__}; {libraries}")]


def _built(cuda: str | None) -> str:
    return "is built without CUDA" if cuda is None else f"is built with CUDA {cuda}"


def _driver_version() -> str | None:
    """Of the loaded driver; in a container without /proc/driver as nvidia-smi says it."""
    if _LOADED.exists():
        found = re.search(r"\s(\d+(?:\.\d+)+)\s", _LOADED.read_text(encoding="utf-8"))
        if found:
            return found[1]
    return next((about["driver_version"] for about in _asked().values()), None)


def _asked() -> dict[str, dict[str, str]]:
    """What nvidia-smi tells of each GPU, by its UUID; nothing where it is not there or fails."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return {}
    query = [program, f"--query-gpu={','.join(_ASKED)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, check=False, timeout=20)
    except subprocess.TimeoutExpired:
        raise OSError("nvidia-smi does not answer in 20 s: look at dmesg for Xid") from None
    if done.returncode:
        return {}
    rows = [dict(zip(_ASKED, row, strict=False)) for row in csv.reader(done.stdout.splitlines(), skipinitialspace=True)]
    return {row["uuid"]: row for row in rows if len(row) == len(_ASKED)}
