"""What Weights & Biases and TensorBoard are shown: a run that was requeued and played a stretch twice, read back."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bigtrain.cli.dashboard import panels_of, workspace
from bigtrain.cli.main import main
from bigtrain.snapshots import load_snapshot
from tests.runs import tiny_config, write_config
from tests.unit.wandb_file import config as told_config
from tests.unit.wandb_file import records, rows

SECRETS = {"AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG", "WANDB_API_KEY": "0123456789abcdef" * 2 + "01234567"}
IN_URLS = ("hunter2", "c0ffee5eed")
NAME = f"s3://me:hunter2@bucket/x https://h/x?X-Amz-Signature=c0ffee5eed {SECRETS['AWS_SECRET_ACCESS_KEY']}"


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("dashboards")


@pytest.fixture(scope="module")
def run(digits, places) -> Path:
    """Ended early, gone back to an older checkpoint, ended, with secrets in the environment and the configuration."""
    folder = places / "run"
    shown = {"project": "tests", "name": NAME, "snapshots_mib": 1}
    made = tiny_config(digits, wandb=shown, tensorboard=True, guard={"every_kimg": 0.096})
    command = ["fit", "--config", str(write_config(places / "tiny.yaml", made)), "--run", str(folder)]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**SECRETS, "WANDB_DATA_DIR": str(places), "WANDB_CACHE_DIR": str(places)}.items():
            patch.setenv(name, value)
        assert main([*command, "--schedule.total_kimg", "0.24"]) == 0
        for lost in sorted((folder / "checkpoints").iterdir())[2:]:
            shutil.rmtree(lost)  # as if killed before they were there
        assert main(command) == 0
    return folder


@pytest.fixture(scope="module")
def files(run) -> list[list]:
    """The records of each of the run's parts, the earlier one first."""
    return [records(path) for path in sorted(run.glob("wandb/offline-run-*/*.wandb"), key=os.path.getmtime)]


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_two_parts_are_one_run_that_shows_every_moment_once(run, files):
    assert len(files) == 2
    ids = {r.run.run_id for part in files for r in part if r.WhichOneof("record_type") == "run"}
    assert ids == {(run / "wandb-id").read_text()}
    steps = [[row["_step"] for row in rows(part)] for part in files]
    assert steps[0][-1] < steps[1][0]
    together = [step for part in steps for step in part]
    assert together == sorted(set(together))
    end_of_the_first = {240}
    assert set(together) - end_of_the_first == {record["images_seen"] for record in lines(run / "metrics.jsonl")}


def test_what_was_recorded_is_what_is_shown(run, files):
    shown = {row["_step"]: row for part in files for row in rows(part)}
    for record in lines(run / "metrics.jsonl"):
        row = shown[record["images_seen"]]
        assert all(row[name] == pytest.approx(record[name]) for name in ("kimg", "loss_d", "grad_norm_g", "alpha"))
        assert row["transition"] == (record["phase"] == "transition")
    for score in lines(run / "evaluation.jsonl"):
        assert shown[score["images_seen"]][score["metric"]] == pytest.approx(score["value"])
    for look in lines(run / "guard.jsonl"):
        largest = max(v for n, v in look["singular_values"].items() if n.startswith("discriminator."))
        assert shown[look["images_seen"]]["guard/singular_value/discriminator"] == pytest.approx(largest)
    assert shown[480]["samples"]["_type"] == "images/separated"
    assert {"images_per_second", "seconds_per_kimg", "data_wait_share", "memory/host_peak_gib"} <= shown[480].keys()


def test_kimg_is_the_axis_and_the_configuration_and_protocols_are_told(files):
    for part in files:
        metrics = [r.metric for r in part if r.WhichOneof("record_type") == "metric"]
        assert ("*", "kimg") in {(metric.glob_name, metric.step_metric) for metric in metrics}
        told = told_config(part)
        assert told["schedule"]["class_path"].endswith("Progressive")
        assert told["versions"].keys() >= {"bigtrain", "torch"}
    assert told["protocol"].keys() == {"fid60_full", "is60", "recognition60"}
    assert told["protocol"]["is60"]["extractor"].startswith("classifier-")


