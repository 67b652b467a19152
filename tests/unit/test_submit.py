"""`bigtrain submit`: what it refuses, what it hands to sbatch, and what the scripts of slurm/ do with that."""

import json
import os
import re
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import yaml

from bigtrain.cli.jobs import Jobs
from bigtrain.cli.main import main
from bigtrain.cli.submit import SCRIPTS
from bigtrain.runtime import signals
from bigtrain.runtime.world import World
from tests.runs import ROOT, tiny_config, write_config

CONFIG = str(ROOT / "configs/quickstart.yaml")
#: What a shell would make something else of.
AWKWARD = ["a b", "$(touch x)", "`touch x`", "'", '"', "*", "--seed=1", "\\", "a;b", "#SBATCH --nodes=9", ""]
#: Stands in for srun and others: notes its name and arguments, and ends as it is told.
NOTES = """#!{python}
import json, os, sys
name = os.path.basename(sys.argv[0])
names = ("OMP_NUM_THREADS", "SRUN_CPUS_PER_TASK", "SLURM_NODELIST", "SBATCH_ACCOUNT", "SLURM_CONF")
told = {{name: os.environ[name] for name in names if name in os.environ}}
with open(os.environ["NOTES"], "a") as file:
    file.write(json.dumps([name, sys.argv[1:], told]) + "\\n")
if name == "sbatch":
    print(os.environ.get("SAYS", "12"))
raise SystemExit(int(os.environ.get(f"CODE_{{name}}", "0")))
"""


