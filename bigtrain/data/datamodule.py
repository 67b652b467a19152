"""Shards as a LightningDataModule."""

from __future__ import annotations

from typing import Any

from lightning import LightningDataModule

from bigtrain.data.batches import Batches
from bigtrain.data.manifest import Manifest
from bigtrain.data.order import Order
from bigtrain.data.reader import Reader
from bigtrain.schedules import Schedule
from bigtrain.storage import Storage


class ShardDataModule(LightningDataModule):
    """The shards at a URL, in an order that depends on the seed and the manifest alone.

    Args:
        url: of the folder that `bigtrain shards build` wrote: a path or an object store's.
        schedule: of the training (set by the configuration's `schedule`).
        seed: of order and flips (set by the configuration's `seed`).
        mirror: whether images are flipped left to right with probability ½.
        decode_threads: that read and decode.
        batches_ahead: steps that are read before they are asked for.
        decoded_mib: if all samples of a resolution fit into so much memory, each is decoded once; 0 for never.
        lanes: places all over the data from which a batch draws (see `Order`).

    Raises:
        ValueError: if there are no shards at the URL, or not at a resolution of the schedule.
    """

    def __init__(
        self,
        url: str,
        schedule: Schedule,
        seed: int = 0,
        mirror: bool = False,
        decode_threads: int = 2,
        batches_ahead: int = 4,
        decoded_mib: int = 256,
        lanes: int = 64,
    ) -> None:
        super().__init__()
        for name, value in (("decode_threads", decode_threads), ("batches_ahead", batches_ahead)):
            if value < 1:
                raise ValueError(f"{name} (={value}) must be at least 1")
        if decoded_mib < 0:
            raise ValueError(f"decoded_mib (={decoded_mib}) must not be negative")
        self.storage = Storage(url)
        self.manifest = Manifest.load(self.storage)
        missing = sorted(set(schedule.resolutions) - set(self.manifest.resolutions))
        if missing:
            raise ValueError(
                f"the shards at data.url (={url!r}) have resolutions {self.manifest.resolutions}, not {missing} of the "
                f"schedule; build them with --resolutions {','.join(map(str, schedule.resolutions))}"
            )
        self.schedule, self.seed, self.mirror = schedule, seed, mirror
        self.decode_threads, self.batches_ahead = decode_threads, batches_ahead
        self.reader = Reader(self.storage, self.manifest, decoded_bytes=decoded_mib << 20)
        self.order = Order(self.manifest.shard_samples, seed, lanes)

    def train_dataloader(self) -> Batches:
        """The batches from the game's clock on."""
        assert self.trainer is not None
        game: Any = self.trainer.lightning_module  # (the data does not know the games)
        return self.batches(game.clock.images_seen)

    def batches(self, images_seen: int) -> Batches:
        """The batches from that moment on."""
        return Batches(
            self.reader,
            self.order,
            self.schedule,
            images_seen,
            self.seed,
            self.mirror,
            self.decode_threads,
            self.batches_ahead,
        )
