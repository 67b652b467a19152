"""`bigtrain doctor`: what is in order is ok, what is not is named with its remedy, and nothing is changed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch

from bigtrain.cli.checks import all as checks
from bigtrain.cli.checks import gpus as gpu_checks
from bigtrain.cli.checks import machine, ranks, stores
from bigtrain.cli.checks.check import Check, examine
from bigtrain.cli.checks.finding import Line, ok
from bigtrain.cli.checks.plan import Plan
from bigtrain.cli.main import main
from bigtrain.data.manifest import Manifest, ShardIndex
from bigtrain.evaluation.extractors import named
from bigtrain.evaluation.extractors.weights import Published
from bigtrain.storage import Storage
from tests.runs import ROOT, tiny_config, write_config


@pytest.fixture
def config(digits: Path, tmp_path: Path) -> Path:
    return write_config(tmp_path / "tiny.yaml", tiny_config(digits))


@pytest.fixture
def found(config: Path, tmp_path: Path) -> Callable[..., list[Line]]:
    """What the check of that name finds about the tiny run, with overrides."""

    def look(name: str, *overrides: str) -> list[Line]:
        (check,) = (check for check in checks.CHECKS if check.name == name)
        return examine(check, Plan([f"--config={config}", f"--run={tmp_path / 'run'}", *overrides]))

    return look


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_in_order_is_ok_and_stays_as_it_was(config, digits, tmp_path, capsys):
    before = files(digits)
    assert main(["doctor", "--config", str(config), "--run", str(tmp_path / "run"), "--json"]) == 0
    lines = [Line(**line) for line in json.loads(capsys.readouterr().out)]
    assert [line for line in lines if line.level != "ok" and line.check != "SLURM"] == []
    assert list(dict.fromkeys(line.check for line in lines)) == [check.name for check in checks.CHECKS]
    assert files(digits) == before
    assert not (tmp_path / "run").exists()


def test_lines_are_aligned_and_an_error_is_the_exit_code(config, tmp_path, capsys, monkeypatch):
    some = [check for check in checks.CHECKS if check.name in ("cache", "weights", "shards", "labels")]
    monkeypatch.setattr(checks, "CHECKS", some)
    assert main(["doctor", "--config", str(config), "--data.url", str(tmp_path / "none")]) == 1
    lines = capsys.readouterr().out.splitlines()
    cache, shards, labels, weights = (re.fullmatch(r"(\w+) +(\w+) +(.*)", line) for line in lines)
    assert {line.start(2) for line in (cache, shards, labels, weights)} == {9}
    assert {line.start(3) for line in (cache, shards, labels, weights)} == {18}
    assert [line[1] for line in (cache, shards, labels, weights)] == ["ok", "error", "error", "ok"]
    assert "make it with `bigtrain shards build" in shards[3]
    assert labels[3] == "as shards says"
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--jsn"], "jsn is unknown"), (["--config", "none.yaml"], "none.yaml"), (["--seed", "1"], "--config")],
)
def test_a_mistake_in_the_command_is_another_exit_code(arguments, said, capsys):
    assert main(["doctor", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_a_check_that_fails_or_hangs_is_an_error_and_no_end():
    ended = threading.Event()
    plan = Plan()

    def fail(plan: Plan):
        raise KeyError("a bug")

    (line,) = examine(Check("broken", fail), plan)
    assert (line.level, line.found) == ("error", "KeyError: 'a bug'")
    begun = time.monotonic()
    (line,) = examine(Check("slow", lambda plan: ended.wait(60), 0.1), plan)
    ended.set()
    assert (line.level, line.found) == ("error", "no answer in 0.1 s")
    assert time.monotonic() - begun < 30
    assert examine(Check("fine", lambda plan: [ok("so")]), plan)[0].level == "ok"


def copied(digits: Path, folder: Path) -> Path:
    shutil.copytree(digits, folder)
    return folder


def test_a_damaged_image_is_named(found, digits, tmp_path):
    folder = copied(digits, tmp_path / "damaged")
    manifest = Manifest.load(str(folder))
    info = manifest.shards[8][-1]
    index = ShardIndex.from_json((folder / info.index).read_bytes())
    with (folder / info.key).open("r+b") as file:
        file.seek(int(index.offsets[-1]) + 20)
        file.write(b"damaged")
    (line,) = found("shards", "--data.url", str(folder))
    assert line.level == "error"
    assert f"{info.key}: sample {index.keys[-1]!r}" in line.found
    assert "bigtrain shards verify" in line.found


def relabelled(folder: Path, change: Callable[[np.ndarray], np.ndarray], **of_manifest: object) -> str:
    """Other labels in the indexes, with their checksums in the manifest: as shards are that were labelled so."""
    manifest, storage = Manifest.load(str(folder)), Storage(folder)
    shards = {}
    for resolution, infos in manifest.shards.items():
        shards[resolution] = []
        for info in infos:
            index = ShardIndex.from_json(storage.read(info.index))
            content = dataclasses.replace(index, labels=change(index.labels)).to_json()
            storage.write(info.index, content)
            digest = hashlib.sha256(content).hexdigest()
            shards[resolution].append(dataclasses.replace(info, index_sha256=digest))
    dataclasses.replace(manifest, shards=shards, **of_manifest).save(storage)
    return str(folder)


def test_labels_must_make_sense(found, digits, tmp_path):
    fine = found("labels")
    assert [line.level for line in fine] == ["ok"]
    assert fine[0].found == "10 classes of 174 to 183 images"
    (far,) = found("labels", "--data.url", relabelled(copied(digits, tmp_path / "far"), lambda labels: labels + 1))
    assert far.level == "error"
    assert re.search(r"180 labels such as 10 are none of the 10 classes", far.found)
    (other,) = found("labels", "--data.url", relabelled(copied(digits, tmp_path / "other"), lambda labels: 9 - labels))
    assert (other.level, other.found) == ("error", "class '0' has 180 images in the shards, 178 in the manifest")
    zero = relabelled(copied(digits, tmp_path / "zero"), np.zeros_like, class_counts=[1797, *[0] * 9])
    (line,) = found("labels", "--data.url", zero)
    assert (line.level, line.found) == ("warning", "10 classes of 0 to 1,797 images: all are of one class")
    two = relabelled(
        copied(digits, tmp_path / "two"),
        lambda labels: labels % 9,
        class_counts=[358, *Manifest.load(str(digits)).class_counts[1:9], 0],
    )
    (line,) = found("labels", "--data.url", two)
    assert (line.level, line.found) == ("warning", "10 classes of 0 to 358 images: 1 are empty, such as '9'")


def test_networks_of_other_classes_than_the_labels(found):
    other = [
        f"--game.init_args.{one}.init_args.network.init_args.num_classes=7" for one in ("generator", "discriminator")
    ]
    (line,) = found("labels", *other)
    assert line.level == "error"
    assert "num_classes (=7)" in line.found


def test_processes_must_fit(found):
    (line,) = found("compute", "--compute.devices=2", "--compute.accelerator=cpu")
    assert (line.level, line.found) == ("ok", "ddp, 1 x 2 on CPU, 32-true")
    for devices, said in (("3", "batch_size (=8)"), ("4", "stddev_group")):
        (line,) = found("compute", f"--compute.devices={devices}", "--compute.accelerator=cpu")
        assert line.level == "error"
        assert said in line.found


def test_a_full_disk(found, monkeypatch, tmp_path):
    (fine,) = found("disk")
    assert fine.level == "ok"
    assert " 5 checkpoints of " in fine.found  # three, the best, and the one that is being written
    assert " and 8 snapshots of " in fine.found  # 0.48 kimg, every 0.064
    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9 - 10**5, 10**5))
        (line,) = found("disk")
    assert line.level == "error"
    assert "97.7 KiB free" in line.found
    assert "cadences.keep_checkpoints" in line.remedy
    (tmp_path / "file").touch()
    (line,) = found("disk", f"--run={tmp_path / 'file'}")
    assert (line.level, line.found) == ("error", f"{tmp_path / 'file'} is a file")


def test_a_really_full_disk(found, tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"mounting a tmpfs needs root: {mounted.stderr.strip()}")
    try:
        (line,) = found("disk", f"--run={folder / 'run'}")
    finally:
        subprocess.run(["umount", str(folder)], check=True)
    assert line.level == "error"
    assert f"64 KiB free in {folder}" in line.found


def test_what_is_there_already_needs_no_more_room(found, tmp_path):
    def more() -> float:
        number, unit = re.search(r" take ([\d.]+) (\w+)", found("disk")[0].found).groups()
        return float(number) * {"B": 1, "KiB": 2**10, "MiB": 2**20}[unit]

    before = more()
    (tmp_path / "run" / "snapshots").mkdir(parents=True)
    (tmp_path / "run" / "snapshots" / "000000.064.safetensors").write_bytes(bytes(40 * 1024))
    assert before - more() == pytest.approx(40 * 1024, abs=2000)


def test_a_low_limit_of_open_files():
    code = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (200, 4096))
from bigtrain.cli.checks.check import Check, examine
from bigtrain.cli.checks.machine import limits
from bigtrain.cli.checks.plan import Plan
print(*examine(Check("limits", limits), Plan())[0], sep="|")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    level, _, said, remedy = done.stdout.strip().split("|")
    assert (level, said) == ("error", "200 open files are too few: 1024")
    assert remedy.startswith("ulimit -n 4096 (")  # root alone could have more


def test_more_decoding_than_there_is_memory_for(found):
    (line,) = found("memory", "--data.decode_processes=100000")
    assert line.level == "error"
    assert "data.decode_processes" in line.remedy
    assert found("memory", "--data.decode_processes=2")[0].level == "ok"


@pytest.mark.parametrize(
    ("ours", "folder", "names"),
    [
        ("0::/job/step", "job", ("memory.max", "memory.current", "inactive_file")),
        (
            "4:cpu:/x\n9:memory:/job",
            "memory/job",
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ),
    ],
)
def test_memory_is_what_the_tightest_group_leaves(ours, folder, names, tmp_path, monkeypatch):
    """That of a job, too; what was read from files can be dropped."""
    (tmp_path / "ours").write_text(f"{ours}\n")
    group = tmp_path / "groups" / folder
    (group / "step").mkdir(parents=True)
    bound, used, droppable = names
    for name, content in ((bound, "9000"), (used, "5000"), ("memory.stat", f"anon 1\n{droppable} 4000\n")):
        (group / name).write_text(content)
        (group / "step" / name).write_text(content.replace("9000", "max"))
    monkeypatch.setattr(machine, "OURS", tmp_path / "ours")
    monkeypatch.setattr(machine, "GROUPS", tmp_path / "groups")
    (line,) = examine(Check("memory", machine.memory), Plan())
    assert line.found == "7.81 KiB left by the container or job"


@pytest.mark.parametrize(
    ("package", "version", "said"),
    [
        ("lightning", "2.6.3", "lightning 2.6.3 was withdrawn after a compromise"),
        ("lightning", "2.5.9", "lightning 2.5.9 is too old"),
        ("torch", "2.7.1+cpu", "torch 2.7.1+cpu is too old"),
        ("obstore", None, "obstore is not installed"),
    ],
)
def test_packages_that_will_not_do(package, version, said, found, monkeypatch):
    original = metadata.version

    def other(name: str) -> str:
        if name == package and version is None:
            raise metadata.PackageNotFoundError(name)
        return version if name == package else original(name)

    monkeypatch.setattr(metadata, "version", other)
    lines = found("versions")
    assert lines[0][:3] == ("error", "versions", said)
    assert "pip install" in lines[0].remedy


class _Server(BaseHTTPRequestHandler):
    ahead = 0.0

    def do_HEAD(self):
        self.send_response(200 if self.path == "/weights.pth" else 403)
        self.send_header("Content-Length", "2048")
        self.end_headers()

    def date_time_string(self, timestamp: float | None = None) -> str:
        return formatdate(time.time() + self.ahead, usegmt=True)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def web() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), _Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(("ahead", "level"), [(0, "ok"), (60, "warning"), (-4000, "error")])
def test_a_clock_that_is_wrong(ahead, level, web, monkeypatch):
    monkeypatch.setattr(_Server, "ahead", ahead)
    plan = Plan()
    plan.storages = [Storage(f"{web}/shards"), Storage(f"{web}/more"), Storage("/tmp")]
    (finding,) = stores.clock(plan)
    assert finding.level == level
    seconds, way = re.match(r"(\d+) s (ahead of|behind) 127.0.0.1", finding.found).groups()
    assert abs(int(seconds) * (-1 if way == "ahead of" else 1) - ahead) <= 2


def test_weights_are_here_or_to_be_had(found, web, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))

    def published(url: str) -> None:
        monkeypatch.setitem(named.PUBLISHED, "inception", Published(url))

    wanted = "--evaluation.extractor=inception"
    assert "classifier needs none" in found("weights")[0].found
    published("http://127.0.0.1:9/inception-6726825d.pth")
    (line,) = found("weights", wanted)
    assert line.level == "error"
    assert f"put it at {tmp_path}/hub/checkpoints/inception-6726825d.pth" in line.remedy
    published(f"{web}/weights.pth")
    (line,) = found("weights", wanted)
    assert (line.level, line.found) == ("ok", "inception: not here yet; 127.0.0.1 has them (2 KiB)")
    published(f"{web}/inception-6726825d.pth")
    path = named.PUBLISHED["inception"].path
    path.parent.mkdir(parents=True)
    torch.save({"a": torch.zeros(1)}, path)
    (line,) = found("weights", wanted)
    assert line.level == "error"
    assert "not with the 6726825d of its name" in line.found
    assert not list(path.parent.glob("weights.pth"))  # nothing was downloaded
    (line,) = found("weights", wanted, f"--evaluation.weights={tmp_path}/none.pth")
    assert (line.level, line.found) == ("error", f"{tmp_path}/none.pth: not found")


def program(folder: Path, name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts a shell script before all other programs."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


#: As SLURM 22 answers.
_JOB = """case "$*" in
--version) echo slurm-wlm 22.05.8;;
ping) echo "Slurmctld(primary) at n1 is UP";;
*batch_script*) echo "#!/bin/bash"; echo "{script}";;
*) echo "JobId=7 JobName=train Requeue={requeue} Restarts=0 TimeLimit=08:00:00 EndTime={end}";;
esac"""


@pytest.mark.parametrize(
    ("requeue", "script", "minutes", "levels"),
    [
        (1, "#SBATCH --requeue --signal=SIGUSR1@120", 90, ["ok", "ok", "ok"]),
        (1, "#SBATCH --signal B:USR1@60", 90, ["ok", "ok", "ok"]),
        (0, "#SBATCH --signal=TERM@120", 90, ["ok", "warning", "warning"]),
        (1, "echo --signal=USR1", 5, ["warning", "ok", "warning"]),
    ],
)
def test_inside_of_a_slurm_job(requeue, script, minutes, levels, found, tmp_path, monkeypatch):
    end = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() + 60 * minutes))
    program(tmp_path / "bin", "scontrol", _JOB.format(requeue=requeue, script=script, end=end), monkeypatch)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert found("SLURM")[0].found == "slurm-wlm 22.05.8, outside of a job"
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    lines = found("SLURM")
    assert [line.level for line in lines] == levels
    left = re.fullmatch(r"slurm-wlm 22.05.8, job 7 has (\d+) minutes left of 08:00:00", lines[0].found)
    assert minutes - 4 <= int(left[1]) <= minutes  # (a busy machine takes its time)
    assert all(line.remedy for line in lines if line.level != "ok")


def test_a_slurm_that_does_not_answer(found, tmp_path, monkeypatch):
    program(tmp_path / "bin", "scontrol", "echo no controller >&2; exit 1", monkeypatch)
    assert found("SLURM")[0][:3] == ("warning", "SLURM", "it does not answer: no controller")


_GIB = 2**30


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> types.SimpleNamespace:
    """A stand-in for what torch and nvidia-smi say where there are two GPUs; its attributes may be changed."""
    said = types.SimpleNamespace(free=[79 * _GIB, 78 * _GIB], right=True, ecc="0", driver="580.65.06", cuda="13.2")

    def asked() -> dict[str, dict[str, str]]:
        rows = "\n".join(f"GPU-{n}, {said.driver}, {said.ecc}, Disabled" for n in "ab")
        program(tmp_path / "bin", "nvidia-smi", f"cat <<'ROWS'\n{rows}\nROWS", monkeypatch)
        return original()

    def properties(number: int) -> types.SimpleNamespace:
        return types.SimpleNamespace(name="H100", uuid="ab"[number], major=9, minor=0)

    original = gpu_checks._asked
    monkeypatch.setattr(gpu_checks, "_asked", asked)
    monkeypatch.setattr(gpu_checks, "_LOADED", tmp_path / "none")
    monkeypatch.setattr(gpu_checks, "computes", lambda number: said.right)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", properties)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda number: (said.free[number], 80 * _GIB))
    return said


def test_gpus_that_are_in_order_and_not(two_gpus, found, monkeypatch):
    assert [line[:3] for line in found("GPUs")] == [
        ("ok", "GPUs", "0: H100, 79 GiB of 80 GiB free, MIG disabled, no ECC errors"),
        ("ok", "GPUs", "1: H100, 78 GiB of 80 GiB free, MIG disabled, no ECC errors"),
    ]
    assert found("GPUs", "--compute.devices=3")[-1][:3] == ("error", "GPUs", "compute.devices (=3) are more than 2")
    two_gpus.free[1] = 60 * _GIB
    assert [line.level for line in found("GPUs")] == ["ok", "warning"]
    two_gpus.ecc = "3"
    assert "3 uncorrected ECC errors" in found("GPUs")[0].found
    two_gpus.right = False
    assert "computes wrong numbers" in found("GPUs")[0].found

    def refused(number: int) -> bool:
        raise RuntimeError("CUDA error: no kernel image is available\nmore")

    monkeypatch.setattr(gpu_checks, "computes", refused)
    line = found("GPUs")[0]
    assert line.found == "0: H100 does not compute: CUDA error: no kernel image is available"
    assert "9.0" in line.remedy


@pytest.mark.parametrize(
    ("cuda", "driver", "level"),
    [
        ("13.2", "580.65.06", "ok"),
        ("13.0", "570.1", "warning"),
        ("12.8", "525.60.13", "ok"),
        ("12.8", "525.60", "warning"),
    ],
)
def test_a_driver_must_serve_the_cuda_of_torch(cuda, driver, level, two_gpus, found, monkeypatch):
    two_gpus.driver = driver
    monkeypatch.setattr(torch.version, "cuda", cuda)
    (line,) = found("driver")
    assert line.level == level
    assert line.found.startswith(driver)
    assert (line.remedy != "") == (level == "warning")  # of an old one that computes all the same
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert found("driver")[0].level == ("ok" if level == "ok" else "error")


def test_gpus_that_torch_does_not_see(two_gpus, found, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "is built without CUDA" in found("GPUs")[0].found
    monkeypatch.setattr(torch.version, "cuda", "13.2")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert found("GPUs")[0].found == "CUDA_VISIBLE_DEVICES (='') leaves none"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert found("GPUs")[0][:2] == ("error", "GPUs")
    assert found("GPUs", "--compute.accelerator=cpu")[0].level == "ok"
    monkeypatch.setattr(gpu_checks, "_asked", dict)
    assert found("GPUs", "--compute.accelerator=gpu")[0].found == "none, but compute.accelerator is gpu"


def answer(**other: object) -> dict[str, object]:
    return {
        "seconds": 0.01,
        "bytes": 2**28,
        "backend": "nccl",
        "right": True,
        "clocks": [1.0, 1.2],
        "nodes": {},
    } | other


@pytest.mark.parametrize(
    ("other", "level", "said"),
    [
        ({}, "ok", "2 ranks by nccl: 256 MiB in 10 ms, 26.8 GB/s"),
        ({"right": False}, "error", "and the sum is wrong"),
        ({"seconds": 1.0}, "warning", "slow"),
        ({"clocks": [1.0, 9.0]}, "warning", "the ranks' clocks differ by 8 s"),
        (
            {"nodes": {"n2": [["warning", "limits", "few", "more"], ["ok", "GPUs", "", ""]]}},
            "warning",
            "n2: limits: few",
        ),
        ({"nodes": {"n2": [["ok", "GPUs", "", ""]]}}, "ok", "n2 found nothing wrong either"),
    ],
)
def test_what_the_ranks_say_is_judged(other, level, said, found, monkeypatch):
    monkeypatch.setattr(ranks, "measured", lambda *_: answer(**other))
    lines = found("all-reduce", "--compute.devices=2", "--compute.accelerator=cpu")
    (line,) = (line for line in lines if said in line.found)
    assert line.level == level
    assert [one.level for one in lines if one is not line] == ["ok"] * (len(lines) - 1)


@pytest.mark.parametrize(
    ("script", "said"),
    [("echo no route >&2; exit 3", "failed: no route"), ("sleep 60 & wait", "no answer of all ranks in 0.5 s")],
)
def test_ranks_that_fail_or_hang_are_ended(script, said, tmp_path, monkeypatch):
    program(tmp_path / "bin", "python", script, monkeypatch)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    begun = time.monotonic()
    with pytest.raises(OSError, match=said):
        ranks.measured(Plan().compute, [], 20 if "exit" in script else 0.5)
    assert time.monotonic() - begun < 20


def test_one_process_needs_no_other(found):
    assert found("all-reduce", "--compute.devices=1")[0].found == "not needed by one process"


def test_every_recipe_can_be_weighed(tmp_path):
    """At its full size, and without its memory: 10^8 parameters are counted in seconds."""
    plan = Plan([f"--config={ROOT / 'configs' / 'biggan_imagenet128.yaml'}", f"--run={tmp_path}"])
    state = plan.game.training_state().values()
    generator, discriminator = (
        sum(p.numel() for p in player.network.parameters()) for player in plan.game.players.values()
    )
    weighed = sum(piece.tensor.nbytes for piece in state)
    assert weighed == pytest.approx(4 * (4 * generator + 3 * discriminator), rel=0.01)  # Adam has two, the average one
