"""Every metric at 1, 2, 3 and 8 ranks: `python tests/benchmarks/table_of_ranks.py`.

The parts of the ranks are merged as their sums are, with tails that are not even. That nothing differs by 1e-6 is held
by tests/unit/test_metric_table.py, and for processes of their own by tests/distributed/test_evaluation.py.
"""

from __future__ import annotations

from bigtrain.evaluation.evaluate import Evaluation
from bigtrain.evaluation.protocol import Provenance
from bigtrain.evaluation.reference import PARTS, Reference, measure_reference
from bigtrain.evaluation.table import METRICS
from tests.unit.test_metric_table import CLASSES, NUM, Halved, real_batches, sampler

WORLDS, BATCH = (1, 2, 3, 8), 4


def values(reference: Reference, world_size: int) -> list[float]:
    evaluation = Evaluation(Halved(), reference, list(METRICS), NUM, BATCH, splits=5)
    whole, *others = (evaluation.gather(sampler, rank, world_size) for rank in range(world_size))
    for part in others:
        for name, sums in part.items():
            whole[name].merge_state(sums)
    return [score.value for score in evaluation.scores(whole, Provenance())]


def main() -> None:
    reference = measure_reference(real_batches(), Halved(), "some manifest", CLASSES, parts=PARTS)
    columns = [values(reference, world_size) for world_size in WORLDS]
    print(f"{NUM} samples in batches of {BATCH} a rank:")
    print(f"{'':14}" + "".join(f"{world_size:>16}" for world_size in WORLDS) + "   largest difference")
    for name, row in zip(METRICS, zip(*columns, strict=True), strict=True):
        difference = max(abs(value - row[0]) for value in row) / max(abs(row[0]), 1e-300)
        print(f"{name:14}" + "".join(f"{value:16.9g}" for value in row) + f"   {difference:.1e}")


if __name__ == "__main__":
    main()
