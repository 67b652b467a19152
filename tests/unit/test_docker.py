"""docker/Dockerfile and what it installs: what it copies is there, its locks are whole, and no secret has a place."""

from __future__ import annotations

import fnmatch
import json
import re
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path, PurePosixPath

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.runs import ROOT
from tests.unit.test_package import tracked

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it

__all__ = ["tracked"]

INSTRUCTIONS = {
    *("ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL"),
    *("ONBUILD", "RUN", "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"),
}
LOCKS = ["docker/torch.lock", "docker/requirements.lock"]
#: Whose variables are part of every image that is made of them.
_SECRET = re.compile(r"SECRET|PASSW|TOKEN|CREDENTIAL|_KEY\b", re.IGNORECASE)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
DOCKERFILE = (ROOT / "docker/Dockerfile").read_text(encoding="utf-8")


def instructions(text: str) -> list[tuple[str, str]]:
    """A Dockerfile's instructions and what follows them, a line each.

    Raises:
        ValueError: for a line that begins with none, or a Dockerfile that begins with another than ARG or FROM.
    """
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\[ \t]*\n", " ", "\n".join(lines))
    found = []
    for line in filter(str.strip, joined.splitlines()):
        name, _, rest = line.partition(" ")
        if name not in INSTRUCTIONS or not rest.strip():
            raise ValueError(f"not an instruction: {line}")
        found.append((name, " ".join(rest.split())))
    names = [name for name, _ in found]
    if "FROM" not in names or set(names[: names.index("FROM")]) - {"ARG"}:
        raise ValueError("FROM must come first, but for ARG")
    return found


def all_of(name: str, text: str = DOCKERFILE) -> list[str]:
    """What follows the instructions of a name."""
    return [rest for found, rest in instructions(text) if found == name]


def copied(text: str = DOCKERFILE) -> list[str]:
    """The paths that are copied from the repository."""
    return [path for rest in all_of("COPY", text) for path in rest.split()[:-1]]


def faults(text: str) -> list[str]:
    """What must not be in a Dockerfile of ours."""
    user = all_of("USER", text)[-1:] or ["root"]
    found = [f"ADD {rest}" for rest in all_of("ADD", text)]
    if not re.fullmatch(r"[1-9]\d*:[1-9]\d*", user[0]):
        found.append(f"USER {user[0]}")
    for name in ("ENTRYPOINT", "CMD"):
        try:
            found += [f"{name} {rest}" for rest in all_of(name, text) if not isinstance(json.loads(rest), list)]
        except ValueError:
            found.append(f"{name}: in the shell's form, which keeps signals to itself")
    named = [(name, rest, re.sub(r"=\S*", "", rest)) for name in ("ARG", "ENV", "LABEL") for rest in all_of(name, text)]
    found += [f"{name} {rest}" for name, rest, names in named if _SECRET.search(names)]
    found += [f"RUN {rest}" for rest in all_of("RUN", text) if re.search(r"\b(curl|wget|sudo|chmod 777)\b", rest)]
    return found


def test_the_dockerfile_is_in_order() -> None:
    assert faults(DOCKERFILE) == []
    (base,) = all_of("FROM")
    assert base == "${BASE_IMAGE}"
    assert all_of("STOPSIGNAL") == ["SIGTERM"]
    assert set(json.loads(all_of("ENTRYPOINT")[0])) <= PROJECT["project"]["scripts"].keys()


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (("USER 1000:1000", "USER root"), "USER root"),
        (("USER 1000:1000\n", ""), "USER root"),
        (("USER 1000:1000", "USER 0:0"), "USER 0:0"),
        (('ENTRYPOINT ["bigtrain"]', "ENTRYPOINT bigtrain"), "ENTRYPOINT: in the shell's form"),
        (("COPY configs", "ADD https://example.org/configs"), "ADD https"),
        (("ARG VERSION=unknown", "ARG WANDB_API_KEY"), "ARG WANDB_API_KEY"),
        (("LOGNAME=", "AWS_SECRET_ACCESS_KEY=x LOGNAME="), "ENV HOME"),
    ],
)
def test_a_fault_of_the_dockerfile_would_be_found(change: tuple[str, str], fault: str) -> None:
    broken = DOCKERFILE.replace(*change)
    assert broken != DOCKERFILE
    assert any(found.startswith(fault) for found in faults(broken))


