"""The shards: whether a few of their images can be read as the training will, and whether their labels make sense."""

from __future__ import annotations

import numpy as np

from bigtrain.cli.checks.finding import Finding, error, ok, warning
from bigtrain.cli.checks.plan import Plan

#: Images that are read at each resolution: of the first shard, of the last one, and from everywhere.
EACH_END, SPREAD = 8, 32
#: Shards whose labels are looked at, if there are more.
LABELLED = 64


def shards(plan: Plan) -> list[Finding]:
    """Images of all parts of the data are read at each resolution: their checksums, and whether they can be decoded."""
    from bigtrain.data.reader import Reader  # noqa: PLC0415 (torch)

    found, resolutions = plan.shards, plan.game.schedule.resolutions
    found.check(resolutions)
    places = _places(found.shard_samples)
    reader = Reader(found)
    for resolution in resolutions:
        reader.read(places, resolution)
    infos = [info for manifest in found.manifests for group in manifest.shards.values() for info in group]
    sums = "with checksums" if all(info.sha256 for info in infos) else "without checksums (shards index --checksums)"
    sizes = ", ".join(map(str, resolutions))
    return [ok(f"{found.samples:,} images in {len(found.shard_samples)} shards; {len(places)} read at {sizes}, {sums}")]


def _places(counts: list[int]) -> list[tuple[int, int]]:
    """(Shard, sample) at both ends and evenly between them."""
    ends = np.cumsum(counts)
    total = int(ends[-1])
    last, first = total - min(EACH_END, counts[-1]), min(EACH_END, counts[0])
    numbers = {*range(first), *range(last, total), *np.linspace(0, total - 1, SPREAD, dtype=np.int64).tolist()}
    owners = {number: int(np.searchsorted(ends, number, side="right")) for number in sorted(numbers)}
    return [(shard, number - int(ends[shard]) + counts[shard]) for number, shard in owners.items()]


def labels(plan: Plan) -> list[Finding]:
    """The classes' frequencies, whether they are those of the networks, and whether each label is one of them."""
    from bigtrain.cli.training import check_fit  # noqa: PLC0415 (lightning)
    from bigtrain.data.reader import Reader  # noqa: PLC0415

    found = plan.shards
    check_fit(plan.game.generator_network, found)
    if not found.num_classes:
        return [ok("there are none, and the networks ask for none")]
    chosen = np.unique(np.linspace(0, len(found.shard_samples) - 1, LABELLED, dtype=np.int64)).tolist()
    reader, counted = Reader(found), np.zeros(found.num_classes, dtype=np.int64)
    for shard in chosen:
        there = reader.labels(shard)
        wrong = there[(there < 0) | (there >= found.num_classes)]
        if len(wrong):
            name = found.locate(found.resolutions[0] if found.resolutions else 1, shard).name
            return [
                error(
                    f"{name}: {len(wrong)} labels such as {wrong[0]} are none of the {found.num_classes} classes",
                    f"bigtrain shards verify {found.url}; index or build the shards again",
                )
            ]
        counted += np.bincount(there, minlength=found.num_classes)
    return [_frequencies(found.class_counts, found.classes, counted, len(chosen) == len(found.shard_samples))]


def _frequencies(counts: list[int], classes: list[str], counted: np.ndarray, all_read: bool) -> Finding:
    """Args:
    counts: of the manifest.
    classes: their names.
    counted: in the shards that were read.
    all_read: whether these were all of them.
    """
    if all_read and counted.tolist() != counts:
        number = int(np.flatnonzero(counted != np.array(counts))[0])
        return error(
            f"class {classes[number]!r} has {counted[number]} images in the shards, {counts[number]} in the manifest",
            "index the shards again (bigtrain shards index), or build them again",
        )
    empty = [name for name, count in zip(classes, counts, strict=True) if not count]
    said = f"{len(classes)} classes of {min(counts):,} to {max(counts):,} images"
    if len(empty) == len(classes) - 1 and len(classes) > 1:
        return warning(f"{said}: all are of one class", "look at how the shards were labelled (--label, cls)")
    if empty:
        return warning(f"{said}: {len(empty)} are empty, such as {empty[0]!r}", "no sample of them will be learned")
    return ok(said)