@pytest.fixture
def notes(tmp_path, monkeypatch):
    """What the stand-ins for SLURM's commands were called with."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("srun", "scontrol", "sbatch", "squeue"):
        (programs / name).write_text(NOTES.format(python=sys.executable))
        (programs / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    (tmp_path / "notes").touch()
    return lambda: [json.loads(line) for line in (tmp_path / "notes").read_text().splitlines()]


def script(name, *arguments, **variables):
    """Runs one as SLURM does."""
    environment = {**os.environ, "SLURM_JOB_ID": "12", **{key: str(value) for key, value in variables.items()}}
    environment.pop("OMP_NUM_THREADS", None)
    command = ["bash", str(ROOT / "slurm" / f"{name}.sbatch"), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", ["train", "sweep", "evaluate", "build_shards"])
def test_scripts_are_whole(name):
    """What SLURM reads stands before the first command, and can be read."""
    text = (ROOT / "slurm" / f"{name}.sbatch").read_text()
    assert text == (SCRIPTS / f"{name}.sbatch").read_text()
    first = re.search(r"^[^#\n]", text, re.MULTILINE).start()
    assert "#SBATCH" in text[:first]
    assert "#SBATCH" not in text[first:]
    told = re.findall(r"^#SBATCH (.*)$", text, re.MULTILINE)
    assert "--requeue" in told
    assert any(word.startswith("--job-name=bigtrain") for word in told)
    assert subprocess.run(["bash", "-n"], input=text, text=True, check=False).returncode == 0
    if name in ("train", "sweep"):
        assert {"--open-mode=append", "--signal=SIGUSR1@120", "--ntasks-per-node=1"} <= set(told)


def test_train_and_sweep_end_in_the_same_way():
    mark = "# -- what follows is the same in train.sbatch and sweep.sbatch --"
    ends = [(ROOT / "slurm" / f"{name}.sbatch").read_text().split(mark)[1] for name in ("train", "sweep")]
    assert ends[0] == ends[1]
    assert "scontrol requeue" in ends[0]


def test_a_script_hands_on_every_argument_as_it_is(notes):
    assert script("train", *AWKWARD, SLURM_CPUS_PER_TASK=3).returncode == 0
    assert script("evaluate", *AWKWARD).returncode == 0
    assert script("build_shards", "build", *AWKWARD, SLURM_ARRAY_TASK_ID=3, SLURM_ARRAY_TASK_MAX=16).returncode == 0
    assert script("build_shards", "index", *AWKWARD).returncode == 0
    sweep = {"SLURM_ARRAY_TASK_ID": 1, "BIGTRAIN_RUNS": "/runs"}
    assert script("sweep", "seed", "0", "a b", "2", "--", *AWKWARD, **sweep).returncode == 0
    train, evaluate, build, index, sweep = notes()
    assert train == [
        "srun",
        ["--kill-on-bad-exit=1", "bigtrain", "fit", *AWKWARD],
        {"OMP_NUM_THREADS": "3", "SRUN_CPUS_PER_TASK": "3"},
    ]
    assert evaluate == ["srun", ["bigtrain", "evaluate", *AWKWARD], {"OMP_NUM_THREADS": "1"}]
    assert build[1] == ["bigtrain", "shards", "build", *AWKWARD, "--part", "3/16"]
    assert index[1] == ["bigtrain", "shards", "index", *AWKWARD]
    assert sweep[1][1:] == ["bigtrain", "fit", *AWKWARD, "--run", "/runs/seed=a_b", "--seed=a b"]


@pytest.mark.parametrize(
    ("code", "retry_after", "requeued"),
    [(0, 0, False), (2, 0, False), (1, 0, True), (137, 0, True), (1, 600, False), (138, 600, True), (2, 600, False)],
)
def test_a_lost_process_is_worth_a_try_and_a_mistake_is_not(notes, code, retry_after, requeued):
    done = script("train", CODE_srun=code, BIGTRAIN_RETRY_AFTER=retry_after)
    assert done.returncode == code
    assert [name for name, *_ in notes()] == ["srun", *["scontrol"] * requeued]
    if requeued:
        assert notes()[1][1] == ["requeue", "12"]
        assert f"exit code {code}; back into the queue" in done.stderr


def test_not_for_ever_and_one_task_does_not_take_its_array_with_it(notes):
    lost = {"CODE_srun": 1, "BIGTRAIN_RETRY_AFTER": 0}
    script("train", **lost, SLURM_RESTART_COUNT=20)
    script("train", **lost, SLURM_RESTART_COUNT=19, SLURM_ARRAY_JOB_ID=12, SLURM_ARRAY_TASK_ID=3)
    assert [(name, said) for name, said, _ in notes() if name != "srun"] == [("scontrol", ["requeue", "12_3"])]


@pytest.mark.parametrize("name", ["evaluate", "build_shards"])
def test_what_is_interrupted_waits_to_be_put_back(name, notes):
    begun = time.monotonic()
    assert script(name, "x", CODE_srun=130, BIGTRAIN_WAIT="0.5").returncode == 130
    assert time.monotonic() - begun > 0.5


def test_a_requeue_that_fails_is_left_to_the_script(notes, monkeypatch):
    for key, value in (("SLURM_ARRAY_JOB_ID", "12"), ("SLURM_ARRAY_TASK_ID", "3"), ("CODE_scontrol", "1")):
        monkeypatch.setenv(key, value)
    waited = []
    monkeypatch.setattr(signals.time, "sleep", waited.append)
    signals.leave(signal.SIGUSR1, World())
    assert signals.SECONDS_TO_BE_ENDED not in waited
    assert [said for _, said, _ in notes()] == [["requeue", "12_3"]]


@pytest.mark.parametrize(("there", "called"), [(True, ["scontrol"]), (False, [])])
def test_a_training_leaves_its_requeueing_to_the_script_where_it_cannot_do_it(
    notes, there, called, monkeypatch, tmp_path
):
    """Where there is `scontrol` it waits for its end: otherwise, as in a container, it ends."""
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    waited = []
    monkeypatch.setattr(signals.time, "sleep", waited.append)
    if not there:
        (tmp_path / "programs" / "scontrol").unlink()
        monkeypatch.setenv("PATH", str(tmp_path / "programs"))
    signals.leave(signal.SIGUSR1, World())
    assert [name for name, *_ in notes()] == called
    assert bool(waited) == there


def test_scripts_run_in_containers(notes):
    here = {"BIGTRAIN_CONTAINER": "a/b.sif", "BIGTRAIN_MOUNTS": "/c:/c,/d:/d"}
    where = str(Path.cwd())
    script("train", "x", **here)
    script("train", "x", **here, BIGTRAIN_CONTAINER_RUNTIME="apptainer")
    script("evaluate", "x", BIGTRAIN_CONTAINER="a")
    options = ["--container-image=a/b.sif", "--container-mounts=/c:/c,/d:/d", f"--container-workdir={where}"]
    apptainer = ["apptainer", "exec", "--nv", "--bind", "/c:/c,/d:/d", "--pwd", where, "a/b.sif"]
    assert [arguments for _, arguments, _ in notes()] == [
        ["--kill-on-bad-exit=1", *options, "bigtrain", "fit", "x"],
        ["--kill-on-bad-exit=1", *apptainer, "bigtrain", "fit", "x"],
        [
            "--container-image=a",
            f"--container-mounts={where}:{where}",
            f"--container-workdir={where}",
            *["bigtrain", "evaluate", "x"],
        ],
    ]
    assert script("train", "x", **here, BIGTRAIN_CONTAINER_RUNTIME="docker").returncode == 2


FIT = ["--config", CONFIG]
REFUSED = [
    (["--nodes", "0"], "--nodes (='0') must be a number from 1 on"),
    (["--nodes", "2 --wrap=x"], "--nodes (='2 --wrap=x')"),
    (["--nodes", "٣"], "--nodes"),
    (["--gpus-per-node", "a100:"], "such as a100:8"),
    (["--cpus-per-task", "-1"], "--cpus-per-task"),
    (["--mem", "64 GB"], "a size such as 64G"),
    (["--time", "12h"], "a time such as 90 (minutes), 12:00:00 or 2-12:00:00"),
    (["--time", "1:00:00\n"], "--time (='1:00:00\\n')"),
    (["--partition", "gpu\n#SBATCH --nodes=9"], "--partition (='gpu\\n#SBATCH --nodes=9')"),
    (["--account", "me;rm"], "--account (='me;rm')"),
    (["--account", "-me"], "--account"),
    (["--qos", "'"], "--qos"),
    (["--job-name", "$(id)"], "--job-name"),
    (["--job-name", "bash"], "must not be one of bash, interactive"),
    (["--container", "a b"], "--container (='a b') must be an image"),
    (["--container", "-x"], "--container"),
    (["--container", "a", "--mount", "/a:/b"], "--mount (='/a:/b') must be a path"),
    (["--container", "a", "--container-runtime", "docker"], "'pyxis', 'apptainer'"),
    (["--mount", "/a"], "is for a --container"),
    (["--sbatch", "exclusive"], "must be a flag such as --exclusive"),
    (["--sbatch", "--comment=a\n#SBATCH -N9"], "must be a flag"),
    (["--sbatch", "--comment='"], "must be a flag"),
    (["--sbatch", "--nodes=3"], "has an option of its own: --nodes"),
    (["--sbatch", "--wrap=ls"], "is decided by bigtrain submit"),
    (["--sbatch", "--export=NONE"], "is decided by bigtrain submit"),
    (["--seed", "1\n2"], "'1\\n2' must not hold line breaks"),
    (["--run", "a\x1bb"], "must not hold line breaks or other control characters"),
    (["--seed", "x"], "seed (=x) must be of type"),
    (["--data.ulr", "x"], "data.ulr is unknown; did you mean data.url?"),
    (["--compute.devices", "3"], "for --nodes (=1) with 1 processes each: compute.devices (=3)"),
    (["--gpus-per-node", "2", "--compute.strategy", "single"], "compute.strategy (=single) is for one process"),
    (["--run", "s3://bucket/run"], "must be a folder on this machine"),
    (["--run", "a\\b"], "must not have a backslash"),
]


@pytest.mark.parametrize(("options", "said"), REFUSED, ids=[repr(options) for options, _ in REFUSED])
def test_what_is_wrong_is_one_line_and_nothing_is_submitted(options, said, notes, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["submit", *FIT, *options]) == 2
    out, error = capsys.readouterr()
    assert (out, error.count("\n")) == ("", 1)
    assert said in error
    assert notes() == []
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sweep", *FIT], "--over"),
        (["sweep", *FIT, "--over", "seed"], "must be an option and its values"),
        (["sweep", *FIT, "--over", "seed; x", "1"], "must be an option and its values"),
        (["sweep", *FIT, "--over", "seed", "1", "1"], "a folder of its own"),
        (["sweep", *FIT, "--over", "seed", "1", "x"], "seed (=x) must be of type"),
        (["sweep", *FIT, "--over", "seed", "1", "--at-once", "x"], "--at-once (='x') must be a number"),
        (["shards", "digits:", "d"], "--parts"),
        (["shards", "digits:", "d", "--parts", "0"], "--parts (='0') must be a number from 1 on"),
        (["shards", "digits:", "d", "--parts", "2", "--part", "1/2"], "--part is each task's own"),
        (["shards", "digits:", "--parts", "2"], "DEST"),
        (["shards", "digits:", "d", "--parts", "2", "--nodes", "2"], "this is done by one process"),
        (["evaluate", "train-extractor", "d", "--gpus-per-node", "2"], "this is done by one process"),
        (["evaluate", "runs/a", "--devices", "2"], "--devices (=2) is not for SLURM"),
        (["evaluate", "runs/a", "--metric", "fid"], "did you mean --metrics?"),
        (["evaluate", "runs/a", "--truncation", "x"], "--truncation (=x)"),
    ],
)
def test_other_kinds_are_checked_too(arguments, said, notes, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["submit", *arguments]) == 2
    assert said in capsys.readouterr().err
    assert notes() == []


def dry(capsys, *arguments):
    """What sbatch would be given: words before the script, its name, and words behind it; a triple a job."""
    assert main(["submit", *arguments, "--dry-run"]) == 0
    found = []
    for line in capsys.readouterr().out.splitlines():
        if line.startswith(("sbatch --parsable", "env ")):
            words = shlex.split(line)
            at = next(i for i, word in enumerate(words) if word.endswith(".sbatch"))
            found.append((words[:at], Path(words[at]).name, words[at + 1 :]))
    return found


def test_a_dry_run_shows_the_command_and_does_nothing(notes, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    slurm = ["--nodes", "2", "--gpus-per-node", "a100:8", "--cpus-per-task", "4", "--mem", "200G", "--time", "2-00"]
    slurm += ["--partition", "a,b", "--account", "me", "--qos", "low", "--sbatch", "--exclusive", "--sbatch=--nice=3"]
    slurm += ["--container", "docker://me/it:1", "--mount", "/data"]
    override = ["--data.url", '{"data/a b": 3, "s3://bucket/$x": 1}']
    ((before, name, behind),) = dry(capsys, *slurm, *FIT, "--run", "runs/100%", *override)
    assert name == "train.sbatch"
    assert behind == [*FIT, "--run", "runs/100%", *override]
    mounts = ",".join(f"{folder}:{folder}" for folder in sorted(["/data", str(ROOT / "configs"), str(tmp_path)]))
    assert set(before) == {
        *("env", "BIGTRAIN_CONTAINER=docker://me/it:1", "BIGTRAIN_CONTAINER_RUNTIME=pyxis"),
        *(f"BIGTRAIN_MOUNTS={mounts}", "sbatch", "--parsable", "--ntasks-per-node=8", "--job-name=bigtrain-100_"),
        *("--nodes=2", "--gpus-per-node=a100:8", "--cpus-per-task=4", "--mem=200G", "--time=2-00", "--partition=a,b"),
        *("--account=me", "--qos=low", "--exclusive", "--nice=3", "--output=runs/100%%/slurm-%j.log"),
    }
    assert {path.name for path in tmp_path.iterdir()} == {"programs", "notes"}
    assert notes() == []


def test_arrays(notes, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    build, index = dry(capsys, "shards", "photos", "d", "--upscale", "--parts", "16", "--at-once", "4")
    assert build[1:] == ("build_shards.sbatch", ["build", "photos", "d", "--upscale"])
    assert "--array=1-16%4" in build[0]
    assert index[1:] == ("build_shards.sbatch", ["index", "d"])
    assert "--dependency=afterok:JOB" in index[0]
    assert not any(word.startswith("--array") for word in index[0])
    over = ["--over", "game.objective", "Hinge", "Wasserstein"]
    ((before, name, behind),) = dry(capsys, "sweep", *over, *FIT, "--run", "r")
    assert (name, behind) == ("sweep.sbatch", ["game.objective", "Hinge", "Wasserstein", "--", *FIT, "--run", "r"])
    assert {"--array=0-1", "BIGTRAIN_RUNS=r", "--output=r/slurm-%A_%a.log"} <= set(before)
    ((before, name, behind),) = dry(capsys, "evaluate", "runs/a", "--metrics", "fid,is", "--gpus-per-node", "8")
    assert {"--ntasks-per-node=8", "--gpus-per-node=8"} <= set(before)
    assert (name, behind) == ("evaluate.sbatch", ["runs/a", "--metrics", "fid,is"])


def test_what_is_submitted_is_told_and_noted(notes, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, value in (("SLURM_NODELIST", "n9"), ("SBATCH_ACCOUNT", "you"), ("SLURM_CONF", "/slurm.conf")):
        monkeypatch.setenv(name, value)  # the first one: of a job from within which one submits
    monkeypatch.setenv("SAYS", "12;cluster")
    assert main(["submit", *FIT, "--run", "runs/a b"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "job 12: training runs/a b, nodes: 1, processes on each: 1",
        "log      runs/a b/slurm-12.log",
        "follow   tail -F 'runs/a b/slurm-12.log'",
        "         squeue --jobs=12",
        "         bigtrain status 'runs/a b'",
        "stop     scancel 12",
    ]
    ((name, _, environment),) = notes()
    assert name == "sbatch"
    assert environment.pop("OMP_NUM_THREADS", "1")
    assert environment == {"SLURM_CONF": "/slurm.conf", "SBATCH_ACCOUNT": "you"}
    (event,) = Jobs(tmp_path / "runs/a b/jobs.jsonl").read()
    assert (event["event"], event["job"], event["log"]) == ("submitted", "12", "runs/a b/slurm-12.log")
    monkeypatch.setenv("CODE_sbatch", "1")
    assert main(["submit", *FIT, "--run", "runs/b"]) == 2
    assert "sbatch refused the job: exit code 1" in capsys.readouterr().err
    assert not (tmp_path / "runs/b/jobs.jsonl").exists()


def test_a_run_goes_on_only_as_what_it_was_begun(notes, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    file = write_config(tmp_path / "config.yaml", tiny_config(tmp_path))
    (tmp_path / "run").mkdir()
    assert main(["submit", "--config", str(file), "--run", "run", "--dry-run"]) == 0
    write_config(tmp_path / "run" / "config.yaml", {**yaml.safe_load(file.read_text()), "seed": 4})
    assert main(["submit", "--config", str(file), "--run", "run", "--seed", "5", "--dry-run"]) == 2
    assert "the run in run was begun with" in capsys.readouterr().err


def test_without_slurm_only_a_dry_run_is_possible(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["submit", *FIT]) == 2
    assert "there is no sbatch on this machine" in capsys.readouterr().err
    assert main(["submit", *FIT, "--dry-run"]) == 0


@pytest.mark.long
def test_a_wheel_has_the_scripts(tmp_path):
    """Built from a copy, as a build leaves files in the folder."""
    kept = shutil.ignore_patterns("__pycache__", ".*", "runs", "data", "build", "*.egg-info")
    shutil.copytree(ROOT, tmp_path / "source", symlinks=True, ignore=kept)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), "."]
    subprocess.run(command, cwd=tmp_path / "source", check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        for path in (ROOT / "slurm").iterdir():
            assert archive.read(f"bigtrain/cli/slurm/{path.name}") == path.read_bytes()
