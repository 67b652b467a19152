"""`bigtrain evaluate` on several processes: the scores of one, said and written once."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bigtrain.cli.main import main
from bigtrain.cli.pictures import open_pictures
from tests.runs import ENVIRONMENT, ROOT, bigtrain
from tests.unit.made_snapshot import made_snapshot
from tests.unit.test_evaluate_command import GREY, pictures

DCGAN = {"resolution": 16, "image_channels": 1, "num_classes": 10, "latent_dim": 6, "width": 2}
MEASURED = ("--extractor", GREY, "--metrics", "fid,kid_all,recall,ppl", "--batch", "7")


@pytest.fixture(scope="module")
def shards(digits, tmp_path_factory) -> Path:
    """Digits, beside which nothing has been measured."""
    folder = tmp_path_factory.mktemp("shards") / "digits"
    shutil.copytree(digits, folder, ignore=shutil.ignore_patterns("evaluation"))
    return folder


@pytest.fixture(scope="module")
def snapshot(shards, tmp_path_factory) -> str:
    return made_snapshot(tmp_path_factory.mktemp("snapshots"), "DCGANGenerator", DCGAN, resolution=16, shards=shards)


def check_same(found: Path, expected: Path) -> None:
    """Everything that is written of the scores, and the values to 1e-6."""
    scores, others = json.loads(found.read_text()), json.loads(expected.read_text())
    assert len(scores) == len(others) > 0
    for score, other in zip(scores, others, strict=True):
        assert score.pop("value") == pytest.approx(other.pop("value"), rel=1e-6, abs=1e-9)
        assert (score.pop("std") or 0.0) == pytest.approx(other.pop("std") or 0.0, rel=1e-6)
        assert score == other


def test_a_sweep_of_a_generator_on_two(shards, snapshot, tmp_path):
    """By a reference that the first one measures."""
    sweep = (snapshot, *MEASURED, "--num", 47, "--truncation", "0.5,none", "--standing-stats", 3)
    result = bigtrain("evaluate", *sweep, "--json", tmp_path / "two.json", "--devices", 2)
    assert result.returncode == 0, result.stderr
    names = [line.partition(":")[0] for line in result.stdout.splitlines()]
    assert names == ["fid47_full", "kid_all47_full", "recall47_full", "ppl47"] * 2
    assert len(list((shards / "evaluation").iterdir())) == 2  # the sums, and the features that recall compares with
    assert main(["evaluate", *map(str, sweep), "--json", str(tmp_path / "one.json")]) == 0
    check_same(tmp_path / "two.json", tmp_path / "one.json")


def test_images_on_two_of_which_some_are_changed(shards, tmp_path):
    """Which, is told once and of all of them, whichever rank has read them."""
    folder = pictures(tmp_path / "pictures", [(16, 16), (20, 16)] * 6 + [(16, 16)] * 3)
    arguments = (folder, "--reference", shards, *MEASURED[:3], "fid,prdc", "--batch", 2, "--seed", 1)
    result = bigtrain("evaluate", *arguments, "--json", tmp_path / "two.json", "--devices", 2)
    assert result.returncode == 0, result.stderr
    (line,) = [line for line in result.stderr.splitlines() if "another size" in line]
    assert "resized to it: 6, the first is" in line
    assert line.endswith("001.png of 20x16")
    assert main(["evaluate", *map(str, arguments), "--json", str(tmp_path / "one.json")]) == 0
    check_same(tmp_path / "two.json", tmp_path / "one.json")


def test_a_damaged_reference_is_one_line_of_all_ranks(shards, snapshot, tmp_path):
    copy = tmp_path / "digits"
    shutil.copytree(shards, copy, ignore=shutil.ignore_patterns("evaluation"))
    measured = ("evaluate", snapshot, "--reference", copy, "--extractor", GREY, "--metrics", "fid", "--num", 20)
    assert main([*map(str, measured)]) == 0
    (kept,) = (copy / "evaluation").iterdir()
    kept.write_bytes(kept.read_bytes()[:-9])
    result = bigtrain(*measured, "--devices", 2, timeout=120)
    assert (result.returncode, result.stdout) == (2, "")
    (line,) = [line for line in result.stderr.splitlines() if "error" in line]
    assert f"{kept.name} is damaged" in line


def test_an_image_that_another_rank_cannot_read_is_one_line(shards, tmp_path):
    folder = Path(pictures(tmp_path / "pictures", [(16, 16)] * 12))
    second = sorted(folder.iterdir())[open_pictures(str(folder), 16, 1)._order[1]]  # which rank 1 reads
    second.write_bytes(second.read_bytes()[:60])
    measured = ("--reference", shards, "--extractor", GREY, "--metrics", "fid", "--batch", 2, "--devices", 2)
    result = bigtrain("evaluate", folder, *measured, timeout=120)
    assert (result.returncode, result.stdout) == (2, "")
    (line,) = [line for line in result.stderr.splitlines() if "error" in line]
    assert "rank 1 failed" in line
    assert f"{second.name}' cannot be measured" in line


def test_so_many_processes_must_be_possible(snapshot, capsys):
    assert main(["evaluate", snapshot, "--devices", "0"]) == 2
    assert "--devices (=0) must be at least 1" in capsys.readouterr().err


@pytest.mark.long
def test_torchrun_may_start_them(snapshot, tmp_path):
    measured = ["evaluate", snapshot, *MEASURED, "--num", "47"]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "3", "-m", "--"]
    command += ["bigtrain", *measured, "--json", str(tmp_path / "three.json")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=ENVIRONMENT, check=False)
    assert done.returncode == 0, done.stderr
    assert main([*measured, "--json", str(tmp_path / "one.json")]) == 0
    check_same(tmp_path / "three.json", tmp_path / "one.json")
