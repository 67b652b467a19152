"""The image is built, and a training in it is stopped and goes on; nothing of the builder's secrets stays in it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from bigtrain import __version__
from tests.runs import ROOT, children
from tests.services.images import BASE, CERTIFICATES, Buildah, buildah, folders_of, pip_settings

pytestmark = pytest.mark.long
__all__ = ["buildah"]

IMAGE = "localhost/bigtrain:test"
PLANTED = "planted-5d1f0c2e"
#: Files in which secrets are found, none of which the image needs.
HIDING = [".env", "docker/.env", ".git/config", "data/key", "runs/a/config.yaml", "bigtrain/.netrc", "configs/me.key"]
FIT = ["fit", "--config", "configs/quickstart.yaml", "--schedule.total_kimg", "24", "--evaluation.num", "200"]


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository with secrets lying about."""
    folder = tmp_path_factory.mktemp("context") / "bigtrain"
    for name in ("bigtrain", "configs", "docker", "slurm"):
        shutil.copytree(ROOT / name, folder / name, symlinks=True)
    for name in (".dockerignore", "LICENSE", "README.md", "pyproject.toml"):
        shutil.copy2(ROOT / name, folder / name)
    for name in HIDING:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"AWS_SECRET_ACCESS_KEY={PLANTED}\n")
    return folder


@pytest.fixture(scope="module")
def image(buildah: Buildah, context: Path) -> str:
    """Built as docker/Dockerfile says, by this machine's pip configuration, on a base of Debian's packages."""
    settings = pip_settings()
    secret = buildah.folder / "pip.conf"
    lines = [f"{name} = {value}" for name, value in settings.items()]
    secret.write_text("\n".join(["[global]", *lines, "[planted]", f"password = {PLANTED}", ""]))
    mounts = [f"{path}:{path}:ro" for path in (CERTIFICATES, *folders_of(settings))]
    buildah.make_base()
    begun = time.monotonic()
    buildah(
        *("build", "--layers=false", "-f", context / "docker/Dockerfile", "-t", IMAGE),
        *("--build-arg", f"BASE_IMAGE={BASE}", "--build-arg", f"VERSION={__version__}"),
        *("--secret", f"id=pip,src={secret}", *(word for mount in mounts for word in ("-v", mount)), context),
        environment={"AWS_SECRET_ACCESS_KEY": PLANTED, "WANDB_API_KEY": PLANTED},
    )
    size = json.loads(buildah("images", "--json", IMAGE))[0]["size"]
    print(f"\nimage: {size}, built in {time.monotonic() - begun:.0f} s")
    return IMAGE


class Container:
    """A container of the image, as its unprivileged user."""

    def __init__(self, buildah: Buildah, image: str) -> None:
        self._buildah = buildah
        self.entrypoint = buildah.config(image)["Entrypoint"]
        self._name = buildah("from", "--pull-never", image)
        self.root = Path(buildah("mount", self._name))

    def words(self, *arguments: object, user: str | None = None) -> list[str]:
        options = ["--user", user] if user else []
        return self._buildah.command("run", *options, self._name, "--", *arguments)

    def run(self, *arguments: object, user: str | None = None) -> subprocess.CompletedProcess[str]:
        """The entrypoint with these arguments."""
        words = self.words(*self.entrypoint, *arguments, user=user)
        return subprocess.run(words, env=self._buildah.environment, capture_output=True, text=True, check=False)

    def begin(self, *arguments: object) -> subprocess.Popen[str]:
        words = self.words(*self.entrypoint, *arguments)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(words, env=self._buildah.environment, text=True, **pipes)


@pytest.fixture(scope="module")
def container(buildah: Buildah, image: str) -> Container:
    """One for all tests, which go on from each other: a copy of the image takes minutes."""
    return Container(buildah, image)


def trainer(pid: int) -> int:
    """The process of bigtrain below a process of this machine. (Those of buildah above it have its arguments too.)"""
    for child in children(pid):
        words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
        if b"/python" in words[0] and words[1].endswith(b"/bin/bigtrain"):
            return child
        if found := trainer(child):
            return found
    return 0


def records(run: Path) -> list[dict]:
    file = run / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def test_the_image_says_what_it_is(buildah: Buildah, image: str, container: Container) -> None:
    config = buildah.config(image)
    assert config["User"] == "1000:1000"
    assert config["Labels"]["org.opencontainers.image.version"] == __version__
    assert container.run("--version").stdout == f"bigtrain {__version__}\n"


def test_a_training_is_stopped_and_goes_on(container: Container) -> None:
    built = container.run("shards", "build", "digits:", "data/digits", "--resolutions", "4,8,16")
    assert built.returncode == 0, built.stderr
    run = container.root / "workspace/runs/quickstart"
    process = container.begin(*FIT, "--run", "runs/quickstart")
    try:
        deadline = time.monotonic() + 300
        while len(records(run)) < 3:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        os.kill(trainer(process.pid), signal.SIGTERM)
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGTERM, errors
    assert "with a checkpoint; the same command resumes" in errors
    stopped = records(run)[-1]
    done = container.run(*FIT, "--run", "runs/quickstart")
    assert done.returncode == 0, done.stderr
    assert records(run)[-1]["images_seen"] > stopped["images_seen"]
    files = [path for path in run.rglob("*") if path.is_file()]
    assert {path.stat().st_uid for path in files} == {1000}
    assert any(path.suffix == ".safetensors" for path in (run / "snapshots").iterdir())


def test_any_other_user_can_do_as_much(container: Container) -> None:
    done = container.run("sample", "runs/quickstart", "--out", "grid.png", "--num", "20", user="23456:23456")
    assert done.returncode == 0, done.stderr
    assert (container.root / "workspace/grid.png").stat().st_uid == 23456


def test_no_secret_is_in_the_image(buildah: Buildah, context: Path, container: Container) -> None:
    """One layer, which is what is mounted, and what buildah notes of the image and of how it was built."""
    look = ["grep", "-rlF", "--devices=skip", PLANTED]
    found = subprocess.run([*look, str(context)], capture_output=True, text=True, check=False).stdout
    assert len(found.splitlines()) == len(HIDING)
    notes = [path for path in (buildah.folder / "storage").glob("vfs-*") if path.is_dir()]
    assert notes
    searched = subprocess.run([*look, str(container.root), *notes], capture_output=True, text=True, check=False)
    assert (searched.returncode, searched.stdout) == (1, "")
    assert PLANTED not in buildah("inspect", "--type", "image", IMAGE)


def test_what_the_image_does_not_need_is_not_in_it(container: Container) -> None:
    assert [name for name in HIDING if (container.root / "opt/bigtrain" / name).exists()] == []
    secret = container.root / "run/secrets/pip"
    assert not secret.exists() or not secret.read_bytes()
    found = container.root.glob("opt/venv/lib/python3*/site-packages/*.dist-info")
    names = {path.name.partition("-")[0] for path in found}
    assert {"torch", "bigtrain", "boto3", "onnxruntime"} <= names
    assert names.isdisjoint({"pytest", "mypy", "ruff"})