def test_snapshots_are_artifacts_made_from_that_of_the_data(run, files):
    artifacts = [r.artifact for r in files[1] if r.WhichOneof("record_type") == "artifact"]
    (data,) = [artifact for artifact in artifacts if artifact.type == "dataset"]
    card = load_snapshot(str(run)).card
    assert data.use_after_commit
    assert data.name == f"data-{card.manifest[:16]}"
    models = [artifact for artifact in artifacts if artifact.type == "model"]
    assert [json.loads(model.metadata)["images_seen"] for model in models][-1] == 480
    assert {json.loads(model.metadata)["manifest"] for model in models} == {card.manifest}
    assert {entry.path for entry in models[-1].manifest.contents} == {"000000.480.safetensors", "000000.480.json"}


def test_tensorboard_shows_the_same_and_hides_what_was_played_twice(run):
    board = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0, "images": 0})
    board.Reload()
    steps = {name: [event.step for event in board.Scalars(name)] for name in board.Tags()["scalars"]}
    metrics = lines(run / "metrics.jsonl")
    assert steps["loss_d"] == [record["images_seen"] for record in metrics]
    assert [event.value for event in board.Scalars("loss_d")] == pytest.approx([r["loss_d"] for r in metrics])
    assert [event.step for event in board.Images("samples")] == [160, 320, 480]
    assert {"fid60_full", "guard/verdict", "mfu", "images_per_second"} - steps.keys() == {"mfu"}


def test_no_panel_is_empty_and_nothing_that_is_shown_lacks_one(run, files, capsys):
    assert main(["dashboard", str(run), "--dry-run"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["project"] == "tests"
    panels = [names for section in told["sections"].values() for names in section.values()]
    drawn = [name for names in panels for name in names]
    assert all(panels)
    logged = {name for part in files for row in rows(part) for name in row if not name.startswith("_")} - {"kimg"}
    assert sorted(drawn) == sorted(logged)
    assert list(told["sections"]) == ["Scores", "Losses", "Phase", "Guard", "Speed"]


@pytest.mark.filterwarnings("default")  # wandb-workspaces' own
def test_the_workspace_has_these_panels():
    plan = panels_of(["loss_d", "loss_g", "kimg", "samples", "my/own"])
    made = workspace("me", "tests", "mine", plan)
    assert [section.name for section in made.sections] == ["Scores", "Losses", "Other"]
    pictures, losses, own = (section.panels[0] for section in made.sections)
    assert pictures.media_keys == ["samples"]
    assert (losses.x, list(losses.y)) == ("kimg", ["loss_d", "loss_g"])
    assert list(own.y) == ["my/own"]
    assert made.settings.x_axis == "kimg"


def test_a_project_has_all_panels_by_pattern(capsys):
    assert main(["dashboard", "team/digits", "--dry-run"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["entity"], told["project"]) == ("team", "digits")
    assert "σ₀" in told["sections"]["Guard"]
    assert main(["dashboard", "/nowhere", "--dry-run"]) == 2
    assert "RUN_OR_PROJECT (='/nowhere')" in capsys.readouterr().err


def test_curves_over_the_truncation_are_shown_where_the_run_is(run, digits, capsys):
    sweep = ["--num", "20", "--metrics", "fid,is", "--truncation", "0.5,none", "--show"]
    assert main(["evaluate", str(run), *sweep]) == 0
    newest = max(run.glob("wandb/offline-run-*/*.wandb"), key=os.path.getmtime)
    (row,) = rows(records(newest))
    assert row["truncation"]["_type"] == "images/separated"
    assert row["_step"] == 481
    capsys.readouterr()
    assert main(["dashboard", str(run), "--dry-run"]) == 0
    assert json.loads(capsys.readouterr().out)["sections"]["Scores"]["truncation"] == ["truncation"]
    assert main(["evaluate", str(run), "--show"]) == 2
    assert "--show" in capsys.readouterr().err


def test_no_secret_is_anywhere(run, places, capfd):
    planted = [value.encode() for value in (*SECRETS.values(), *IN_URLS)]
    found = [path for path in places.rglob("*") if path.is_file() and path != places / "tiny.yaml"]
    assert {"config.yaml", "wandb-id"} <= {path.name for path in found}
    assert {".wandb", ".safetensors", ".json", ".log"} <= {path.suffix for path in found}
    leaks = [(path, secret) for path in found for secret in planted if secret in path.read_bytes()]
    assert leaks == []
    assert "***@bucket" in (run / "config.yaml").read_text()
    url = "s3://me:hunter2@bucket/none?X-Amz-Signature=c0ffee5eed"
    assert main(["fit", "--config", str(run / "config.yaml"), "--run", str(places / "b"), "--data.url", url]) == 2
    said = "".join(capfd.readouterr())
    assert "bucket" in said
    assert [secret for secret in planted if secret.decode() in said] == []
