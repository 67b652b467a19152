"""A scoring that has not time enough scores fewer samples, and its name says so."""

from __future__ import annotations

import json
import logging

from hypothesis import given
from hypothesis import strategies as st

from bigtrain.callbacks import time_budget
from bigtrain.callbacks.time_budget import TimeBudget, rounded_down
from bigtrain.cli.main import main
from bigtrain.runtime.world import World
from tests.runs import tiny_config, write_config


class Clock:
    """Time passes when something is done."""

    def __init__(self, monkeypatch):
        self.now, self.batches = 0.0, [3.0, 2.0, 1.0]
        monkeypatch.setattr(time_budget.time, "monotonic", lambda: self.now)

    def make(self, indices):
        assert len(indices) == 10
        self.now += self.batches[int(indices[0]) // 10]

    def score(self, budget, beyond=0.0):
        """Scores as many as there is time for, at a second a batch of ten; returns how many."""
        with budget.scoring(self.make) as num:
            self.now += num / 10 + beyond
        return num


@given(most=st.integers(1, 10**9))
def test_round_numbers_are_the_next_ones_below(most):
    found = rounded_down(most)
    assert str(found).rstrip("0") in ("1", "2", "5")
    assert found <= most
    assert most < found * (2.5 if str(found)[0] == "2" else 2)


def test_so_many_are_scored_as_there_is_time_for(monkeypatch, caplog):
    clock = Clock(monkeypatch)
    with caplog.at_level(logging.WARNING):
        assert clock.score(TimeBudget(1, 540, 2, 10, World())) == 540  # 6 s are gone, 54 are enough
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        assert clock.score(TimeBudget(1, 541, 2, 10, World())) == 500
    (told,) = [record.message for record in caplog.records]
    assert told == (
        "evaluation.max_minutes (=1) is not enough for 541 samples, which take 1.02 minutes: from now on 500 are "
        "scored, and the scores' names say so"
    )


def test_what_the_one_before_took_beyond_its_batches_is_expected_again(monkeypatch):
    clock, budget = Clock(monkeypatch), TimeBudget(1, 500, 2, 10, World())
    assert [clock.score(budget, beyond) for beyond in (20, 20, 0, 0)] == [500, 200, 200, 200]


def test_never_fewer_than_the_metrics_need(monkeypatch):
    clock = Clock(monkeypatch)
    for least, found in ((1, 1), (2, 2), (3, 5), (6, 10), (20, 20), (21, 50)):
        assert clock.score(TimeBudget(0.01, 60, least, 10, World())) == found
    assert clock.score(TimeBudget(0.01, 30, 21, 10, World())) == 30


def test_ranks_come_to_the_same_number_as_the_slowest(monkeypatch):
    """Others here: one needs 2 s a batch where this one needs 1, one 12 s before, one was late by 8 s."""
    world = World()
    world.size = 4
    world.gather = lambda mine: [mine, [6.0, 2.0, 0.0], [12.0, 1.0, 0.0], [6.0, 1.0, 8.0]]
    # 60 - 12 - 8 s are 20 rounds of 40 samples
    assert Clock(monkeypatch).score(TimeBudget(1, 801, 2, 10, world)) == 500
    assert Clock(monkeypatch).score(TimeBudget(1, 800, 2, 10, world)) == 800


def test_a_training_says_so_once_and_names_its_scores(digits, tmp_path, caplog, capsys):
    config, run = write_config(tmp_path / "tiny.yaml", tiny_config(digits)), tmp_path / "run"
    options = ["--evaluation.max_minutes", "1e-6", "--schedule.total_kimg", "0.32"]
    with caplog.at_level(logging.WARNING):
        assert main(["fit", "--config", str(config), "--run", str(run), *options]) == 0
    scores = [json.loads(line) for line in (run / "evaluation.jsonl").read_text().splitlines()]
    assert [score["metric"] for score in scores] == ["fid10_full", "is10", "recognition10"] * 2
    assert len([record for record in caplog.records if "max_minutes" in record.message]) == 1
    capsys.readouterr()
    for minutes in ("0", "-1"):
        assert main(["fit", "--config", str(config), "--run", str(run), "--evaluation.max_minutes", minutes]) == 2
        assert f"evaluation.max_minutes (={minutes}) must be greater than 0" in capsys.readouterr().err
