"""The scores that are measured in the course of a training, by its configuration."""

from __future__ import annotations

from bigtrain.callbacks.evaluation import Evaluating
from bigtrain.callbacks.scoring import Scorer
from bigtrain.callbacks.scoring_base import Measurement, device_of_scores
from bigtrain.cli.run_folder import RunFolder
from bigtrain.cli.settings import Evaluation
from bigtrain.data.shard_set import ShardSet
from bigtrain.evaluation.table import expanded
from bigtrain.games import AdversarialGame
from bigtrain.runtime.watch import Watch
from bigtrain.sampling.standing_stats import StandingStats
from bigtrain.storage import Storage


def scorings_of(
    wanted: Evaluation | None, game: AdversarialGame, shards: ShardSet, folder: RunFolder, watch: Watch
) -> list[Evaluating]:
    """What measures them; nothing if the configuration asks for none.

    Args:
        wanted: the configuration's `evaluation`.
        game: of the training.
        shards: of real images.
        folder: of the run, where is kept what cannot be kept beside the shards.
        watch: over the ranks.

    Raises:
        ValueError: if they cannot be had.
    """
    if wanted is None:
        return []
    network = game.generator_network
    if wanted.standing_stats is not None:
        StandingStats(wanted.standing_stats, []).check(network)
    by = Measurement(
        wanted.extractor,
        wanted.weights,
        wanted.protocol,
        wanted.batch_size,
        wanted.channels_last,
        wanted.compiled,
        device_of_scores(game.parallel.device),
        watch.alive,
    )
    return [
        Evaluating(
            wanted.every_kimg,
            Scorer(shards, network.resolution, by, spare=Storage(folder.path)),
            folder.evaluation,
            expanded(wanted.metrics),
            wanted.num,
            wanted.truncation,
            wanted.standing_stats,
            wanted.max_minutes,
            watch.world,
        )
    ]
