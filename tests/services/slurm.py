"""A real SLURM of two nodes on this machine for tests, from Debian's packages: loopback, no system service touched."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.services.needs import need_file
from tests.services.s3 import free_ports
from tests.services.tethered import Tethered

NODES = ("n1", "n2")  # the first one's name becomes MASTER_ADDR, so that it must resolve
CPUS = 2
_HOSTS = Path("/etc/hosts")
_CONFIGURATION = """
ClusterName=test
FirstJobId={first_job}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=5,bf_interval=5,batch_sched_delay=0,sched_min_interval=0
SlurmdParameters=config_overrides
ReturnToService=2
JobRequeue=1
KillWait=10
MessageTimeout=20
InactiveLimit=0
SlurmdTimeout=60
MinJobAge=600
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName={nodes} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports} CPUs={cpus} RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=20
PartitionName=high Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""


class Slurm:
    """A running cluster: a controller, two nodes, and munge with a key of their own.

    Args:
        folder: for its state, keys and logs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._daemons = folder, dict[str, Tethered]()
        (folder / "slurm.conf").write_text(self._configuration())
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf")}

    def _configuration(self) -> str:
        controller, *nodes = free_ports(1 + len(NODES))
        ports = f"[{nodes[0]}-{nodes[-1]}]"
        host, names = socket.gethostname().partition(".")[0], f"n[1-{len(NODES)}]"
        values = {"host": host, "controller": controller, "folder": self.folder, "nodes": names, "ports": ports}
        # Where a training's processes meet, follows from the job's number: two clusters must not have the same.
        return _CONFIGURATION.format(**values, cpus=CPUS, first_job=random.SystemRandom().randrange(1, 9000))

    def start(self) -> None:
        """Starts it and waits until its nodes are idle."""
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(1024))
        files = {"key-file": key, "socket": self._at("munge") / "socket", "pid-file": self.folder / "munge" / "pid"}
        files |= {"log-file": self.folder / "munge" / "munged.log", "seed-file": self.folder / "munge" / "seed"}
        self._run("munge", "munged", "--foreground", "--force", *(f"--{name}={path}" for name, path in files.items()))
        self._wait(files["socket"].exists, 20)
        self._at("state")
        self._run("controller", "slurmctld", "-D", "-f", self.folder / "slurm.conf")
        for node in NODES:
            self.start_node(node)
        self._wait(
            lambda: self.command("sinfo", "-h", "-N", "-p", "main", "-o", "%t").split() == ["idle"] * len(NODES), 60
        )

    def start_node(self, node: str) -> None:
        """Starts a node's daemon, also again after `cut_off`."""
        self._at(f"spool.{node}")
        self._run(node, "slurmd", "-D", "-f", self.folder / "slurm.conf", "-N", node)

    def cut_off(self, node: str, job: int) -> None:
        """Ends all of a node and of what it does for a job at once, as a power cut does."""
        self._daemons[node].kill()
        processes = self.processes(job, node)
        for pid in {*processes, *(parent(pid) for pid in processes)}:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def processes(self, job: int, node: str) -> list[int]:
        """Those that a job has on a node, by number."""
        told = {f"SLURM_JOB_ID={job}".encode(), f"SLURMD_NODENAME={node}".encode(), b"SLURM_PROCID"}
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has just ended, or is not ours
                words = (process / "environ").read_bytes().split(b"\0")
                if told <= {*words, *(word.partition(b"=")[0] for word in words)}:
                    found.append(int(process.name))
        return found

    def stop(self) -> None:
        """Ends all jobs and the cluster."""
        with suppress(subprocess.SubprocessError):
            self.command("scancel", "--signal=KILL", "--full", "--user=root")
            self.command("scancel", "--user=root")
            self._wait(lambda: not self.command("squeue", "-h", "-t", "running,completing").strip(), 20)
        for daemon in self._daemons.values():
            daemon.kill()

    def command(self, *arguments: object, **options) -> str:
        """What a client says; RuntimeError with what it complains of."""
        environment = {**os.environ, **self.environment}
        done = subprocess.run(
            [str(one) for one in arguments], env=environment, capture_output=True, text=True, check=False, **options
        )
        if done.returncode:
            raise RuntimeError(f"{arguments}: {done.stderr}")
        return done.stdout

    def submit(self, script: Path, *options: object) -> int:
        """Submits a batch script; the job's number."""
        return int(self.command("sbatch", "--parsable", *options, script, cwd=self.folder))

    def state(self, job: int) -> str:
        """Of a job: PENDING, RUNNING, COMPLETED, …"""
        return dict(self._fields(job))["JobState"]

    def restarts(self, job: int) -> int:
        """How often a job was put back into the queue and started again."""
        return int(dict(self._fields(job))["Restarts"])

    def wait_for(self, job: int, *states: str, seconds: float = 120) -> None:
        """Until a job is in one of the states."""
        self._wait(lambda: self.state(job) in states, seconds, lambda: f"job {job} is {self.state(job)}")

    def start_again(self, job: int) -> None:
        """Starts a requeued job now: by itself SLURM waits for two minutes."""
        self.wait_for(job, "PENDING")
        time.sleep(4)  # sooner than three seconds after it is pending it would fail
        self.command("scontrol", "update", f"jobid={job}", "starttime=now")

    def _fields(self, job: int) -> list[tuple[str, str]]:
        text = self.command("scontrol", "--oneliner", "show", "job", job)
        return [(name, value) for name, found, value in (one.partition("=") for one in text.split()) if found]

    def _at(self, name: str) -> Path:
        (self.folder / name).mkdir(exist_ok=True)
        return self.folder / name

    def _run(self, name: str, *command: str | Path) -> None:
        self._daemons[name] = Tethered(command, self._at(name), self.environment)

    def _wait(self, condition: Callable[[], bool], seconds: float, what: Callable[[], str] | None = None) -> None:
        deadline = time.monotonic() + seconds
        while True:
            with suppress(RuntimeError):  # the controller does not answer yet
                if condition():
                    return
            if time.monotonic() > deadline:
                logs = "\n".join(daemon.log() for daemon in self._daemons.values())
                raise RuntimeError(f"{what() if what else 'SLURM did not start'}:\n{logs}")
            time.sleep(0.25)


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """Skips without Debian's packages or root; in CI that is a failure."""
    for name in ("slurmctld", "slurmd", "munged", "sbatch"):
        found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/bin")
        need_file(Path(found or name), "apt-get install slurmctld slurmd slurm-client munge")
    if os.geteuid():
        pytest.skip("SLURM's daemons need root here")
    known = _HOSTS.read_text(encoding="utf-8")
    missing = [name for name in (*NODES, socket.gethostname().partition(".")[0]) if not _resolves(name)]
    cluster = Slurm(tmp_path_factory.mktemp("slurm"))
    try:
        if missing:
            _HOSTS.write_text(known.rstrip("\n") + "".join(f"\n127.0.0.1 {name}" for name in missing) + "\n")
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        if missing:
            _HOSTS.write_text(known, encoding="utf-8")


def parent(pid: int) -> int:
    """The process that started a process."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _resolves(name: str) -> bool:
    try:
        return bool(socket.gethostbyname(name))
    except OSError:
        return False
