"""Memory, and the limits that the system or the container sets."""

from __future__ import annotations

import os
import resource
import shutil
from pathlib import Path

from bigtrain.cli.checks.finding import Finding, error, ok, warning
from bigtrain.cli.checks.plan import Plan
from bigtrain.cli.checks.sizes import GIB, MIB, shown

SHARED = Path("/dev/shm")
#: What NCCL's processes on one node want to share (NVIDIA's documentation for containers).
NCCL_SHARED = GIB
#: Shards that a training keeps open, and as much again for everything else.
OPEN_FILES = 1024
_PROCESS = 60 * MIB  # of one that decodes (see `ShardDataModule`)
_INFINIBAND = Path("/sys/class/infiniband")
#: Which groups this process is in, and where they are; of a group: its bound, its use, and what of that can be dropped.
OURS, GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
_FILES = {
    "": ("memory.max", "memory.current", "inactive_file"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def memory(plan: Plan) -> list[Finding]:
    """Of the host, against what the processes of this node take to read and decode."""
    available, whose = _available()
    if not plan.configured:
        return [ok(f"{shown(available)} {whose}")]
    data, game = plan.data, plan.game
    _, processes = plan.compute.layout()
    channels, parts = game.generator_network.image_channels, plan.processes
    step = max(phase.images_per_step // parts * phase.resolution**2 * channels for phase in game.schedule.phases)
    each = data["decode_processes"] * _PROCESS + data["decoded_mib"] * MIB + data["batches_ahead"] * step
    said = f"{shown(available)} {whose}; {processes} x {shown(each)} at most to read and decode"
    if each * processes > available:
        return [error(said, "lower data.decode_processes, data.batches_ahead or data.decoded_mib, or ask for more")]
    return [ok(said)]


def _available() -> tuple[int, str]:
    """Bytes, and whose bound that is: the machine's, or that of a container or job."""
    lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    free = 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    left = min(_left_by_groups(), default=free)
    return (left, "left by the container or job") if left < free else (free, "available")


def _left_by_groups() -> list[int]:
    """Bytes below each bound: a group is bound by those that it is in too."""
    found = []
    for line in OURS.read_text(encoding="utf-8").splitlines() if OURS.exists() else ():
        _, controllers, path = line.split(":", 2)
        for controller in set(controllers.split(",")) & _FILES.keys():
            inside = GROUPS / controller / path.strip("/")
            for group in (inside, *inside.parents):
                if group.is_relative_to(GROUPS / controller):
                    found += _left(group, *_FILES[controller])
    return found


def _left(group: Path, bound: str, used: str, droppable: str) -> list[int]:
    """What has been read from files counts as used, though the kernel gives it up when it is needed."""
    if not (group / bound).exists() or not (most := (group / bound).read_text().strip()).isdigit():
        return []
    lines = (group / "memory.stat").read_text(encoding="utf-8").splitlines()
    cached = next((int(line.split()[1]) for line in lines if line.split()[0] == droppable), 0)
    return [int(most) - int((group / used).read_text()) + cached]


def shared_memory(plan: Plan) -> list[Finding]:
    """NCCL's processes exchange through it. Those that decode do not: they share memory that needs no /dev/shm."""
    if not SHARED.is_dir():
        return [warning(f"there is no {SHARED}", "mount a tmpfs there")]
    total, _, free = shutil.disk_usage(SHARED)
    said = f"{shown(free)} of {shown(total)} free"
    on_gpu = plan.compute.on_gpu()
    several = plan.compute.layout()[1] > 1 if on_gpu else False
    if several and free < NCCL_SHARED:
        return [warning(f"{said}: little for NCCL", "docker run --shm-size 1g, or a larger emptyDir of medium Memory")]
    return [ok(said + ("" if several else ", needed by several GPUs only"))]


def limits(plan: Plan) -> list[Finding]:
    """Open files, and memory that may be locked."""
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = [ok(f"{_limit(files)} open files")]
    if files != resource.RLIM_INFINITY and files < OPEN_FILES:
        want = OPEN_FILES * 64 if most == resource.RLIM_INFINITY else min(most, OPEN_FILES * 64)
        how = f"ulimit -n {want}" if want >= OPEN_FILES else "ask root"
        found = [error(f"{files} open files are too few: {OPEN_FILES}", f"{how} (docker run --ulimit nofile=65536)")]
    locked, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    infiniband = _INFINIBAND.is_dir() and any(_INFINIBAND.iterdir())
    if infiniband and locked != resource.RLIM_INFINITY:
        found.append(
            warning(
                f"{shown(locked)} may be locked, and InfiniBand wants all",
                "ulimit -l unlimited (docker run --ulimit memlock=-1)",
            )
        )
    else:
        said = shown(locked) if locked != resource.RLIM_INFINITY else "any memory"
        found.append(ok(f"{said} may be locked{'' if infiniband else '; there is no InfiniBand that needs it'}"))
    return found


def _limit(value: int) -> str:
    return "unlimited" if value == resource.RLIM_INFINITY else str(value)


def local_first() -> bool:
    """Whether this process is the first of its node."""
    return os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0")) == "0"
