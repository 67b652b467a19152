"""Scores in the course of training: all ranks measure, rank 0 records, and the training does not notice."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bigtrain.callbacks.records import Records
from bigtrain.cli.main import main
from tests.distributed.ranks import Ranks
from tests.distributed.scored import prepared, prepared_otherwise, trained
from tests.runs import bigtrain, tiny_config, write_config

TWO = ("--compute.devices", 2)


@pytest.fixture(scope="module")
def shards(digits, tmp_path_factory) -> str:
    """Digits, beside which nothing has been measured."""
    folder = tmp_path_factory.mktemp("shards") / "digits"
    shutil.copytree(digits, folder, ignore=shutil.ignore_patterns("evaluation"))
    return str(folder)


@pytest.fixture(scope="module")
def alone(shards, tmp_path_factory):
    return trained(shards, str(tmp_path_factory.mktemp("scores") / "evaluation.jsonl"))


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    assert found.keys() == expected.keys()
    return all(torch.equal(found[name], expected[name]) for name in expected)


def check(ranks: Ranks, strategy: tuple, shards: str, alone, folder: Path) -> None:
    """The scores are those of one process, on every rank, and recorded once."""
    records = folder / f"{ranks.size}-{strategy[0]}.jsonl"
    for _, scores in ranks.run(trained, shards, str(records), *strategy):
        assert scores == pytest.approx(alone[1], rel=1e-6)
    recorded = {score["metric"]: score["value"] for score in Records(records).read()}
    assert recorded == pytest.approx(alone[1], rel=1e-6)
    assert len(Records(records).read()) == len(recorded)


def test_one_process_does_not_notice(shards, alone):
    state, scores = alone
    assert set(scores) >= {"fid47_full", "is47", "recognition47", "kid_all47_full", "ms_ssim47"}
    assert same(trained(shards, None)[0], state)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_ranks_score_as_one_and_do_not_notice(strategy, shards, alone, two_ranks, tmp_path):
    check(two_ranks, (strategy,), shards, alone, tmp_path)
    without = two_ranks.run(trained, shards, None, strategy)
    scored = two_ranks.run(trained, shards, str(tmp_path / "again.jsonl"), strategy)
    for (expected, _), (state, _) in zip(without, scored, strict=True):
        assert same(state, expected)


def test_four_ranks_score_as_one(shards, alone, four_ranks, tmp_path):
    check(four_ranks, ("hsdp", 2), shards, alone, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("size", [3, 8])
def test_more_ranks_score_as_one(size, shards, alone, tmp_path):
    """Of three, no batch of the training can be shared: they score what one has trained."""
    ranks = Ranks(size, tmp_path / "ranks")
    try:
        check(ranks, ("ddp",) if size == 8 else ("single",), shards, alone, tmp_path)
    finally:
        ranks.close()


@pytest.mark.parametrize("spare", [True, False])
def test_where_nothing_can_be_stored_ranks_measure_by_the_same(spare, shards, two_ranks, tmp_path):
    """In the run's folder, if there is one, everybody finds it; else each makes it."""
    copy, run = tmp_path / "digits", tmp_path / "run"
    shutil.copytree(shards, copy, ignore=shutil.ignore_patterns("evaluation"))
    (hashed, mean), (other_hash, other_mean) = two_ranks.run(prepared, str(copy), str(run) if spare else None, False)
    assert hashed == other_hash
    assert torch.equal(mean, other_mean)
    assert not (copy / "evaluation").exists()
    kept = sorted(path.name for path in run.glob("evaluation/*"))
    assert len(kept) == (3 if spare else 0)  # classifier, sums, features
    if spare:  # a resumed run has no other classifier
        assert two_ranks.run(prepared, str(copy), str(run), False)[1][0] == hashed
        assert sorted(path.name for path in run.glob("evaluation/*")) == kept


def test_ranks_with_other_extractors_are_refused(shards, alone, two_ranks):
    for said in two_ranks.run(prepared_otherwise, shards):
        assert "is not the same on all ranks" in said


@pytest.fixture(scope="module")
def config(digits, tmp_path_factory) -> Path:
    made = tiny_config(digits)
    made["schedule"]["init_args"]["total_kimg"] = 0.064
    made["evaluation"] = {"every_kimg": 0.032, "num": 47, "batch_size": 7}
    return write_config(tmp_path_factory.mktemp("config") / "tiny.yaml", made)


def scores_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_run_of_two_ranks_has_the_scores_that_evaluate_finds_afterwards(config, tmp_path):
    run, file = tmp_path / "run", tmp_path / "scores.json"
    result = bigtrain("fit", "--config", config, "--run", run, *TWO)
    assert result.returncode == 0, result.stderr
    recorded = scores_of(run / "evaluation.jsonl")
    assert [score["images_seen"] for score in recorded] == [32] * 3 + [64] * 3
    assert main(["evaluate", str(run), "--num", "47", "--batch", "7", "--seed", "3", "--json", str(file)]) == 0
    for score, again in zip(recorded[3:], json.loads(file.read_text()), strict=True):
        assert score.pop("images_seen") == 64
        assert score.pop("value") == pytest.approx(again.pop("value"), rel=1e-6)
        assert (score.pop("std") or 0.0) == pytest.approx(again.pop("std") or 0.0, rel=1e-6)
        assert score == again


@pytest.mark.long
def test_a_rank_that_cannot_measure_ends_all_and_is_named(config, tmp_path):
    extractor = ("--evaluation.extractor", "tests.distributed.scored.FailsOnOneRank", "--evaluation.metrics", "[fid]")
    result = bigtrain("fit", "--config", config, "--run", tmp_path / "run", *TWO, *extractor, timeout=600)
    assert result.returncode != 0
    (line,) = [line for line in result.stderr.splitlines() if "bigtrain: error: rank" in line]
    assert "rank 1 failed" in line
    assert "this rank's extractor fails" in line
    assert not (tmp_path / "run" / "evaluation.jsonl").exists()
