"""The guard: its signs on made-up histories, and that a look changes nothing."""

import math
import re
from pathlib import Path

import pytest
import torch

from bigtrain.callbacks import guard as guard_module
from bigtrain.callbacks.guard import Guard, diversity, largest_singular_values
from bigtrain.callbacks.guard_signs import Finding, Level, Limits, good_moments, judge
from bigtrain.callbacks.loggers import RunLogger
from bigtrain.callbacks.records import Records
from bigtrain.cli.settings import GuardSettings
from bigtrain.runtime.world import World
from tests.unit.tiny import batch, biggan_game, play, progressive_game

LIMITS = Limits()
HEALTHY = {"logit/real": 1.0, "logit/fake": -0.5, "grad_norm_d": 2.0, "grad_norm_g": 0.5, "diversity": 0.3}


def look(i: int, **values) -> dict:
    return {
        "images_seen": 10_000 * (i + 1),
        "kimg": 10.0 * (i + 1),
        "resolution": 32,
        "steps": 200 * (i + 1),
        "diversity/real": 0.35,
        "singular_values": {"generator.first": 3.0, "generator.last": 2.0, "discriminator.first": 5.0},
        **HEALTHY,
        **values,
    }


def judged(change, count: int = 40, last: int = 3, scores=(), **options) -> dict[str, str]:
    """The findings after so many looks, of which the last few are changed."""
    looks = [look(i, **(change if i >= count - last else {})) for i in range(count)]
    findings = judge(looks, list(scores), Limits(**options))
    assert all(finding.reason for finding in findings)
    return {finding.sign: finding.level.name.lower() for finding in findings}


def test_healthy_looks_give_no_finding():
    assert judged({}) == {}


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"grad_norm_d": 30.0}, {"grad_norm_d": "warn"}),
        ({"grad_norm_g": 60.0}, {"grad_norm_g": "collapsed"}),
        ({"grad_norm_g": 15.0, "grad_norm_d": 3e-5}, {"grad_norm_g": "warn", "grad_norm_d": "collapsed"}),
        ({"logit/fake": -6.0}, {"logits": "warn"}),
        ({"logit/fake": 30.0}, {"logits": "collapsed"}),
        ({"logit/real": -0.499999}, {"logits": "collapsed"}),
        ({"diversity": 0.1}, {"diversity": "warn"}),
        ({"diversity": 0.02}, {"diversity": "collapsed"}),
        (
            {"singular_values": {"generator.first": 7.0, "generator.last": 2.0, "discriminator.first": 5.0}},
            {"singular_values/generator": "warn"},
        ),
        (
            {"singular_values": {"generator.first": 3.0, "generator.last": 2.0, "discriminator.first": 25.0}},
            {"singular_values/discriminator": "collapsed"},
        ),
    ],
)
def test_a_sign_that_holds_is_found_and_a_single_one_is_not(change, found):
    assert judged(change) == found
    assert judged(change, last=2) == {}
    assert judged(change, count=10) == {}  # it has not settled
    off = dict.fromkeys(("singular_values", "logits", "gradients", "silence", "diversity"))
    assert judged(change, **off) == {}


def test_nothing_is_judged_by_another_resolution():
    small = [look(i, resolution=16, grad_norm_d=1e-5, diversity=1.0, **{"diversity/real": 1.0}) for i in range(40)]
    large = [look(40 + i, steps=1000 + i) for i in range(40)]
    for count in range(1, 41):
        assert judge(small + large[:count], [], LIMITS) == []


@pytest.mark.parametrize("per_step", [1e-5, 0.01, 3.0])
def test_growth_that_is_linear_in_time_is_healthy(per_step):
    """The most that an optimizer with bounded steps can do, from zero on; more is not."""
    looks = [look(i, singular_values={"generator.first": per_step * (i + 1)}) for i in range(200)]
    assert not any(judge(looks[:count], [], LIMITS) for count in range(1, 201))
    for i in range(150, 200):
        looks[i]["singular_values"] = {"generator.first": per_step * 150 * 1.25 ** (i - 150)}
    levels = [max((f.level for f in judge(looks[:count], [], LIMITS)), default=0) for count in range(150, 201)]
    assert levels[0] == Level.OK
    assert levels[-1] == Level.COLLAPSED
    assert levels == sorted(levels)


