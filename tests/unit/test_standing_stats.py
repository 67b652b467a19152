"""Standing statistics are the mean moments of fresh batches, and leave the generator as it was."""

from __future__ import annotations

import copy
import json
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from bigtrain.callbacks.evaluation import Evaluating
from bigtrain.cli.main import main
from bigtrain.networks import BigGANGenerator, DCGANGenerator, Generator, ProgressiveGenerator
from bigtrain.networks.layers import BatchNorm2d
from bigtrain.sampling.generate import Sampler, cycled
from bigtrain.sampling.latents import draw_labels, draw_latents
from bigtrain.sampling.sheets import truncation_sheet
from bigtrain.sampling.standing_stats import StandingStats, batch_norms, estimate, installed
from tests.runs import tiny_config, write_config
from tests.unit.made_snapshot import made_snapshot
from tests.unit.tiny import CLASSES, biggan_game

BIGGAN = {"resolution": 32, "image_channels": 1, "num_classes": CLASSES, "latent_dim": 8, "shared_dim": 4, "width": 2}
COUNTS = [1, 0, 3]


def biggan() -> BigGANGenerator:
    """With weights as large as trained ones, and running averages as after one step."""
    torch.manual_seed(0)
    generator = BigGANGenerator(**BIGGAN, attention=[16])
    for parameter in generator.parameters():
        nn.init.normal_(parameter, std=0.3)
    return generator.eval()


class TwoNorms(Generator):
    """Two batch norms with a dense layer between, written so that their moments are seen at once."""

    def __init__(self, num_classes: int = 0) -> None:
        super().__init__(4, 1, num_classes, 6)
        self.norms = nn.ModuleList([BatchNorm2d(6), BatchNorm2d(1)])
        self.dense = nn.Conv2d(6, 1, 1)

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        x = latent[:, :, None, None] * torch.linspace(1, 2, 16).view(4, 4).to(latent)
        return self.norms[1](self.dense(torch.tanh(self.norms[0](x))))


@pytest.mark.parametrize("truncation", [None, 0.5])
def test_they_are_the_mean_moments_of_batches_that_are_normalized_by_themselves(truncation):
    torch.manual_seed(0)
    generator = TwoNorms()
    standing = Sampler(generator, 3, cycled([0]), truncation, batch=5, standing=StandingStats(4, []))
    expected = []
    for first in range(0, 20, 5):
        latents = draw_latents(3, "latent/standing_stats", range(first, first + 5), 6, truncation).double()
        x = latents[:, :, None, None] * torch.linspace(1, 2, 16).double().view(4, 4)
        seen = [x]
        flat = x.transpose(0, 1).flatten(1)  # [channel, …]
        normalized = (x - flat.mean(1)[:, None, None]) / (flat.var(1, correction=0) + 1e-5).sqrt()[:, None, None]
        weight, bias = generator.dense.weight.detach().double(), generator.dense.bias.detach().double()
        seen.append((normalized.tanh() * weight[0]).sum(1, keepdim=True) + bias)
        flats = [x.transpose(0, 1).flatten(1) for x in seen]
        expected.append([torch.stack((flat.mean(1), flat.var(1, correction=1))) for flat in flats])
    for norm, *moments in zip(generator.norms, *expected, strict=True):
        found = torch.stack(standing._moments[norm])
        assert torch.allclose(found, torch.stack(moments).mean(0), rtol=1e-5, atol=1e-6)
        assert (found - torch.stack((norm.running_mean, norm.running_var))).abs().max() > 0.1


def test_the_order_of_batches_does_not_matter():
    generator = biggan()
    latents, labels = torch.randn(4, 8, 8), torch.randint(CLASSES, (4, 8))
    found = [
        estimate(generator, 4, lambda number, order=order: generator(latents[order[number]], labels[order[number]]))
        for order in ([0, 1, 2, 3], [2, 0, 3, 1])
    ]
    assert len(found[0]) == len(batch_norms(generator)) == 7
    for norm, (mean, variance) in found[0].items():
        assert torch.allclose(mean, found[1][norm][0], rtol=1e-13, atol=1e-15)
        assert torch.allclose(variance, found[1][norm][1], rtol=1e-13)
        assert mean.dtype == torch.float64


