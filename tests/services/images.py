"""Container images without a daemon or a registry: buildah on plain folders, in chroots, from Debian's packages."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from tests.services.needs import need_file

#: Of Debian, with the Python of the Dockerfile's own base.
SUITE, BASE = "bookworm", "localhost/debian-python:bookworm"
CERTIFICATES = Path("/etc/ssl/certs")
#: While an image with CUDA (6.7 GB) is put together there are four copies of it.
GB_NEEDED = 30


class Buildah:
    """buildah with a storage of its own.

    Args:
        folder: for images, containers and what is under way; all of it is removed by `clear`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "tmp").mkdir(parents=True)
        self._command = ["buildah", "--root", str(folder / "storage"), "--runroot", str(folder / "run")]
        self._command += ["--storage-driver", "vfs"]
        self.environment = {**os.environ, "TMPDIR": str(folder / "tmp"), "BUILDAH_ISOLATION": "chroot"}

    def command(self, *arguments: object) -> list[str]:
        """The words of a call."""
        return [*self._command, *map(str, arguments)]

    def __call__(self, *arguments: object, environment: dict[str, str] | None = None) -> str:
        """What it says; RuntimeError with the end of what it complains of."""
        known = {**self.environment, **(environment or {})}
        done = subprocess.run(self.command(*arguments), env=known, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"buildah {arguments[0]}: {done.stdout[-3000:]}\n{done.stderr[-3000:]}")
        return done.stdout.strip()

    def make_base(self) -> None:
        """An image of Debian with Python, as slim as debootstrap makes it."""
        root, log = self.folder / "rootfs", self.folder / "debootstrap.log"
        packages = "python3,python3-venv,ca-certificates"
        with log.open("wb") as said:
            command = ["debootstrap", "--variant=minbase", f"--include={packages}", SUITE, str(root)]
            done = subprocess.run(command, stdout=said, stderr=said, check=False)
        if done.returncode:
            raise RuntimeError(f"debootstrap: {log.read_text(errors='replace')[-3000:]}")
        container = self("from", "scratch")
        self("add", "-q", container, root, "/")
        self("commit", "-q", "--rm", container, BASE)
        shutil.rmtree(root)

    def config(self, image: str) -> dict[str, Any]:
        """What an image says of itself: User, Env, Entrypoint, Labels, …"""
        return json.loads(self("inspect", "--type", "image", image))["OCIv1"]["config"]

    def clear(self) -> None:
        """Removes everything."""
        for arguments in (("umount", "--all"), ("rm", "--all"), ("rmi", "--all", "--force")):
            subprocess.run(self.command(*arguments), env=self.environment, capture_output=True, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)


def pip_settings() -> dict[str, str]:
    """How pip is set on this machine: from where it takes packages, and whose certificates it trusts."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = dict(line.split("=", 1) for line in said.splitlines() if line.startswith(("global.", ":env:.")))
    return {name.rpartition(".")[2]: ast.literal_eval(value) for name, value in found.items()}


def folders_of(settings: dict[str, str]) -> list[Path]:
    """The folders of this machine in which pip looks for packages."""
    words = " ".join(settings.get(name, "") for name in ("index-url", "extra-index-url", "find-links")).split()
    urls = [urlsplit(word) for word in words]
    paths = [Path(unquote(url.path)) for url in urls if url.scheme in ("", "file")]
    return sorted({path.parent if path.name == "simple" else path for path in paths if path.is_dir()})


@pytest.fixture(scope="module")
def buildah(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Buildah]:
    """Skips without Debian's packages or root; in CI that is a failure."""
    for name in ("buildah", "debootstrap"):
        need_file(Path(shutil.which(name) or name), "apt-get install buildah crun debootstrap")
    if os.geteuid():
        pytest.skip("debootstrap and chroots need root")
    folder = tmp_path_factory.mktemp("buildah")
    if (free := shutil.disk_usage(folder).free / 1e9) < GB_NEEDED:
        pytest.skip(
            f"{folder} has {free:.0f} GB free, and building an image takes {GB_NEEDED}: set TMPDIR to another disk"
        )
    one = Buildah(folder / "all")
    try:
        yield one
    finally:
        one.clear()