def test_noisy_logits_and_gradients_of_small_batches_are_healthy():
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(300, 3, generator=generator).tolist()
    looks = [
        look(i, grad_norm_d=2 * math.exp(0.8 * a), grad_norm_g=0.5 * math.exp(0.8 * b), **{"logit/real": 1 + c})
        for i, (a, b, c) in enumerate(noise)
    ]
    assert not any(judge(looks[:count], [], LIMITS) for count in range(1, 301))


def test_the_variety_of_an_untrained_generator_is_no_measure():
    looks = [look(i, diversity=0.9 if i < 25 else 0.25) for i in range(60)]  # more than that of the real images
    assert not any(judge(looks[:count], [], LIMITS) for count in range(1, 61))
    looks = [look(i, diversity=0.2 if i < 4 else 0.01) for i in range(60)]  # soon forgotten
    assert not any(judge(looks[:count], [], LIMITS) for count in range(1, 61))


def test_a_collapse_while_the_generator_grows_is_found():
    small = [look(i, resolution=16) for i in range(40)]
    large = [look(40 + i, diversity=0.02, **{"diversity/real": 0.5}) for i in range(3)]
    assert [(finding.sign, finding.level) for finding in judge(small + large, [], LIMITS)] == [("diversity", 2)]


def test_fid_is_compared_with_the_best_of_its_kind():
    def score(value, metric="fid10k_full", **options):
        return {"metric": metric, "value": value, "truncation": None, "protocol": {"extractor": "a"}, **options}

    assert judged({}, scores=[score(9.0)]) == {}
    assert judged({}, scores=[score(40.0), score(10.0), score(15.0), score(50.0, "is10k")]) == {}
    assert judged({}, scores=[score(40.0), score(10.0), score(25.0)]) == {"fid": "warn"}
    assert judged({}, scores=[score(10.0), score(40.0)]) == {"fid": "collapsed"}
    assert judged({}, scores=[score(10.0), score(40.0, protocol={"extractor": "b"})]) == {}