def test_running_averages_are_not_looked_at():
    sound, ruined = biggan(), biggan()
    for norm in batch_norms(ruined):
        norm.running_mean.fill_(7.0)
        norm.running_var.fill_(1e-4)
    plain = [Sampler(one, 0, cycled(range(CLASSES)), batch=8)(range(8))[0] for one in (sound, ruined)]
    standing = [
        Sampler(one, 0, cycled(range(CLASSES)), batch=8, standing=StandingStats(10, COUNTS))(range(8))[0]
        for one in (sound, ruined)
    ]
    assert torch.equal(*standing)
    assert not torch.equal(*plain)
    assert not torch.equal(standing[0], plain[0])


@pytest.mark.parametrize("training", [False, True])
def test_the_generator_is_afterwards_what_it_was_to_the_bit(training):
    generator = DCGANGenerator(16, 1, 0, 6, width=4).train(training)
    conditional = biggan().train(training)
    for one in (generator, conditional):
        norms = batch_norms(one)
        for norm in norms:
            norm.gather = pytest.fail  # another process is never asked
        before, modes = copy.deepcopy(one.state_dict()), [module.training for module in one.modules()]
        buffers = [norm.running_mean for norm in norms]
        Sampler(one, 0, cycled([0]), batch=4, standing=StandingStats(3, COUNTS))(range(6))
        after = one.state_dict()
        assert all(torch.equal(after[name], before[name]) for name in before)
        assert [module.training for module in one.modules()] == modes
        assert all(norm.running_mean is buffer for norm, buffer in zip(norms, buffers, strict=True))
        assert all(norm.gather is pytest.fail and not norm._forward_pre_hooks for norm in norms)


def test_what_fails_leaves_the_generator_too():
    generator = biggan()
    before = copy.deepcopy(generator.state_dict())

    def broken(number: int) -> None:
        generator(torch.randn(4, 8), torch.zeros(4, dtype=torch.int64))
        raise RuntimeError

    with pytest.raises(RuntimeError):
        estimate(generator, 3, broken)
    after = generator.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert not any(module.training or module._forward_pre_hooks for module in generator.modules())


def test_they_follow_the_truncation():
    generator, standing = biggan(), StandingStats(6, COUNTS)
    sampler = Sampler(generator, 0, cycled(range(CLASSES)), batch=8, standing=standing)
    cut = sampler.truncated(0.5)
    running = Sampler(generator, 0, cycled(range(CLASSES)), 0.5, batch=8)
    images, plain, *_ = cut(range(6))[0], running(range(6))[0]
    assert not torch.equal(images, plain)
    with installed(sampler._moments):  # of latents that are not truncated
        assert not torch.equal(running(range(6))[0], images)
    sheet = truncation_sheet(sampler, range(6), [0.5, None])
    assert torch.equal(sheet.images, torch.cat((images, sampler(range(6))[0])))
    assert cut.standing_stats == "6 batches of 8"
    assert running.standing_stats is None


def test_labels_have_the_frequencies_of_the_data(monkeypatch):
    generator, seen = biggan(), []
    monkeypatch.setattr(generator, "forward", lambda latent, label: (seen.append(label), torch.zeros(8, 1, 2, 2))[1])
    Sampler(generator, 4, cycled([1]), batch=8, standing=StandingStats(5, COUNTS))._moments  # noqa: B018
    assert torch.equal(torch.cat(seen), draw_labels(4, "label/standing_stats", range(40), COUNTS))
    assert not (torch.cat(seen) == 1).any()


