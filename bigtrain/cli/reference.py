"""The shards of real images that samples are compared with: those that are named, else those of the training."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bigtrain.data.shard_set import ShardSet
    from bigtrain.snapshots import Snapshot


def reference_shards(url: str | None, snapshot: Snapshot | None, resolution: int | None = None) -> tuple[ShardSet, int]:
    """The shards, and the resolution at which they are read.

    Args:
        url: of the shards; without it those that the snapshot was trained on.
        snapshot: whose training also says how much damage is accepted.
        resolution: needed; without it the largest stored one.

    Raises:
        ValueError: if there are none, or not at that resolution.
    """
    from bigtrain.data.faults import Budget  # noqa: PLC0415 (torch: only when there is something to do)
    from bigtrain.data.manifest import MANIFEST_KEY, Manifest  # noqa: PLC0415
    from bigtrain.data.shard_set import ShardSet  # noqa: PLC0415
    from bigtrain.storage import Storage  # noqa: PLC0415
    from bigtrain.storage.secrets import HIDDEN  # noqa: PLC0415

    url = url or (snapshot.card.config.get("data", {}).get("url") if snapshot else None)
    if url is None:
        raise ValueError("--reference URL is needed: the shards of real images to compare with")
    if not isinstance(url, str):
        raise ValueError(f"--reference URL is needed: the run was trained on a mixture, {', '.join(url)}; name one")
    if HIDDEN in url:
        raise ValueError(f"--reference URL is needed: the run's data.url (={url!r}) had a secret, which is not kept")
    storage = Storage(url)
    if not storage.exists(MANIFEST_KEY):
        raise ValueError(
            f"--reference (={url!r}) holds no shards: it has no {MANIFEST_KEY}; make them with `bigtrain shards build "
            f"SOURCE {url}`"
        )
    manifest = Manifest.load(storage)
    resolution = resolution or max(manifest.resolutions, default=0)
    if not manifest.has(resolution):
        raise ValueError(f"--reference (={url!r}) has resolutions {manifest.resolutions}, not the needed {resolution}")
    data = snapshot.card.config.get("data", {}) if snapshot else {}
    accepted = Budget()  # of damage, as the training accepted it
    budget = Budget(
        data.get("max_bad_samples", accepted.max_sample_share), data.get("max_bad_shards", accepted.max_shards)
    )
    return ShardSet.of(storage, manifest, budget), resolution
