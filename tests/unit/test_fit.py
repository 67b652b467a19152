"""`bigtrain fit`, `sample` and `evaluate` as a user meets them, in one process."""

import fcntl
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from bigtrain.cli.main import main
from bigtrain.snapshots import load_snapshot
from tests.runs import tiny_config, write_config


@pytest.fixture(scope="module")
def config(digits, tmp_path_factory):
    return write_config(tmp_path_factory.mktemp("config") / "tiny.yaml", tiny_config(digits))


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert main(["fit", "--config", str(config), "--run", str(folder)]) == 0
    return folder


def fails(capsys, *arguments) -> str:
    """The one line that a mistake gives."""
    assert main([str(argument) for argument in arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("bigtrain: error: ")
    assert "Traceback" not in lines[0]
    return lines[0]


def test_a_run_is_a_folder_with_everything(run):
    assert {path.name for path in run.iterdir()} == {
        ".lock",
        "config.yaml",
        "checkpoints",
        "snapshots",
        "samples",
        "metrics.jsonl",
        "throughput.jsonl",
        "evaluation.jsonl",
        "jobs.jsonl",
        "report.html",
    }
    assert len(list((run / "checkpoints").iterdir())) in (3, 4)  # the newest, and the best
    assert [path.name for path in sorted((run / "samples").iterdir())][-1] == "000000.480.png"
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [record["images_seen"] for record in metrics] == list(range(32, 481, 32))
    assert {record["resolution"] for record in metrics} == {4, 8}
    assert {"loss_d", "loss_g", "grad_norm_g", "lr/generator", "logit/real", "loss_d/R1"} <= metrics[0].keys()


def test_every_score_carries_its_protocol(run):
    scores = [json.loads(line) for line in (run / "evaluation.jsonl").read_text().splitlines()]
    assert [score["images_seen"] for score in scores[::3]] == [160, 320, 480]
    assert {score["metric"] for score in scores} == {"fid60_full", "is60", "recognition60"}
    for score in scores:
        assert {"value", "std", "num_fake", "num_real", "kimg", "truncation", "protocol"} <= score.keys()
        assert score["protocol"]["extractor"].startswith("classifier-")
        assert score["protocol"]["ema"]
    card = load_snapshot(str(run)).card
    assert [score["value"] for score in card.scores] == [score["value"] for score in scores[-3:]]


def test_the_written_configuration_trains_the_same(run, digits, tmp_path):
    again = tmp_path / "again"
    assert main(["fit", "--config", str(run / "config.yaml"), "--run", str(again)]) == 0
    assert (again / "metrics.jsonl").read_bytes() == (run / "metrics.jsonl").read_bytes()


def test_scoring_does_not_change_the_training(run, config, tmp_path):
    assert main(["fit", "--config", str(config), "--run", str(tmp_path / "run"), "--evaluation", "null"]) == 0
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == (run / "metrics.jsonl").read_bytes()


def test_a_longer_training_goes_on_from_the_end(config, run, tmp_path):
    short, options = tmp_path / "run", ["fit", "--config", str(config), "--run", str(tmp_path / "run")]
    assert main([*options, "--schedule.total_kimg", "0.2"]) == 0
    assert load_snapshot(str(short)).card.alpha < 1
    assert main(options) == 0
    through, resumed = (load_snapshot(str(folder)).generator.state_dict() for folder in (run, short))
    assert all((through[name] == resumed[name]).all() for name in through)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--schedule.resolutionz", "4"], ["resolutionz is unknown", "did you mean resolutions?"]),
        (["--game.generator.network.fmap_bas", "4"], ["game.generator.network.fmap_bas", "did you mean fmap_base?"]),
        (["--dta.url", "x"], ["dta.url is unknown", "did you mean data.url?"]),
        (["--game.objective.class_path", "Hing"], ["game.objective.class_path", "'Hing'", "did you mean Hinge?"]),
        (["--game.generator.network.class_path", "nowhere.Foo"], ["'nowhere.Foo'", "valid: ", "BigGANGenerator"]),
        (["--game.class_path", "bigtrain.games.Gme"], ["game.class_path", "'Gme'", "AdversarialGame"]),
        (["--game.accumulation", "3"], ["batch_size (=8)", "accumulation (=3)", "6 or 9"]),
        (["--schedule.batch_size", "6"], ["batch_size / accumulation (=6)", "stddev_group (=4)", "4 or 8"]),
        (["--data.url", "/nowhere"], ["data.url (='/nowhere')", "bigtrain shards build SOURCE /nowhere"]),
        (
            ["--schedule.resolutions", "[8, 16, 32]", "--schedule.total_kimg", "2"],
            ["resolutions [4, 8, 16]", "[32]", "--resolutions 8,16,32"],
        ),
        (["--game.generator.network.fmap_base", "many"], ["fmap_base (=many) must be of type int"]),
        (["--compute.accelerator", "tpu"], ["compute.accelerator (=tpu)", "'cpu'"]),
        (["--evaluation.metrics", "[fod]"], ["fod", "fid, fid_infinity"]),
        (["--evaluation.num", "1"], ["num (=1)"]),
        (["--config", "/nowhere.yaml"], ["/nowhere.yaml"]),
        (["--cadences.checkpoint_kimg", "-1"], ["-1"]),
        (
            ["--game.generator.network.image_channels", "3", "--game.discriminator.network.image_channels", "3"],
            ["image_channels (=3)", ": 1"],
        ),
        (
            ["--game.generator.network.num_classes", "4", "--game.discriminator.network.num_classes", "4"],
            ["num_classes (=4)", ": 10"],
        ),
        (["--game.generator.network.image_channels", "3"], ["image_channels", "3 for the generator", "1 for the disc"]),
        (["--game.generator.network.resolution", "4"], ["resolution", "4 for the generator"]),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing_trained(capsys, config, tmp_path, options, said):
    line = fails(capsys, "fit", "--config", config, "--run", tmp_path / "run", *options)
    for part in said:
        assert part in line
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_no_configuration_is_a_mistake_too(capsys):
    assert "--config FILE" in fails(capsys, "fit")


def test_another_configuration_is_not_trained_into_a_run(capsys, config, run, tmp_path, digits):
    line = fails(capsys, "fit", "--config", config, "--run", run, "--seed", "4")
    assert "seed is 4" in line
    assert "was begun with 3" in line


def test_other_shards_are_not_trained_into_a_run(capsys, config, run, tmp_path):
    other = tmp_path / "other"
    build = ["shards", "build", "digits:", str(other), "--resolutions", "4,8", "--seed", "9", "--workers", "1"]
    assert main(build) == 0
    capsys.readouterr()
    assert "another manifest" in fails(capsys, "fit", "--config", config, "--run", run, "--data.url", other)


def test_a_run_is_held_by_one_process(capsys, config, run):
    with (run / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "in use by another process" in fails(capsys, "fit", "--config", config, "--run", run)


def test_a_damaged_sample_stops_the_training_with_its_name(capsys, config, digits, tmp_path):
    shards = tmp_path / "shards"
    shutil.copytree(digits, shards)
    tar = next((shards / "r4").glob("*.tar"))
    content = bytearray(tar.read_bytes())
    index = json.loads(next((shards / "r4").glob("*.json")).read_text())
    for offset in index["offsets"]:
        content[offset + 20] ^= 0xFF
    tar.write_bytes(content)
    assert main(["fit", "--config", str(config), "--run", str(tmp_path / "run"), "--data.url", str(shards)]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "is damaged" in line
    assert tar.name in line
    assert "shards verify" in line


def test_sample_writes_what_is_asked_for(run, tmp_path, capsys):
    out = tmp_path / "s.npz"
    assert main(["sample", str(run), "--out", str(out), "--num", "7", "--labels", "3,5", "--truncation", "0.5"]) == 0
    told = capsys.readouterr().out
    assert str(out) in told
    assert "fid60_full" in told
    arrays = np.load(out)
    assert arrays["images"].shape == (7, 8, 8, 1)
    assert arrays["labels"].tolist() == [3, 5, 3, 5, 3, 5, 3]
    snapshot = sorted((run / "snapshots").glob("*.safetensors"))[-1]
    assert main(["sample", str(snapshot), "--out", str(tmp_path / "t.npz"), "--num", "3", "--labels", "3,5"]) == 0
    assert not np.array_equal(np.load(tmp_path / "t.npz")["images"], arrays["images"][:3])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--labels", "3,12"], "--labels (=3,12)"),
        (["--labels", "a"], "--labels (=a)"),
        (["--num", "0"], "--num (=0)"),
        (["--truncation", "0"], "truncation (=0.0)"),
        (["--batch", "0"], "batch (=0)"),
        (["--trunction", "1"], "did you mean --truncation?"),
    ],
)
def test_mistakes_of_sample_are_named(run, tmp_path, capsys, options, said):
    assert said in fails(capsys, "sample", run, "--out", tmp_path / "s.npz", *options)
    assert not (tmp_path / "s.npz").exists()


def test_what_is_no_snapshot_is_said_to_be_none(run, tmp_path, capsys):
    assert "holds no snapshot" in fails(capsys, "sample", tmp_path, "--out", tmp_path / "s.npz")
    for name in ("000001.000.safetensors", "000001.000.json"):
        (tmp_path / name).write_bytes(b"{}")
    assert "not a snapshot" in fails(capsys, "sample", tmp_path, "--out", tmp_path / "s.npz")
    good = sorted((run / "snapshots").glob("*.json"))[-1]
    card = json.loads(good.read_text())
    (tmp_path / "000001.000.json").write_text(json.dumps(card))
    assert "is damaged" in fails(capsys, "sample", tmp_path, "--out", tmp_path / "s.npz")
    card["network"]["class_path"] = "subprocess.Popen"
    (tmp_path / "000001.000.json").write_text(json.dumps(card))
    assert "cannot be made" in fails(capsys, "sample", tmp_path, "--out", tmp_path / "s.npz")


def test_evaluate_scores_snapshots_and_folders(run, digits, tmp_path, capsys):
    file = tmp_path / "scores.json"
    options = ["--num", "60", "--batch", "30", "--seed", "3", "--json", str(file)]
    assert main(["evaluate", str(run), *options]) == 0
    scores = json.loads(file.read_text())
    recorded = [json.loads(line) for line in (run / "evaluation.jsonl").read_text().splitlines()][-3:]
    assert [score["value"] for score in scores] == [score["value"] for score in recorded]
    assert main(["evaluate", str(run), *options, "--truncation", "0.5,1", "--metrics", "is"]) == 0
    assert [score["truncation"] for score in json.loads(file.read_text())] == [0.5, 1.0]
    assert main(["sample", str(run), "--out", str(tmp_path / "s.zip"), "--num", "60"]) == 0
    options = ["--reference", str(digits), "--metrics", "fid,recognition", "--json", str(file)]
    assert main(["evaluate", str(tmp_path / "s.zip"), *options]) == 0
    assert [score["metric"] for score in json.loads(file.read_text())] == ["fid60_full"]
    capsys.readouterr()
    assert "--reference" in fails(capsys, "evaluate", tmp_path / "s.zip")
    assert "truncation" in fails(capsys, "evaluate", tmp_path / "s.zip", *options, "--truncation", "1")


def test_evaluate_compares_runs(run, tmp_path, capsys):
    newest = sorted((run / "snapshots").glob("*.safetensors"))[-1]
    table, plot, file = (tmp_path / name for name in ("table.md", "curves.png", "scores.json"))
    options = ["--num", "40", "--batch", "20", "--truncation", "0.5,none"]
    written = ["--table", str(table), "--plot", str(plot), "--json", str(file)]
    assert main(["evaluate", str(run), str(newest), *options, *written]) == 0
    rows = [line.strip("|\n ").split(" | ") for line in table.read_text().splitlines()]
    assert [row[0] for row in rows[2:]] == [str(run), str(newest)]
    assert "minutes (CPU)" in rows[0]
    assert rows[2][-4:] == rows[3][-4:]
    scores = json.loads(file.read_text())
    assert [score["value"] for score in scores[:6]] == [score["value"] for score in scores[6:]]
    assert {score["source"] for score in scores} == {str(run), str(newest)}
    recognition = next(score for score in scores if score["metric"] == "recognition40")
    seen = [value for value in recognition["per_class"] if value is not None]
    assert min(seen) <= recognition["value"] <= max(seen)
    with Image.open(plot) as picture:
        assert picture.size == (1500, 450)
    assert main(["sample", str(run), "--out", str(tmp_path / "s.zip"), "--num", "4"]) == 0
    capsys.readouterr()
    said = fails(capsys, "evaluate", run, tmp_path / "s.zip", "--truncation", "none")
    assert "--reference URL is needed" in said
    assert "must end in" in fails(capsys, "evaluate", run, "--plot", tmp_path / "curves.txt")


def test_a_training_that_diverges_names_its_last_good_checkpoint(config, tmp_path, capsys):
    folder = tmp_path / "run"
    options = ["--evaluation", "null", "--cadences.checkpoint_kimg", "0.016"]
    assert main(["fit", "--config", str(config), "--run", str(folder), *options, "--schedule.total_kimg", "0.032"]) == 0
    kept = sorted(path.name for path in (folder / "checkpoints").iterdir())
    saved = folder / "config.yaml"
    saved.write_text(saved.read_text().replace("lr: 0.002", "lr: 1.0e+30"))  # as if it had been begun so
    said = "bigtrain: generator: ProgressiveGenerator, 3.49 k parameters, 85 k multiply-adds an image\n"
    assert said in capsys.readouterr().err
    assert main(["fit", "--config", str(saved), "--run", str(folder), *options, "--schedule.total_kimg", "0.4"]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "non-finite" in line
    assert "last good checkpoint: " + str(folder / "checkpoints") in line
    assert set(kept) & {path.name for path in (folder / "checkpoints").iterdir()}