@pytest.mark.parametrize(
    "text", ["RUN true\nFROM a\n", "FROM a\nRUM true\n", "FROM a\nRUN\n", "FROM a\nRUN a \\ \nb\nc\n"]
)
def test_what_is_no_dockerfile_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"not an instruction|must come first"):
        instructions(text)


def ignored(path: str, patterns: list[str]) -> bool:
    """Whether .dockerignore keeps a path out: the last pattern that matches it, or a folder above it, decides."""
    ways = [str(part) for part in (PurePosixPath(path), *PurePosixPath(path).parents)][:-1]
    kept_out = False
    for pattern in patterns:
        bare = pattern.removeprefix("!")
        options = [bare, bare.removeprefix("**/")] if bare.startswith("**/") else [bare]
        if any(_matches(way, option) for way in ways for option in options):
            kept_out = not pattern.startswith("!")
    return kept_out


def _matches(path: str, pattern: str) -> bool:
    """`*` stays within a name, `**/` is any folders."""
    parts, wanted = path.split("/"), pattern.split("/")
    if wanted[0] == "**":
        return any(_matches("/".join(parts[start:]), "/".join(wanted[1:])) for start in range(len(parts)))
    return len(parts) == len(wanted) and all(map(fnmatch.fnmatchcase, parts, wanted))


@pytest.fixture(scope="module")
def patterns() -> list[str]:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_every_path_that_is_copied_exists_and_reaches_the_builder(patterns: list[str]) -> None:
    paths = copied()
    assert len(paths) >= 8
    assert [path for path in paths if not (ROOT / path).exists() or ignored(path, patterns)] == []
    files = [file.relative_to(ROOT).as_posix() for file in (ROOT / "bigtrain").rglob("*") if file.is_file()]
    lost = [file for file in files if ignored(file, patterns)]
    assert [file for file in lost if "__pycache__" not in file] == []


def test_the_builder_sees_nothing_else(patterns: list[str], tracked: list[Path]) -> None:
    copies = copied()
    for file in (path.as_posix() for path in tracked):
        needed = any(file == path or file.startswith(f"{path}/") for path in copies)
        assert needed or ignored(file, patterns), file


@pytest.mark.parametrize(
    "path",
    [
        *(".env", "docker/.env", ".git/config", "data/digits/a.tar", "runs/a/config.yaml", "wandb/run.wandb"),
        *(
            "bigtrain/.env",
            "bigtrain/cli/.netrc",
            "configs/me.key",
            "slurm/me.pem",
            "bigtrain/__pycache__/a.pyc",
            "id_rsa",
        ),
    ],
)
def test_what_may_hold_secrets_does_not_reach_the_builder(path: str, patterns: list[str]) -> None:
    assert ignored(path, patterns)


def test_dockerignore_is_read_as_docker_reads_it() -> None:
    rules = ["*", "!a", "!b/c", "**/*.pyc", "a/x*"]
    kept = ["a", "a/f.py", "b/c", "b/c/d"]
    lost = ["b", "b/d", "f.py", "a/f.pyc", "b/c/d.pyc", "a/x1", "a/x/y"]
    assert [path for path in [*kept, *lost] if not ignored(path, rules)] == kept


def locked(text: str) -> dict[str, str]:
    """Names and versions of a lock file.

    Raises:
        ValueError: for a line that is not one version, by name, with at least one hash: no URL, no index, no option.
    """
    found: dict[str, str] = {}
    for line in re.sub(r" *\\\n *", " ", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)).splitlines():
        match = re.fullmatch(r"([a-z0-9-]+)==([\w.!]+)((?: --hash=sha256:[0-9a-f]{64})+)", line.strip())
        if not match or match[1] in found:
            raise ValueError(f"not one version with its hashes: {line[:100]}")
        found[match[1]] = match[2]
    return found


@pytest.fixture(scope="module")
def locks() -> list[dict[str, str]]:
    return [locked((ROOT / name).read_text(encoding="utf-8")) for name in LOCKS]


@pytest.fixture(scope="module")
def lock(locks: list[dict[str, str]]) -> dict[str, str]:
    """Both of them."""
    assert not locks[0].keys() & locks[1].keys()
    return locks[0] | locks[1]


def wanting(requirement: str, lock: dict[str, str]) -> bool:
    """Whether a lock does not meet a requirement."""
    parsed = Requirement(requirement)
    if parsed.marker and not parsed.marker.evaluate({"extra": ""}):
        return False
    version = lock.get(canonicalize_name(parsed.name))
    return version is None or version not in parsed.specifier


