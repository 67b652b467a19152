"""Snapshots: the averaged generator to share, as safetensors with a json card that says what it is."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser
from safetensors.torch import load, save
from torch import Tensor

from bigtrain.clock import moment_name
from bigtrain.networks import Generator
from bigtrain.storage import Storage

FORMAT = 1
#: What the file of a snapshot's discriminator ends in.
OPPONENT = ".discriminator.safetensors"
#: `fid10k_full`, not `fid_infinity10k_full`.
FID = re.compile(r"fid\d")


@dataclass(frozen=True)
class Card:
    """What a snapshot is, and where it comes from."""

    network: dict[str, Any]  # class_path and init_args of the generator
    images_seen: int
    resolution: int
    alpha: float
    classes: list[str]
    class_counts: list[int]
    seed: int
    manifest: str  # hash of the training data's
    versions: dict[str, str]
    config: dict[str, Any]
    scores: list[dict[str, Any]] = field(default_factory=list)
    format: int = FORMAT

    @property
    def kimg(self) -> float:
        return self.images_seen / 1000

    @property
    def fid(self) -> dict[str, Any] | None:
        """The FID that was measured at this moment, if it was, with its name and protocol."""
        return next((score for score in self.scores if FID.match(score["metric"])), None)

    @property
    def place(self) -> dict[str, Any]:
        """Where a growing generator stood."""
        return {"resolution": self.resolution, "alpha": self.alpha}


@dataclass(frozen=True)
class Snapshot:
    """A generator in evaluation mode, and its card."""

    generator: Generator
    card: Card
    name: str


def save_snapshot(storage: Storage, state: Mapping[str, Tensor], card: Card, name: str | None = None) -> str:
    """Writes a generator, then the card, without which it does not count. Returns the name they share.

    Args:
        storage: the folder of the snapshots.
        state: of the generator, as its `state_dict` names it; whole tensors.
        card: what it is.
        name: None for that of its moment.
    """
    name = name or moment_name(card.images_seen)
    storage.write(f"{name}.safetensors", save(_separate(state)))
    storage.write(f"{name}.json", json.dumps(asdict(card), indent=1).encode())
    return name


def save_opponent(storage: Storage, name: str, state: Mapping[str, Tensor], network: dict[str, Any]) -> None:
    """Writes the discriminator that belongs to a snapshot beside it, for a training to begin with.

    Args:
        storage: the folder of the snapshots.
        name: of the snapshot.
        state: of the discriminator; whole tensors.
        network: its class_path and init_args.
    """
    storage.write(f"{name}{OPPONENT}", save(_separate(state), {"network": json.dumps(network)}))


def load_opponent(url: str) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """class_path, init_args and weights of the discriminator beside the snapshot at a URL, if there is one.

    Raises:
        ValueError: if it is damaged.
    """
    storage, name = _find(url)
    if not storage.exists(f"{name}{OPPONENT}"):
        return None
    content = storage.read(f"{name}{OPPONENT}")
    try:
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        return json.loads(header["__metadata__"]["network"]), load(content)
    except Exception as error:  # safetensors has errors of its own
        raise ValueError(f"{storage.locate(name)}{OPPONENT} is damaged ({error})") from error


def _separate(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the host that share no memory, as safetensors wants them."""
    return {key: value.detach().cpu().contiguous().clone() for key, value in state.items()}


def load_snapshot(url: str) -> Snapshot:
    """The snapshot at a URL: a `.safetensors` or `.json` file of one, or a run, whose newest it is.

    Raises:
        ValueError: if there is none, or it is not a snapshot of this version.
    """
    storage, name = _find(url)
    try:
        card = Card(**json.loads(storage.read(f"{name}.json")))
        generator = _build(card.network)
        generator.load_state_dict(_tensors(storage, name))
    except (TypeError, KeyError, RuntimeError, json.JSONDecodeError) as error:
        raise ValueError(f"{storage.locate(name)} is not a snapshot ({error})") from error
    if card.format != FORMAT:
        raise ValueError(f"{storage.locate(name)} has format {card.format}, but this bigtrain reads {FORMAT}")
    return Snapshot(generator.requires_grad_(False).eval(), card, storage.locate(name))


def holds_snapshot(url: str) -> bool:
    """Whether the URL is a snapshot or a folder of some."""
    return _locate(url) is not None


def snapshots_of(url: str) -> list[str]:
    """The URLs of all snapshots of a run, or of a folder of some, the oldest first.

    Raises:
        ValueError: if there are none, or the URL is one by itself.
    """
    if url.endswith((".safetensors", ".json")):
        raise ValueError(f"{url!r} is one snapshot; give a run, or a folder of snapshots")
    storage, names = _below(url)
    if not names:
        raise ValueError(f"{url!r} holds no snapshots; give a run, or a folder of snapshots")
    return [f"{storage.url}/{name}.safetensors" for name in names]


def _find(url: str) -> tuple[Storage, str]:
    found = _locate(url)
    if found is None:
        raise ValueError(
            f"{url!r} holds no snapshot; give a run folder, whose newest one is taken, or a .safetensors file"
        )
    return found


def _locate(url: str) -> tuple[Storage, str] | None:
    """The storage and name of the snapshot at a URL, or the newest below it."""
    for ending in (".safetensors", ".json"):
        if url.endswith(ending):
            folder, _, file = url.removesuffix(ending).rpartition("/")
            return Storage(folder or "."), file
    storage, names = _below(url)
    return (storage, names[-1]) if names else None


def _below(url: str) -> tuple[Storage, list[str]]:
    """The folder of the snapshots of a run, or that of the URL itself, and their names, the oldest first."""
    for folder in (f"{url.rstrip('/')}/snapshots", url):
        storage = Storage(folder)
        cards = [key.removesuffix(".json") for key, _ in storage.list() if key.endswith(".json")]
        names = sorted(name for name in cards if name.replace(".", "").isdigit())
        if names:
            break
    return storage, names


def _tensors(storage: Storage, name: str) -> dict[str, Tensor]:
    try:
        return load(storage.read(f"{name}.safetensors"))
    except Exception as error:
        if isinstance(error, OSError):
            raise
        raise ValueError(f"{storage.locate(name)}.safetensors is damaged ({error})") from error


def _build(network: dict[str, Any]) -> Generator:
    """The generator of a card: only a subclass of `Generator` with its own arguments is made."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Generator, "network", required=True)
    try:
        return parser.instantiate(parser.parse_object({"network": network})).network
    except ArgumentError as error:
        raise ValueError(f"the snapshot's network {network.get('class_path')!r} cannot be made: {error}") from error
