"""The orders by their names in a configuration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from bigtrain.data.balanced import BalancedOrder
from bigtrain.data.mixed import MixedOrder
from bigtrain.data.order import Order, SampleOrder
from bigtrain.data.reader import Reader
from bigtrain.data.threads import Threads

Kind = Literal["shuffled", "balanced"]


def make_order(kind: Kind, reader: Reader, weights: Sequence[float], seed: int, lanes: int) -> SampleOrder:
    """The order of a set of shards, or of several.

    Args:
        kind: `shuffled`: each epoch has every sample once; `balanced`: every class comes equally often.
        reader: of the shards.
        weights: by which the sets are mixed.
        seed: of the order.
        lanes: places all over the data from which a batch draws (see `Order`).

    Raises:
        ValueError: if a balanced order is wanted of several sets, or of one without classes.
    """
    shards = reader.shards
    if kind == "balanced":
        if len(weights) > 1 or not shards.num_classes:
            raise ValueError("data.order (='balanced') needs one set of shards, with classes; use 'shuffled'")
        labels = Threads(16, "index").map(reader.labels, range(len(shards.shard_samples)))  # an index a shard is read
        return BalancedOrder(labels, seed)
    orders = [Order(manifest.shard_samples, seed, lanes) for manifest in shards.manifests]
    return orders[0] if len(orders) == 1 else MixedOrder(orders, weights, seed)