def test_good_is_what_was_well_and_stayed_so():
    looks = [{"images_seen": i, "verdict": "ok" if i not in (50, 90, 100) else "warn"} for i in range(10, 101, 10)]
    assert good_moments(looks, [5, 20, 30, 40, 45, 50, 55, 60, 70, 80, 90], patience=2) == [5, 20, 60]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"patience": 0}, "guard.patience (=0)"),
        ({"logits": (10.0, 4.0)}, "guard.logits (=[10.0, 4.0])"),
        ({"diversity": (0.2, 0.5)}, "guard.diversity (=[0.2, 0.5])"),
        ({"max_rollbacks": 0}, "guard.max_rollbacks (=0)"),
        ({"factor": 1.0}, "guard.factor (=1.0)"),
        ({"spectrum": 0}, "guard.spectrum (=0)"),
    ],
)
def test_limits_that_make_no_sense_are_refused(options, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        GuardSettings(**options)


@pytest.mark.parametrize("shape", [(8, 8), (64, 5), (3, 100), (16, 8, 3, 3), (1, 4), (6, 1)])
def test_the_largest_singular_values(shape):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    exact = torch.linalg.svdvals(weight.flatten(1))[:3]
    for count in (1, 3):
        found = largest_singular_values(weight, count)
        assert found.shape == exact[:count].shape
        assert (0.9 * exact[:count] < found).all()
        assert (found <= exact[:count] * 1.0001).all()
    weight.flatten(1)[0] *= 30
    exact = torch.linalg.svdvals(weight.flatten(1))[:1]
    assert torch.allclose(largest_singular_values(weight), exact, rtol=1e-3)
    assert not largest_singular_values(torch.zeros(shape), 2).any()


def test_diversity_is_that_within_a_class():
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.randn(400, 1, 8, 8, generator=generator), torch.arange(400) % 4
    assert diversity(images, labels) == pytest.approx(1.0, rel=0.02)
    assert diversity(images + 10 * labels[:, None, None, None], labels) == pytest.approx(1.0, rel=0.02)
    assert diversity(images[:4].repeat(8, 1, 1, 1), labels[:32]) == pytest.approx(0.0, abs=1e-6)
    assert diversity(images[:4], labels[:4]) is None


def make_guard(folder: Path, **options) -> Guard:
    return Guard(
        0.016, Records(folder / "guard.jsonl"), Records(folder / "evaluation.jsonl"), LIMITS, World(), **options
    )


@pytest.mark.parametrize("make", [progressive_game, biggan_game])
def test_a_look_changes_nothing_and_repeats_itself(make, tmp_path):
    plain, watched, guard = play(make(), 10), make(), make_guard(tmp_path, spectrum=2)
    for i in range(10):
        guard._batch = batch(watched)
        watched.training_step(guard._batch, i)
        before = torch.random.get_rng_state()
        modes = [module.training for module in watched.modules()]
        assert guard.look(watched) == guard.look(watched)
        assert torch.equal(torch.random.get_rng_state(), before)
        assert modes == [module.training for module in watched.modules()]
    expected = plain.training_state()
    for name, piece in watched.training_state().items():
        assert torch.equal(piece.tensor, expected[name].tensor), name
    seen = guard.look(watched)
    assert {"logit/real", "logit/fake", "grad_norm_d", "grad_norm_g"} <= seen.keys()
    assert 0 < seen["diversity"] < 2
    assert 0 < seen["diversity/real"] < 2
    assert {name.partition(".")[0] for name in seen["singular_values"]} == {"generator", "discriminator"}
    assert {name: spectrum[0] for name, spectrum in seen["spectra"].items()} == seen["singular_values"]
    assert any(len(spectrum) == 2 and 0 < spectrum[1] <= spectrum[0] for spectrum in seen["spectra"].values())


class Alerts(RunLogger):
    """A logger that keeps its alerts."""

    name = "alerts"

    def __init__(self):
        super().__init__()
        self.given = []

    def log_metrics(self, metrics, step=None):
        self.numbers = metrics

    def log_image(self, key, images, step):
        raise NotImplementedError

    def tell(self, facts):
        raise NotImplementedError

    def close(self, code=0, preempted=False):
        raise NotImplementedError

    def alert(self, title, text):
        self.given.append((title, text))


class FakeTrainer:
    should_stop = False

    def __init__(self, *loggers):
        self.loggers = loggers


def test_what_is_found_is_said_once_recorded_and_alerted(monkeypatch, tmp_path, capsys):
    game, guard, alerts = progressive_game(), make_guard(tmp_path), Alerts()
    levels = iter([Level.OK, Level.WARN, Level.WARN, Level.COLLAPSED, Level.OK])

    def made(looks, scores, limits):
        level = next(levels)
        return [Finding("diversity", level, f"reason {int(level)}")] if level else []

    monkeypatch.setattr(guard_module, "judge", made)
    trainer = FakeTrainer(alerts)
    guard.on_train_start(trainer, game)
    for i in range(10):  # a look every second step
        step = batch(game)
        game.training_step(step, i)
        guard.on_train_batch_end(trainer, game, None, step, i)
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "bigtrain: guard: warn at 0.032 kimg: reason 1",
        "bigtrain: guard: collapsed at 0.064 kimg: reason 2",
    ]
    assert [text for _, text in alerts.given] == ["reason 1", "reason 2"]
    assert alerts.numbers["guard/verdict"] == 0
    records = guard.records.read()
    assert [record["verdict"] for record in records] == ["ok", "warn", "warn", "collapsed", "ok"]
    assert records[3]["findings"] == {"diversity": ["collapsed", "reason 2"]}
    assert not trainer.should_stop
    again = make_guard(tmp_path)
    again.on_train_start(trainer, game)
    assert [look["verdict"] for look in again.looks] == [record["verdict"] for record in records]