@pytest.mark.parametrize(
    ("make", "passes", "said"),
    [
        (lambda: ProgressiveGenerator(8, 1, 0, 6, 32, 8), 3, r"=3\): ProgressiveGenerator has no batch norm"),
        (biggan, 0, r"standing_stats \(=0\) must be at least 1"),
    ],
)
def test_what_cannot_be_estimated_is_refused(make, passes, said):
    with pytest.raises(ValueError, match=said):
        Sampler(make(), 0, cycled([0]), standing=StandingStats(passes, []))


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory) -> str:
    arguments = {"resolution": 16, "image_channels": 1, "num_classes": 10, "latent_dim": 6, "width": 4}
    return made_snapshot(tmp_path_factory.mktemp("snapshots"), "DCGANGenerator", arguments, resolution=16)


def test_sheets_take_them(snapshot, tmp_path):
    shown = []
    for options in ([], ["--standing-stats", "4"], ["--standing-stats", "4"]):
        out = tmp_path / "sheet.png"
        assert main(["sample", snapshot, "--kind", "classes", "--out", str(out), *options]) == 0
        shown.append(out.read_bytes())
    assert shown[1] == shown[2] != shown[0]


class Scored:
    """Keeps what it is given to score."""

    batch_size = 6

    def score(self, samples, metrics, num, provenance, conditional, world):
        self.images, self.provenance = samples(range(num))[0], provenance
        return []


def test_scores_take_them_and_say_so(snapshot, digits, tmp_path, capsys):
    """Beside others, a generator without batch norm is scored as it is."""
    file, other = tmp_path / "scores.json", made_snapshot(tmp_path)
    options = ["--reference", str(digits), "--num", "20", "--batch", "20", "--metrics", "is", "--json", str(file)]
    for standing in ([], ["--standing-stats", "3"]):
        assert main(["evaluate", snapshot, other, *options, *standing]) == 0
        file = file.rename(tmp_path / f"scores{len(standing)}.json").with_name("scores.json")
    before, after = (json.loads((tmp_path / f"scores{n}.json").read_text()) for n in (0, 2))
    assert [score["protocol"]["standing_stats"] for score in before + after] == [None, None, "3 batches of 20", None]
    assert before[0]["value"] != after[0]["value"]
    assert before[1] == after[1]
    assert main(["evaluate", other, *options, "--standing-stats", "3"]) == 2
    assert "has no batch norm" in capsys.readouterr().err
    assert main(["evaluate", snapshot, *options, "--standing-stats", "0"]) == 2
    assert "standing_stats (=0) must be at least 1" in capsys.readouterr().err
    (tmp_path / "pictures").mkdir()
    assert main(["evaluate", str(tmp_path / "pictures"), "--standing-stats", "3"]) == 2
    assert "is for generators" in capsys.readouterr().err


def test_a_training_does_not_notice_that_it_was_scored_with_them():
    game, scored = biggan_game(), [Scored(), Scored()]
    before = copy.deepcopy(game.state_dict())
    for scorer, passes in zip(scored, (None, 4), strict=True):
        Evaluating(0, scorer, None, ["fid"], 6, standing_stats=passes).act(SimpleNamespace(loggers=[]), game)
    assert not torch.equal(scored[0].images, scored[1].images)
    assert [scorer.provenance.standing_stats for scorer in scored] == [None, "4 batches of 6"]
    assert all(torch.equal(value, before[name]) for name, value in game.state_dict().items())


def test_a_training_without_batch_norm_refuses_them_before_it_begins(digits, tmp_path, capsys):
    config = write_config(tmp_path / "tiny.yaml", tiny_config(digits))
    arguments = ["fit", "--config", str(config), "--run", str(tmp_path / "run"), "--evaluation.standing_stats", "9"]
    assert main(arguments) == 2
    assert "standing_stats (=9): ProgressiveGenerator has no batch norm" in capsys.readouterr().err
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
