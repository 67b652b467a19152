"""A run that is killed anywhere and resumed ends, to the bit, as the one that nobody disturbed."""

import json
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.runs import begin, bigtrain, tiny_config, write_config

GAME, STORAGE, RECORDS = (
    "bigtrain.games.AdversarialGame",
    "bigtrain.storage.Storage",
    "bigtrain.callbacks.records.Records",
)


@pytest.fixture(scope="module")
def config(digits, tmp_path_factory) -> Path:
    return write_config(tmp_path_factory.mktemp("config") / "tiny.yaml", tiny_config(digits))


@pytest.fixture(scope="module")
def undisturbed(config, tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    result = bigtrain("fit", "--config", config, "--run", folder)
    assert result.returncode == 0, result.stderr
    return results(folder)


def results(folder: Path) -> dict[str, bytes]:
    """What a run must end with: weights, averages, optimizers, records, pictures and snapshots."""
    newest = max((folder / "checkpoints").iterdir())
    files = [
        newest / "rank-00000.safetensors",
        *sorted((folder / "samples").iterdir()),
        *sorted((folder / "snapshots").glob("*.safetensors")),
        folder / "metrics.jsonl",
        folder / "evaluation.jsonl",
    ]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param((f"{GAME}.__init__", "after", 1), id="building"),
        pytest.param((f"{GAME}.discriminator_turn", "after", 14), id="between two D turns"),
        pytest.param((f"{GAME}.generator_turn", "before", 17), id="before a G turn, fading"),
        pytest.param(("bigtrain.games.ema.EMA.update", "before", 24), id="before the average"),
        pytest.param((f"{STORAGE}.write", "after", 18), id="checkpointing"),
        pytest.param((f"{RECORDS}.append", "after", 12), id="recording"),
    ],
)
def test_killed_at_a_moment(moment, config, undisturbed, tmp_path):
    folder = tmp_path / "run"
    killed = bigtrain("fit", "--config", config, "--run", folder, kill=moment)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    resumed = bigtrain("fit", "--config", config, "--run", folder)
    assert resumed.returncode == 0, resumed.stderr
    assert results(folder) == undisturbed


def wait_for(found, process: subprocess.Popen, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not found() and time.monotonic() < end and process.poll() is None:
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_step_and_leaves_a_checkpoint(number, config, undisturbed, tmp_path):
    folder = tmp_path / "run"
    process = begin("fit", "--config", config, "--run", folder)
    wait_for((folder / "metrics.jsonl").exists, process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + number, errors
    assert "the same command resumes" in errors
    records = (folder / "metrics.jsonl").read_text().splitlines()
    newest = max((folder / "checkpoints").iterdir())
    assert json.loads((newest / "state.json").read_text())["images_seen"] >= json.loads(records[-1])["images_seen"]
    assert bigtrain("fit", "--config", config, "--run", folder).returncode == 0
    final = results(folder)
    assert {name: final[name] for name in undisturbed} == undisturbed  # beside the snapshot of the stop


def test_a_finished_run_says_so_and_does_nothing(config, undisturbed, tmp_path):
    folder = tmp_path / "run"
    first = bigtrain("fit", "--config", config, "--run", folder)
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*") if file.parent.name == "checkpoints"}
    again = bigtrain("fit", "--config", config, "--run", folder)
    assert again.returncode == 0, again.stderr
    assert again.stdout == first.stdout
    assert "fid60" in again.stdout
    assert before == {file: file.stat().st_mtime_ns for file in folder.rglob("*") if file.parent.name == "checkpoints"}


#: Methods in which a run is killed at random, with about how often an undisturbed run calls them.
MOMENTS = [
    (f"{GAME}.__init__", 1),
    (f"{GAME}.discriminator_turn", 60),
    (f"{GAME}.generator_turn", 30),
    ("bigtrain.games.Player.step", 90),
    ("bigtrain.games.ema.EMA.update", 30),
    (f"{STORAGE}.write", 40),
    (f"{RECORDS}.append", 35),
    ("bigtrain.data.reader.Reader.read", 30),
    ("bigtrain.sampling.generate.Sampler.__call__", 9),
]


@pytest.mark.long
@pytest.mark.parametrize("seed", range(5))
def test_killed_four_times_at_random_moments(seed, config, undisturbed, tmp_path):
    """Twenty in all, each at a random call of a random method, before or after it, whatever is left of the run."""
    chance, folder, kills = random.Random(seed), tmp_path / "run", 0
    for _ in range(100):
        target, calls = chance.choice(MOMENTS)
        moment = (target, chance.choice(("before", "after")), chance.randint(1, calls))
        code = bigtrain("fit", "--config", config, "--run", folder, kill=moment).returncode
        assert code in (0, -signal.SIGKILL)
        kills += code != 0
        if code == 0 or kills == 4:
            assert bigtrain("fit", "--config", config, "--run", folder).returncode == 0
            assert results(folder) == undisturbed
        if kills == 4:
            return
        if code == 0:  # it had ended before the call: another run takes the kills that are left
            shutil.rmtree(folder)
    raise AssertionError(f"only {kills} kills")
