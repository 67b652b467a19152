"""The weights that a training begins with: those of a snapshot, a conversion or another run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bigtrain.checkpoints import Checkpoints
from bigtrain.games import AdversarialGame
from bigtrain.interop.conversion import Part
from bigtrain.snapshots import load_opponent, load_snapshot
from bigtrain.storage import Storage

_NETWORK = "networks/discriminator.network."


def begin_from(url: str, game: AdversarialGame, config: Mapping[str, Any]) -> list[str]:
    """Gives a game that has not begun the weights there, and says so: a line each.

    Args:
        url: of a snapshot or a run.
        game: on any of the ranks, which all do so.
        config: of the training, as plain data.

    Raises:
        ValueError: if there are none, or they are of other networks.
    """
    players = config["game"]["init_args"]
    try:
        snapshot, opponent = load_snapshot(url), opponent_of(url)
        game.begin_with(snapshot.generator.state_dict(), opponent.state if opponent else None)
    except (ValueError, FileNotFoundError) as error:
        raise ValueError(f"start_from (={url}): {error}") from error
    lines = [f"beginning with {snapshot.name}" + ("" if opponent else ", which has no discriminator: that one is new")]
    for name, network in (("generator", snapshot.card.network), ("discriminator", opponent and opponent.network)):
        there = network["init_args"] if network else {}
        here = players[name]["init_args"]["network"]["init_args"]
        lines += [
            f"{name}.network.{key} is {here[key]!r} here, but {there[key]!r} in start_from"
            for key in sorted(there.keys() & here.keys() - {"init"})
            if there[key] != here[key]
        ]
    return lines


def opponent_of(url: str) -> Part | None:
    """The discriminator that belongs to the snapshot at a URL: beside it, or in the run's newest checkpoint."""
    found = load_opponent(url)
    if found is not None:
        return Part(*found)
    if url.endswith((".safetensors", ".json")):
        return None
    checkpoint = Checkpoints(Storage(f"{url.rstrip('/')}/checkpoints")).load()
    if checkpoint is None or "config" not in checkpoint.facts:
        return None
    names = [name for name in checkpoint.tensors if name.startswith(_NETWORK)]
    state = {name.removeprefix(_NETWORK): checkpoint.tensors[name] for name in names}
    return Part(checkpoint.facts["config"]["game"]["init_args"]["discriminator"]["init_args"]["network"], state)
