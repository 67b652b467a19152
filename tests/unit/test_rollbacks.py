"""What follows from a collapse that the guard has found, in whole runs: some killed on the way."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bigtrain.cli.main import main
from tests.runs import ENVIRONMENT, KILLER, ROOT, bigtrain, tiny_config, write_config

#: `bigtrain` whose guard finds a collapse at one moment if the discriminator says just that ("" for whatever it says),
#: and which may be killed as `tests.runs.KILLER` says.
COLLAPSER = (
    """
import sys
from bigtrain.callbacks import guard
from bigtrain.callbacks.guard_signs import Finding, Level
at, said = int(sys.argv[1]), sys.argv[2]
del sys.argv[1:3]
def judge(looks, scores, limits):
    found = looks[-1]["images_seen"] == at and said in ("", repr(looks[-1]["logit/real"]))
    return [Finding("diversity", Level.COLLAPSED, "all samples are one")] if found else []
guard.judge = judge
"""
    + KILLER
)
AT, TO = 320, 256
NEVER = ("bigtrain.games.AdversarialGame.play", "before", 10**6)


@pytest.fixture(scope="module")
def config(digits, tmp_path_factory) -> Path:
    made = tiny_config(digits, guard={"every_kimg": 0.032, "patience": 1})
    made["evaluation"] = None
    return write_config(tmp_path_factory.mktemp("config") / "tiny.yaml", made)


@pytest.fixture(scope="module")
def undisturbed(config, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    assert main(["fit", "--config", str(config), "--run", str(folder)]) == 0
    return folder


def lines(folder: Path, name: str = "guard.jsonl") -> list[dict]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def said_at(folder: Path, at: int = AT) -> str:
    return next(repr(line["logit/real"]) for line in lines(folder) if line["images_seen"] == at)


def collapse(config, folder, said, *options, kill=NEVER) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", COLLAPSER, AT, said, *kill, "fit", "--config", config, "--run", folder, *options]
    return subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, env=ENVIRONMENT, cwd=ROOT, check=False
    )


def results(folder: Path) -> dict[str, bytes]:
    """What a run must end with."""
    newest = max((folder / "checkpoints").iterdir())
    files = [
        newest / "rank-00000.safetensors",
        *sorted((folder / "samples").iterdir()),
        *sorted((folder / "snapshots").glob("*.safetensors")),
        *(folder / name for name in ("metrics.jsonl", "guard.jsonl")),
    ]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def facts(folder: Path) -> dict:
    return json.loads((max((folder / "checkpoints").iterdir()) / "state.json").read_text())["facts"]


def test_a_guard_changes_nothing(config, undisturbed, tmp_path):
    folder = tmp_path / "run"
    assert main(["fit", "--config", str(config), "--run", str(folder), "--guard", "null"]) == 0
    assert not (folder / "guard.jsonl").exists()
    (folder / "guard.jsonl").write_bytes((undisturbed / "guard.jsonl").read_bytes())
    assert results(folder) == results(undisturbed)
    assert {line["verdict"] for line in lines(undisturbed)} == {"ok"}
    assert [line["images_seen"] for line in lines(undisturbed)] == list(range(32, 481, 32))


ROLLBACK = ("--guard.on_collapse", "rollback")


@pytest.fixture(scope="module")
def rolled_back(config, undisturbed, tmp_path_factory) -> Path:
    """A run that collapsed once."""
    folder = tmp_path_factory.mktemp("rolled back") / "run"
    result = collapse(config, folder, said_at(undisturbed), *ROLLBACK)
    assert result.returncode == 0, result.stderr
    said = [line for line in result.stderr.splitlines() if line.startswith("bigtrain: guard: ")]
    assert len(said) == 2, said
    assert "collapsed at 0.32 kimg: all samples are one" in said[0]
    assert "rollback 1 of at most 3, 0.32 to 0.256 kimg" in said[1]
    return folder


def test_a_collapse_is_rolled_back_and_told_once(rolled_back, undisturbed):
    expected = {"at": AT, "to": TO, "reason": "all samples are one", "action": "reseed", "factor": 1.0}
    assert [line["rollbacks"] for line in lines(rolled_back) if "rollbacks" in line] == [[expected]]
    assert facts(rolled_back)["rollbacks"] == [expected]
    assert facts(undisturbed)["rollbacks"] == []
    for name in ("metrics.jsonl", "guard.jsonl"):
        ours = [line for line in lines(rolled_back, name) if "rollbacks" not in line]
        theirs = lines(undisturbed, name)
        assert [line["images_seen"] for line in ours] == [line["images_seen"] for line in theirs]
        for mine, other in zip(ours, theirs, strict=True):
            assert (mine == other) == (mine["images_seen"] <= TO), mine["images_seen"]


def test_slower_is_by_a_factor(config, undisturbed, tmp_path):
    folder = tmp_path / "run"
    result = collapse(config, folder, said_at(undisturbed), *ROLLBACK, "--guard.rollback", "slower")
    assert result.returncode == 0, result.stderr
    rates = {line["images_seen"]: line["lr/generator"] for line in lines(folder, "metrics.jsonl")}
    assert set(rates.values()) == {2e-3, 1e-3}
    assert all((rate == 1e-3) == (at > TO) for at, rate in rates.items())
    assert [rollback["action"] for rollback in facts(folder)["rollbacks"]] == ["slower"]


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(("bigtrain.cli.rollbacks.Rollbacks._collapse", "before", 2), id="with the collapse on record"),
        pytest.param(
            ("bigtrain.checkpoints.Checkpoints.remove_after", "before", 1),
            id="with the rollback on record",
            marks=pytest.mark.long,
        ),
        pytest.param(("bigtrain.checkpoints.Checkpoints.remove_after", "after", 1), id="without the later checkpoints"),
        pytest.param(
            ("bigtrain.cli.run_folder.RunFolder.go_back", "before", 2),
            id="before the records go back",
            marks=pytest.mark.long,
        ),
        pytest.param(
            ("bigtrain.games.AdversarialGame.generator_turn", "after", 22),
            id="before another checkpoint",
            marks=pytest.mark.long,
        ),
        pytest.param(("bigtrain.games.AdversarialGame.generator_turn", "after", 26), id="after another checkpoint"),
    ],
)
def test_killed_in_a_rollback_or_after_it(moment, config, undisturbed, rolled_back, tmp_path):
    folder, said = tmp_path / "run", said_at(undisturbed)
    killed = collapse(config, folder, said, *ROLLBACK, kill=moment)
    assert killed.returncode == -9, killed.stderr
    assert lines(folder)  # (it was not killed before there was anything)
    resumed = collapse(config, folder, said, *ROLLBACK)
    assert resumed.returncode == 0, resumed.stderr
    assert results(folder) == results(rolled_back)
    assert facts(folder)["rollbacks"] == facts(rolled_back)["rollbacks"]


def test_a_resume_without_a_guard_keeps_the_rollbacks(config, undisturbed, rolled_back, tmp_path):
    folder = tmp_path / "run"
    moment = ("bigtrain.games.AdversarialGame.generator_turn", "after", 26)
    assert collapse(config, folder, said_at(undisturbed), *ROLLBACK, kill=moment).returncode == -9
    assert bigtrain("fit", "--config", config, "--run", folder, "--guard", "null").returncode == 0
    ours, theirs = results(folder), results(rolled_back)
    assert {n: b for n, b in ours.items() if n != "guard.jsonl"} == {
        n: b for n, b in theirs.items() if n != "guard.jsonl"
    }


def test_at_most_so_many_rollbacks(config, tmp_path):
    folder = tmp_path / "run"
    result = collapse(config, folder, "", *ROLLBACK, "--guard.max_rollbacks", "2")
    assert result.returncode == 2
    line = result.stderr.strip().splitlines()[-1]
    assert "collapsed at 0.32 kimg (all samples are one)" in line
    assert "last good checkpoint: " + str(folder / "checkpoints" / "000000.256") in line
    assert "guard.max_rollbacks (=2)" in line
    told = [line["rollbacks"] for line in lines(folder) if "rollbacks" in line]
    assert [len(rollbacks) for rollbacks in told] == [1, 2]
    assert len({line["logit/real"] for line in lines(folder) if line["images_seen"] == AT}) == 1
    again = collapse(config, folder, "", *ROLLBACK, "--guard.max_rollbacks", "2")  # at once
    assert again.returncode == 2
    assert again.stderr.strip().splitlines()[-1] == line
    assert [line["rollbacks"] for line in lines(folder) if "rollbacks" in line] == told


def test_stop_names_the_last_good_checkpoint(config, undisturbed, rolled_back, tmp_path):
    folder, said = tmp_path / "run", said_at(undisturbed)
    stopped = collapse(config, folder, said, "--guard.on_collapse", "stop")
    assert stopped.returncode == 2
    line = stopped.stderr.strip().splitlines()[-1]
    assert line.startswith("bigtrain: error: the training has collapsed at 0.32 kimg (all samples are one)")
    assert str(folder / "checkpoints" / "000000.256") in line
    assert "--guard.on_collapse rollback" in line
    assert collapse(config, folder, said, *ROLLBACK).returncode == 0  # as it says
    assert results(folder) == results(rolled_back)


def test_good_checkpoints_are_kept(config, tmp_path):
    """Also when `keep_checkpoints` newer ones are not good."""
    folder = tmp_path / "run"
    script = COLLAPSER.replace("at and", "at + 0 and").replace(
        'looks[-1]["images_seen"] == at + 0', 'looks[-1]["images_seen"] >= 224'
    )
    options = ["--cadences.keep_checkpoints", "1", "--guard.on_collapse", "warn"]
    command = [sys.executable, "-c", script, AT, "", *NEVER, "fit", "--config", config, "--run", folder, *options]
    done = subprocess.run(
        [str(w) for w in command], capture_output=True, text=True, env=ENVIRONMENT, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"000000.128", "000000.480"}


@pytest.mark.parametrize("strategy", [pytest.param("ddp", marks=pytest.mark.long), "fsdp"])
def test_ranks_roll_back_together(strategy, config, tmp_path):
    options = (*ROLLBACK, "--compute.devices", 2, "--compute.strategy", strategy)
    folder, other = tmp_path / "run", tmp_path / "other"
    assert bigtrain("fit", "--config", config, "--run", tmp_path / "plain", *options).returncode == 0
    said = said_at(tmp_path / "plain")
    result = collapse(config, folder, said, *options)
    assert result.returncode == 0, result.stderr
    assert [rollback["to"] for rollback in facts(folder)["rollbacks"]] == [TO]
    assert (folder / "metrics.jsonl").read_bytes() != (tmp_path / "plain" / "metrics.jsonl").read_bytes()
    killed = collapse(config, other, said, *options, kill=("bigtrain.games.AdversarialGame.play", "before", 26))
    assert killed.returncode != 0
    resumed = collapse(config, other, said, *options)
    assert resumed.returncode == 0, resumed.stderr
    assert results(other) == results(folder)