def test_the_lock_meets_what_the_project_requires(lock: dict[str, str]) -> None:
    extras = re.findall(r"^EXTRAS := (.*)$", MAKEFILE, re.MULTILINE)[0].split()
    optional = PROJECT["project"]["optional-dependencies"]
    assert set(extras) == optional.keys() - {"dev"}
    needed = [one for name in extras for one in optional[name]]
    needed += [*PROJECT["project"]["dependencies"], *PROJECT["build-system"]["requires"]]
    assert [one for one in needed if wanting(one, lock)] == []


@pytest.mark.skipif(sys.version_info[:2] != (3, 11) or sys.platform != "linux", reason="the lock is not of this Python")
def test_what_is_locked_needs_nothing_that_is_not(lock: dict[str, str]) -> None:
    """By what this environment has in the same version; pip looks at all of it when the image is built."""
    installed = {canonicalize_name(one.name): one for one in metadata.distributions()}
    same = [
        installed[name] for name, version in lock.items() if name in installed and installed[name].version == version
    ]
    needed = {(one.name, requirement) for one in same for requirement in one.requires or []}
    assert [(name, one) for name, one in needed if wanting(one, lock)] == []


def test_torch_and_cuda_are_in_a_lock_of_their_own(locks: list[dict[str, str]]) -> None:
    large, others = locks
    assert large.keys() >= {"torch", "torchvision", "triton"}
    assert any(name.startswith("nvidia-cudnn") for name in large)
    assert [name for name in others if name.startswith(("nvidia-", "cuda-"))] == []
    assert len(others) > 50
    pins = re.findall(r"grep -oE '(.*?)' torch.lock", DOCKERFILE)
    text = (ROOT / LOCKS[0]).read_text(encoding="utf-8")
    assert re.findall(pins[0].replace("(vision)", "(?:vision)"), text, re.MULTILINE) == [
        f"torch=={large['torch']}",
        f"torchvision=={large['torchvision']}",
    ]


@pytest.mark.parametrize(
    "line",
    [
        "a>=1 --hash=sha256:" + "0" * 64,
        "a==1",
        "a==1 --hash=sha256:" + "0" * 63,
        "a @ https://example.org/a.whl --hash=sha256:" + "0" * 64,
        "--index-url https://example.org/simple",
        "/tmp/a.whl --hash=sha256:" + "0" * 64,
    ],
)
def test_a_fault_of_a_lock_would_be_found(line: str) -> None:
    good = "# a comment\nb==2.0 \\\n    --hash=sha256:" + "a" * 64 + "\n"
    assert locked(good) == {"b": "2.0"}
    with pytest.raises(ValueError, match="not one version"):
        locked(good + line + "\n")


def test_the_lock_is_for_the_python_of_the_base_image() -> None:
    (base,) = [rest.partition("=")[2] for rest in all_of("ARG") if rest.startswith("BASE_IMAGE=")]
    (python,) = re.findall(r"^IMAGE_PYTHON := (.*)$", MAKEFILE, re.MULTILINE)
    assert base.startswith(f"python:{python}-")
    assert all(f"Python {python} " in (ROOT / name).read_text(encoding="utf-8").splitlines()[0] for name in LOCKS)


def test_every_install_is_by_hash_but_torch_without_cuda() -> None:
    installs = [one for run in all_of("RUN") for one in re.findall(r"pip install [^;&]*", run)]
    assert len(installs) == 4
    for one in installs:
        assert "--require-hashes" in one or "--no-index" in one or '--index-url "$TORCH_CPU_INDEX"' in one
        assert "--no-deps" in one


def test_make_image_gives_what_the_dockerfile_takes() -> None:
    given = re.findall(r"--build-arg (\w+)=", MAKEFILE)
    assert set(given) <= {rest.partition("=")[0] for rest in all_of("ARG")}
    made = subprocess.check_output(["make", "-n", "image"], cwd=ROOT, text=True)
    script = re.search(r"VERSION=\$\((sed -nE '.*?' \S+)\)", made)
    assert script is not None
    version = subprocess.check_output(shlex.split(script[1]), cwd=ROOT, text=True).strip()
    assert version == re.findall(r'__version__ = "(.*)"', Path(ROOT / "bigtrain/__init__.py").read_text())[0]
