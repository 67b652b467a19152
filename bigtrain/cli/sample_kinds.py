"""What `bigtrain sample` makes, by --kind. Each maker writes to --out and says in words what it made."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor

from bigtrain.cli.arguments import thresholds
from bigtrain.cli.processes import Rank
from bigtrain.cli.reference import reference_shards
from bigtrain.cli.sample_outputs import open_output
from bigtrain.data.progress import progress
from bigtrain.sampling import arithmetic, interpolation, neighbours
from bigtrain.sampling.animations import animation, check_animation
from bigtrain.sampling.generate import Sampler, cycled
from bigtrain.sampling.history import film, strip
from bigtrain.sampling.outputs import grid, grid_columns, place_of, png
from bigtrain.sampling.paths import PATHS
from bigtrain.sampling.rounds import rounds
from bigtrain.sampling.sheets import Sheet, class_sheet, truncation_sheet
from bigtrain.sampling.standing_stats import StandingStats
from bigtrain.snapshots import Snapshot, load_snapshot, snapshots_of

if TYPE_CHECKING:
    from bigtrain.data.shard_set import ShardSet

Maker = Callable[[argparse.Namespace, Sampler, Snapshot, Rank], str]
REAL_IMAGES_AT_A_TIME: Final = 256


def check(options: argparse.Namespace) -> None:
    """Reads what needs no generator, so that mistakes are told before one is loaded.

    Raises:
        ValueError: naming the option, its value and what is valid.
    """
    if not options.out.endswith(".png") and options.kind in ("walk", "history"):
        check_animation(options.out, options.fps)
    if options.kind == "truncation":
        options.thresholds = thresholds("--thresholds", options.thresholds)
    if options.kind == "arithmetic":
        if options.formula is None:
            raise ValueError("--formula is needed for --kind arithmetic, such as --formula '3 - 5 + 8'")
        options.formula = arithmetic.parse(options.formula)


def sampler_of(options: argparse.Namespace, snapshot: Snapshot, device: torch.device) -> Sampler:
    """What makes the samples that are asked for with a snapshot's generator, which is put onto the device."""
    card = snapshot.card
    return Sampler(
        snapshot.generator.to(device),
        options.seed,
        cycled(options.labels),
        options.truncation,
        options.batch,
        card.place,
        StandingStats.of(options.standing_stats, card.class_counts),
    )


def _samples(options: argparse.Namespace, sampler: Sampler, snapshot: Snapshot, rank: Rank) -> str:
    """All ranks make them, the first one writes."""
    classes, num, done = snapshot.generator.num_classes, len(options.indices), 0
    if not rank.world.is_first:
        for number, _ in enumerate(rounds(sampler, options.indices, rank.world), start=1):
            rank.watch.step(number)
        return ""
    with open_output(options, snapshot) as output, progress("sampling", num) as shown:
        for number, batches in enumerate(rounds(sampler, options.indices, rank.world), start=1):
            rank.watch.step(number)
            for indices, images, labels in batches:
                output.add(indices, images, labels if classes else None)
                done += len(indices)
            shown.update(done)
    return f"{num} samples"


def _classes(options: argparse.Namespace, sampler: Sampler, *_: object) -> str:
    _write(options.out, class_sheet(sampler, sampler.latents(options.indices), options.labels))
    return f"{len(options.labels)} classes x {len(options.indices)} latents"


def _interpolation(options: argparse.Namespace, sampler: Sampler, *_: object) -> str:
    starts, ends = interpolation.ways(sampler, options.indices, options.between, options.labels)
    sheet = interpolation.interpolation_sheet(sampler, starts, ends, options.steps, PATHS[options.path])
    _write(options.out, sheet)
    return f"{len(starts.latents)} ways of {options.steps} steps"


def _walk(options: argparse.Namespace, sampler: Sampler, *_: object) -> str:
    turns = interpolation.corners(sampler, options.indices, options.between, options.labels)
    frames = interpolation.walk(sampler, turns, options.steps, PATHS[options.path])
    ending = check_animation(options.out, options.fps)
    _store(options.out, animation(frames, ending, options.fps))
    return f"a walk of {len(frames)} frames"


