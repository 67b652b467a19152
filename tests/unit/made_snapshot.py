"""Snapshots of random weights, for tests of what is made with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from bigtrain import networks
from bigtrain.snapshots import Card, save_snapshot
from bigtrain.storage import Storage

PROGRESSIVE = {
    "resolution": 16,
    "image_channels": 1,
    "num_classes": 10,
    "latent_dim": 6,
    "fmap_base": 32,
    "fmap_max": 8,
}


def made_snapshot(
    folder: Path,
    network: str = "ProgressiveGenerator",
    arguments: dict[str, Any] = PROGRESSIVE,
    images_seen: int = 1000,
    resolution: int = 8,
    alpha: float = 1.0,
    shards: Path | None = None,
) -> str:
    """Writes a snapshot into the folder, of weights that are addressed by its moment; returns its file."""
    torch.manual_seed(images_seen)
    num_classes = arguments["num_classes"]
    card = Card(
        network={"class_path": f"bigtrain.networks.{network}", "init_args": arguments},
        images_seen=images_seen,
        resolution=resolution,
        alpha=alpha,
        classes=[str(i) for i in range(num_classes)],
        class_counts=[1] * num_classes,
        seed=0,
        manifest="",
        versions={},
        config={"data": {"url": str(shards)}},
    )
    name = save_snapshot(Storage(folder), getattr(networks, network)(**arguments).state_dict(), card)
    return f"{folder}/{name}.safetensors"
