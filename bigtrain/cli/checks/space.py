"""Room for what a run writes: its checkpoints and snapshots, and the cache of shards."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from bigtrain.cli.checks.finding import Finding, error, ok, warning
from bigtrain.cli.checks.plan import Plan
from bigtrain.cli.checks.sizes import GIB, existing, shown, stored


def disk(plan: Plan) -> list[Finding]:
    """Where the run will be: the free space, against what its checkpoints and snapshots take in the end."""
    folder = plan.folder.absolute()
    if folder.exists() and not folder.is_dir():
        return [error(f"{folder} is a file", "give another --run")]
    checkpoint, snapshot, count = sizes(plan)
    copies = plan.cadences.keep_checkpoints + 1  # one more while it is written
    copies += plan.evaluation is not None  # the best
    copies += plan.guard is not None and plan.guard.on_collapse == "rollback"  # the last good one
    there = stored([folder / "checkpoints", folder / "snapshots"])
    needed = max(0, copies * checkpoint + count * snapshot - there)
    place = existing(folder)
    free = shutil.disk_usage(place).free
    said = f"{shown(free)} free in {place}; {copies} checkpoints of {shown(checkpoint)} and {count} snapshots of "
    said += f"{shown(snapshot)} take {shown(needed)}" + (" more" if there else "")
    if not _writable(place):
        return [error(f"{place} cannot be written", "give a --run elsewhere, or ask for permission")]
    if free < needed:
        remedy = "make room, raise cadences.checkpoint_kimg, lower cadences.keep_checkpoints, or give another --run"
        return [error(said, remedy)]
    if free < 2 * needed:
        return [warning(f"{said}, more than half of it", "make room, if others write there too")]
    return [ok(said)]


def sizes(plan: Plan) -> tuple[int, int, int]:
    """Bytes of a checkpoint and of a snapshot, and how many snapshots there will be.

    A network that grows is counted as full grown.
    """
    from bigtrain.clock import images  # noqa: PLC0415

    checkpoint = sum(piece.tensor.nbytes for piece in plan.game.training_state().values())
    snapshot = sum(tensor.nbytes for tensor in plan.game.average.state_dict().values())
    every, total = images(plan.cadences.checkpoint_kimg), plan.game.schedule.total_images
    return checkpoint, snapshot, -(-total // every) if every else 1


def cache(plan: Plan) -> list[Finding]:
    """Where shards of an object store are kept: whether there is room for as many as they may be."""
    from bigtrain.data.cache import default_folder  # noqa: PLC0415

    bound = int(plan.data["cache_gib"] * GIB)
    if not bound or all(storage.is_local for storage in plan.storages):
        return [ok("none is needed" if bound else "none: samples are read by ranges (data.cache_gib)")]
    named = plan.data["cache_folder"]
    folder = Path(named).expanduser() if named else default_folder()
    place, there = existing(folder.absolute()), stored([folder])
    free = shutil.disk_usage(place).free + there
    said = f"{shown(free)} for up to {shown(bound)} in {place}"
    if not _writable(place):
        return [error(f"{place} cannot be written", "name another data.cache_folder")]
    if free < bound:
        return [warning(said, "lower data.cache_gib, or name a data.cache_folder on another disk")]
    return [ok(said)]


def _writable(folder: Path) -> bool:
    """Asked without writing."""
    return os.access(folder, os.W_OK | os.X_OK)