def _truncation(options: argparse.Namespace, sampler: Sampler, *_: object) -> str:
    _write(options.out, truncation_sheet(sampler, options.indices, options.thresholds))
    return f"{len(options.thresholds)} thresholds x {len(options.indices)} samples"


def _neighbours(options: argparse.Namespace, sampler: Sampler, snapshot: Snapshot, rank: Rank) -> str:
    images, _ = sampler(options.indices)
    shards, resolution = reference_shards(options.reference, snapshot, images.shape[-1])
    if shards.channels != images.shape[1]:
        raise ValueError(
            f"--reference (={shards.url!r}) has {shards.channels} channels, the generator's images {images.shape[1]}"
        )
    features = _features(options, shards, resolution)
    found = neighbours.nearest(images, _real_images(shards, resolution), options.nearest, features)
    _write(options.out, neighbours.neighbour_sheet(images, found))
    for index, distance in zip(options.indices, found.distances[:, 0].tolist(), strict=True):
        print(f"sample {index}: distance {distance:.4g} ({options.extractor}) to the nearest of {shards.samples}")
    return f"{len(images)} samples beside {found.distances.shape[1]} neighbours each"


def _arithmetic(options: argparse.Namespace, sampler: Sampler, *_: object) -> str:
    latents = arithmetic.operands_and_sum(sampler, options.formula)
    _write(options.out, class_sheet(sampler, latents, options.labels))
    return f"{len(options.formula)} operands and their sum in {len(options.labels)} classes"


def _history(options: argparse.Namespace, _: Sampler, newest: Snapshot, rank: Rank) -> str:
    urls, history = snapshots_of(options.source), list[Tensor]()
    with progress("sampling", len(urls) * len(options.indices)) as shown:
        for url in urls:
            images, _labels = sampler_of(options, load_snapshot(url), rank.device)(options.indices)
            history.append(images)
            shown.update(len(history) * len(images))
    if options.out.endswith(".png"):
        _write(options.out, strip(history))
    else:
        columns = grid_columns(len(options.indices), newest.generator.num_classes)
        frames = film(history, columns, options.fps)
        _store(options.out, animation(frames, check_animation(options.out, options.fps), options.fps))
    return f"{len(options.indices)} samples at {len(urls)} moments, the last"


MAKERS: Final[dict[str, Maker]] = {
    "samples": _samples,
    "classes": _classes,
    "interpolation": _interpolation,
    "walk": _walk,
    "truncation": _truncation,
    "neighbours": _neighbours,
    "arithmetic": _arithmetic,
    "history": _history,
}


def _features(options: argparse.Namespace, shards: ShardSet, resolution: int) -> neighbours.Features:
    """What distances are measured between: pixels, or the features of an extractor of `bigtrain evaluate`."""
    if options.extractor == "pixels":
        return neighbours.pixels

    from bigtrain.callbacks.scoring import Scorer  # noqa: PLC0415 (lightning and the metrics: only if need be)
    from bigtrain.callbacks.scoring_base import Measurement  # noqa: PLC0415

    extractor = Scorer(shards, resolution, Measurement(options.extractor)).extractor

    def features(images: Tensor) -> Tensor:
        parts = images.split(REAL_IMAGES_AT_A_TIME)
        return torch.cat([extractor.measure(part, REAL_IMAGES_AT_A_TIME).features for part in parts]).cpu()

    return features


def _real_images(shards: ShardSet, resolution: int) -> Iterator[Tensor]:
    """All sound images of the shards, uint8 [n, c, h, w], as long as no more is damaged than their budget allows."""
    from bigtrain.data.batches import to_tensor  # noqa: PLC0415
    from bigtrain.data.faults import Faults  # noqa: PLC0415
    from bigtrain.data.reader import Reader  # noqa: PLC0415

    reader = Reader(shards, Faults(shards.shard_samples, 0, *shards.budget))
    done = 0
    with progress("comparing", shards.samples) as shown:
        for images, _ in reader.all(resolution, REAL_IMAGES_AT_A_TIME):
            yield to_tensor(images)
            done += len(images)
            shown.update(done)


def _write(url: str, sheet: Sheet) -> None:
    _store(url, png(grid(sheet.images, sheet.columns)))


def _store(url: str, content: bytes) -> None:
    storage, name = place_of(url)
    storage.write(name, content)
