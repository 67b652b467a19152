"""The scores of ranks are those of one process, however uneven their parts, and nobody waits for who did not ask."""

import pytest
import torch.distributed as dist

from bigtrain.evaluation.evaluate import Evaluation, evaluate
from bigtrain.evaluation.reference import PARTS, measure_reference
from tests.unit.test_metric_table import CLASSES, Halved, real_batches, sampler

NUM = 21  # of four ranks the last has no valid sample in its last batch
METRICS = ["fid", "sfid", "is", "am", "recognition", "vendi", "kid_all", "recall", "intra_fid", "ms_ssim"]


def scores() -> dict[str, float]:
    """Of this rank; of one process if there are no others."""
    rank, world_size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    reference = measure_reference(real_batches(), Halved(), "some manifest", CLASSES, parts=PARTS)
    made = evaluate(sampler, Halved(), reference, METRICS, NUM, 4, splits=5, rank=rank, world_size=world_size)
    return {score.metric: score.value for score in made}


def alone() -> float | None:
    """The first rank computes what it has, and the others do nothing."""
    if dist.get_rank() > 0:
        return None
    reference = measure_reference(real_batches(), Halved(), "some manifest", CLASSES, parts=PARTS)
    gathered = Evaluation(Halved(), reference, ["fid", "kid"], 30, 4).gather(sampler)
    return float(gathered["features"].compute()["count"])


def test_every_rank_gets_the_scores_of_one_process(two_ranks, four_ranks):
    """One statistic of each kind; the others of the table are merged in test_metric_table.py."""
    expected = scores()
    for found in (*two_ranks.run(scores), *four_ranks.run(scores)):
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_one_rank_may_compute_without_the_others(two_ranks):
    """torchmetrics synchronises in `compute` by default: on one rank only, that waits for ever."""
    assert two_ranks.run(alone) == [30, None]
