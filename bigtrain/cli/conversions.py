"""What `bigtrain convert` does. Each function writes to DST and says in words what it made."""

from __future__ import annotations

from typing import Any

from bigtrain.cli.start import opponent_of
from bigtrain.clock import moment_name
from bigtrain.interop.conversion import Conversion, Part
from bigtrain.interop.files import ENDINGS, gather, scatter
from bigtrain.interop.formats import FORMATS, read, write
from bigtrain.interop.names import class_name
from bigtrain.interop.onnx import onnx_of
from bigtrain.runtime.environment import versions
from bigtrain.sampling.outputs import place_of
from bigtrain.snapshots import OPPONENT, Card, Snapshot, load_snapshot, save_opponent, save_snapshot
from bigtrain.storage import Storage


def from_foreign(source: str, destination: str, name: str, options: dict[str, Any]) -> str:
    """A snapshot, and the discriminator beside it if the source has one.

    Args:
        source: a file or folder of the format.
        destination: the snapshot's file, or a folder for `snapshots/`.
        name: of the format.
        options: of it, as they were given.

    Raises:
        ValueError, OSError: if the source cannot be read.
    """
    known = FORMATS[name]
    storage, file = _place(source) if known.files else place_of(source)
    content = gather(storage, file, known, options.get("suffix", ""))
    try:
        conversion = read(name, content, {key: value for key, value in options.items() if key != "suffix"})
    except ValueError as error:
        raise ValueError(f"{source} cannot be read as {name}: {error}") from error
    told = {"from": name, "source": source, "options": options, "notes": conversion.notes}
    _save(destination, conversion, _card(conversion, {"converted": told}))
    for note in conversion.notes:
        print(f"note: {note}")
    return f"{_described(conversion)} of {source}"


def to_snapshot(source: str, destination: str) -> str:
    """One file (and its card) of a run or snapshot, and the discriminator if it is there."""
    snapshot, conversion = _opened(source)
    _save(destination, conversion, snapshot.card)
    return f"{_described(conversion)} of {snapshot.name} at {snapshot.card.kimg:g} kimg"


def to_onnx(source: str, destination: str) -> str:
    """The generator as a program, if onnxruntime makes the same images with it."""
    snapshot = load_snapshot(source)
    content, difference = onnx_of(snapshot.generator, snapshot.card.place)
    storage, name = place_of(destination)
    storage.write(name, content)
    return f"{snapshot.name} at {snapshot.card.kimg:g} kimg; onnxruntime's images differ by {difference:.2g} at most"


def to_foreign(source: str, destination: str, name: str) -> str:
    """The files of another trainer."""
    known = FORMATS[name]
    snapshot, conversion = _opened(source)
    storage, file = _place(destination) if known.files else place_of(destination)
    names = scatter(storage, file, known, write(name, conversion))
    return f"{', '.join(names)} of {snapshot.name} at {snapshot.card.kimg:g} kimg, as {name}"


def _place(url: str) -> tuple[Storage, str | None]:
    """The folder and the name of the file in it; None if the URL is a folder's."""
    return place_of(url) if url.endswith(ENDINGS) else (Storage(url), None)


def _opened(source: str) -> tuple[Snapshot, Conversion]:
    """A snapshot, and all networks that belong to it."""
    snapshot = load_snapshot(source)
    card = snapshot.card
    generator = Part(card.network, snapshot.generator.state_dict())
    return snapshot, Conversion(generator, opponent_of(source), card.resolution, card.alpha)


def _card(conversion: Conversion, config: dict[str, Any]) -> Card:
    count = conversion.generator.network["init_args"].get("num_classes", 0)
    return Card(
        network=conversion.generator.network,
        images_seen=0,
        resolution=conversion.resolution,
        alpha=conversion.alpha,
        classes=[str(number) for number in range(count)],
        class_counts=[1] * count,
        seed=0,
        manifest="",
        versions=versions(),
        config=config,
    )


def _save(destination: str, conversion: Conversion, card: Card) -> None:
    """Writes the snapshot last: without it, what is there does not count."""
    if destination.endswith(".safetensors"):
        storage, file = place_of(destination)
        name = file.removesuffix(".safetensors")
    else:
        storage, name = Storage(f"{destination.rstrip('/')}/snapshots"), moment_name(card.images_seen)
    if conversion.discriminator is not None:
        save_opponent(storage, name, conversion.discriminator.state, conversion.discriminator.network)
    elif storage.exists(f"{name}{OPPONENT}"):  # of what was here before
        storage.delete([f"{name}{OPPONENT}"])
    save_snapshot(storage, conversion.generator.state, card, name)


def _described(conversion: Conversion) -> str:
    classes = conversion.generator.network["init_args"].get("num_classes", 0)
    described = f"{class_name(conversion.generator.network)} at {conversion.resolution}²"
    described += f" with {classes} classes" if classes else ""
    opponent = conversion.discriminator
    return described + (f" and {class_name(opponent.network)}" if opponent else "")
