"""Where `bigtrain sample` puts samples by themselves, by --as."""

from __future__ import annotations

import argparse
import contextlib
from typing import Any

from bigtrain.data.stream import ShardStream
from bigtrain.sampling.files import FolderOutput, ZipOutput
from bigtrain.sampling.outputs import ArrayOutput, GridOutput, Output, Picture, PictureOutput, grid_columns
from bigtrain.snapshots import Snapshot
from bigtrain.storage import Storage


class ShardOutput(PictureOutput):
    """Shards as training reads them, of lossless pictures in the order of the samples.

    Args:
        url: of the shards.
        resolution: of the samples.
        snapshot: whose they are.
        source: what else decides them, for the manifest.
        samples_per_shard: of every shard but the last.

    Raises:
        ValueError: if there is something already.
    """

    def __init__(
        self, url: str, resolution: int, snapshot: Snapshot, source: dict[str, Any], samples_per_shard: int = 4096
    ) -> None:
        card, generator = snapshot.card, snapshot.generator
        classes = card.classes if generator.num_classes else []
        origin = {"kind": "samples", "kimg": card.kimg, "trained_on": card.manifest, **source}
        self._shards = ShardStream(
            Storage(url), resolution, generator.image_channels, classes, origin, samples_per_shard
        )
        super().__init__(url)

    def keep(self, picture: Picture) -> None:
        self._shards.add(f"{picture.index:09d}", "png", picture.content, picture.label)

    def close(self) -> None:
        super().close()
        self._shards.close()

    def discard(self) -> None:
        super().discard()
        with contextlib.suppress(OSError):  # the store that failed before, perhaps
            self._shards.discard()


def open_output(options: argparse.Namespace, snapshot: Snapshot) -> Output:
    """The output that --as and --out ask for.

    Raises:
        ValueError: if shards are to be written where something is already.
    """
    generator, num = snapshot.generator, len(options.indices)
    if options.form == "grid":
        return GridOutput(options.out, grid_columns(num, generator.num_classes))
    if options.form == "shards":
        resolution = snapshot.card.resolution if generator.progressive else generator.resolution
        decisive = {name: getattr(options, name) for name in ("seed", "truncation", "standing_stats", "batch")}
        return ShardOutput(options.out, resolution, snapshot, decisive)
    return {"folder": FolderOutput, "zip": ZipOutput, "npz": ArrayOutput}[options.form](options.out)
