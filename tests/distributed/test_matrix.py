"""The invariant matrix: however a game is spread, ten steps give the parameters and averages of one process."""

import math

import pytest
import torch

from bigtrain.runtime.parallel import Parallel
from tests.distributed.cases import BATCH, METHODS, STEPS, Case, make, play

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-9}
WHOLE = [
    Case(method, accumulation, growth) for method in METHODS for accumulation in (1, 4) for growth in (False, True)
]
OTHERS = [
    Case("hinge", networks="biggan", d_steps=2, max_grad_norm=0.5, accumulation=2),
    Case("non-saturating + R1", stddev_group=None),
    Case("WGAN-GP", accumulation=2, growth=True, d_steps=3, max_grad_norm=1.0),
    Case("hinge", networks="biggan", max_grad_norm=0.5, recompute=True),
    Case("non-saturating + R1", growth=True, recompute=True),
    Case("non-saturating + approximate R1", accumulation=2, growth=True),
    Case("non-saturating + R1", growth=True, orthogonal_reg=True),
    Case("non-saturating + R1", accumulation=2, stddev_group=4, stddev="gan_zoo"),
    Case("non-saturating + R1", accumulation=2, growth=True, classifier=True),
]
#: Not in float32: the gradient of a bias before batch norm is nothing but rounding, of which Adam makes steps. With the
#: penalty's sums of squares of squares there is more of it: after ten steps one is 1.003e-5 from one process's.
DOUBLE_ONLY = [
    Case("hinge", networks="biggan", accumulation=2, orthogonal_reg=True),
    Case("hinge", networks="sngan", accumulation=2, classifier=True),
]
COMPILED = [
    Case("hinge", compile=True, accumulation=2),
    Case("non-saturating + approximate R1", compile=True, growth=True),
    Case("hinge", networks="biggan", compile=True),
    Case("non-saturating + approximate R1", compile=True, classifier=True),
]
#: What every run of the tests plays; `-m long` plays the rest.
FAIR = {
    Case("hinge", 4, True),
    Case("non-saturating + R1", 1, True),
    Case("WGAN-GP", 4, False),
    *OTHERS,
    DOUBLE_ONLY[0],
}


def cells(strategies, dtypes=(torch.float64, torch.float32)):
    for case in [*WHOLE, *OTHERS, *DOUBLE_ONLY]:
        for dtype in dtypes if case not in DOUBLE_ONLY else (torch.float64,):
            for strategy in strategies:
                fair = case in FAIR and (dtype == torch.float64 or case.method == "WGAN-GP")
                marks = [] if fair else [pytest.mark.long]
                cell = case._replace(dtype=dtype)
                yield pytest.param(cell, strategy, id=f"{strategy}-{cell.name}", marks=marks)


ALONE: dict[Case, dict[str, torch.Tensor]] = {}


def alone(case: Case) -> dict[str, torch.Tensor]:
    if case not in ALONE:
        ALONE[case] = play(case)[0]
    return ALONE[case]


def compare(found: dict[str, torch.Tensor], case: Case) -> None:
    """Networks, buffers and averages of every kind; in float64 the optimizers as well."""
    expected = alone(case._replace(compile=False))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if name.startswith("optimizers/") and case.dtype == torch.float32:
            continue
        scale = max(1.0, float(value.double().abs().max())) if value.numel() else 1.0
        error = float((found[name].double() - value.double()).abs().max()) if value.numel() else 0.0
        assert error <= TOLERANCE[case.dtype] * scale, (name, error)


def check(ranks, case, strategy, shard=0):
    answers = ranks.run(play, case, strategy, shard)
    for found, counts in answers:
        compare(found, case)
        assert counts["generator step"] == STEPS
        assert counts["discriminator step"] == STEPS * case.d_steps
        turns = STEPS * (1 + case.d_steps)
        if strategy == "ddp" and case.networks == "progressive" and case.stddev_group and case.stddev == "original":
            assert counts["allreduce bytes"] == trained_bytes(case)  # each gradient once, and nothing else
        if strategy != "ddp":
            assert counts["reduce_scatter_base"] == turns
        assert counts["generator forward"] == turns * case.accumulation


def trained_bytes(case: Case) -> int:
    """Bytes of all gradients that ten steps need: what is trained at each step, for each of its turns."""
    game, total = make(case), 0
    size = torch.finfo(case.dtype).bits // 8
    moments = list(game.schedule.steps(0))
    moments += [moments[-1]] * (STEPS - len(moments))
    for moment in moments[:STEPS]:
        for turns, player in ((1, game.generator), (case.d_steps, game.discriminator)):
            player.prepare(moment, game.schedule.total_images)
            total += turns * size * sum(p.numel() for p in player.network.parameters() if p.requires_grad)
    return total


@pytest.mark.parametrize(("case", "strategy"), list(cells(["ddp", "fsdp"])))
def test_two_ranks_are_one(two_ranks, case, strategy):
    check(two_ranks, case, strategy)


@pytest.mark.long
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in COMPILED])
def test_compiled_networks_are_those_that_are_not(two_ranks, case, strategy):
    check(two_ranks, case, strategy)


FOUR = [Case("hinge", 1, True), Case("non-saturating + R1", 4, True), Case("WGAN-GP", 1, True)]


@pytest.mark.parametrize("strategy", ["ddp", "fsdp", "hsdp"])
@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in FOUR])
def test_four_ranks_are_one(four_ranks, case, strategy):
    check(four_ranks, case, strategy, shard=2)


@pytest.mark.long
@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in WHOLE])
def test_hsdp_is_one_process_everywhere(four_ranks, case):
    check(four_ranks, case, "hsdp", shard=2)


@pytest.mark.parametrize(
    ("case", "says"),
    [
        (Case("hinge", accumulation=3), "batch_size"),
        (Case("hinge", accumulation=4, stddev_group=8), "stddev_group"),
    ],
)
def test_batches_that_cannot_be_shared_are_refused(two_ranks, case, says):
    for text in two_ranks.run(refusal, case):
        assert says in text


def refusal(case: Case) -> str:
    """What is said when the game of a case is spread over the ranks."""
    try:
        make(case).spread_over(Parallel("ddp"))
    except ValueError as error:
        return str(error)
    return ""


def test_optimizers_that_look_at_whole_weights_are_refused_where_they_are_sharded(two_ranks):
    assert all("Adam" in text and "LBFGS" in text for text in two_ranks.run(lbfgs))


def lbfgs() -> str:
    game = make(Case("hinge"))
    game.generator._make_optimizer = torch.optim.LBFGS
    try:
        game.spread_over(Parallel("fsdp"))
    except ValueError as error:
        return str(error)
    return ""


def test_the_batch_is_the_one_that_the_schedule_names():
    assert math.isclose(sum(1 for _ in make(Case("hinge", growth=True)).schedule.steps(0)) * BATCH, STEPS * BATCH)
