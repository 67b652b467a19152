"""What follows from a collapse that the guard has found: the training ends, or goes on from an earlier checkpoint.

A training is a function of the configuration, the seed, images_seen, and the list of its rollbacks, which every
checkpoint tells. A rollback counts from the moment at which guard.jsonl tells of it; then it happens as a resume does:
so it makes no difference whether the process went on, or was killed and begun again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from bigtrain import randomness
from bigtrain.callbacks.guard import Guard, announce, looks_of
from bigtrain.callbacks.guard_signs import Look, good_moments
from bigtrain.checkpoints import Checkpoints
from bigtrain.cli.run_folder import RunFolder
from bigtrain.cli.settings import GuardSettings
from bigtrain.clock import moment_name
from bigtrain.games import Game
from bigtrain.runtime.world import World


class Rollbacks:
    """Those of one training, and its guard.

    Args:
        folder: of the run.
        checkpoints: of the run; those to which one may go back are kept from now on.
        world: of the ranks.
        settings: None: nothing is watched, but what has been rolled back stays so.
    """

    def __init__(
        self, folder: RunFolder, checkpoints: Checkpoints, world: World, settings: GuardSettings | None
    ) -> None:
        self.folder, self.checkpoints, self.world, self.settings = folder, checkpoints, world, settings
        #: As a checkpoint tells: `at` and `to` which moment, for which `reason`, by which `action` and `factor`.
        self.list: list[dict[str, Any]] = []
        self.guard: Guard | None = None
        if settings is not None:
            ends = settings.on_collapse != "warn"
            scores = folder.evaluation
            self.guard = guard = Guard(
                settings.every_kimg, folder.guard, scores, settings, world, ends, settings.spectrum
            )
            checkpoints.spare(lambda names: self._good(names, guard.looks)[-1:])

    @property
    def guards(self) -> list[Guard]:
        return [] if self.guard is None else [self.guard]

    @property
    def asked(self) -> bool:
        """Whether the guard has ended the training."""
        return self.guard is not None and self.guard.ended

    def place(self) -> str | None:
        """The checkpoint to which the training goes back, or None for the newest. All ranks call it together.

        Raises:
            ValueError: on all ranks, if it has collapsed and is not to go back, or cannot.
        """
        told = self.world.tell(json.dumps(self._decision()) if self.world.is_first else None)
        assert told is not None
        said = json.loads(told)
        if said["error"] is not None:
            raise ValueError(said["error"])
        self.list = said["rollbacks"]
        return said["name"]

    def apply(self, game: Game) -> None:
        """What holds after the rollbacks so far: others than before are drawn since the last `reseed`."""
        if not self.list:
            return
        reseeds = [number for number, rollback in enumerate(self.list, 1) if rollback["action"] == "reseed"]
        seed = randomness.address(game.seed, "rollback", reseeds[-1]) if reseeds else game.seed
        game.vary(seed, math.prod(rollback["factor"] for rollback in self.list))

    def _decision(self) -> dict[str, Any]:
        """On rank 0."""
        names = self.checkpoints.names()
        try:
            done = self.checkpoints.facts(names[-1]).get("rollbacks", []) if names else []
        except (ValueError, KeyError, FileNotFoundError):  # the one who loads it says that it is damaged
            return {"name": names[-1], "rollbacks": [], "error": None}
        records = self.folder.guard.read()
        told: list[dict[str, Any]] = next((r["rollbacks"] for r in reversed(records) if "rollbacks" in r), [])
        if len(told) > len(done) and moment_name(told[-1]["to"]) in names:  # none has been saved since
            return self._collapse(names, told, records) or self._go_back(told)
        return self._collapse(names, done, records) or {"name": None, "rollbacks": done, "error": None}

    def _collapse(
        self, names: list[str], done: list[dict[str, Any]], records: list[dict[str, Any]]
    ) -> dict[str, Any] | None:
        """What follows if the last record is of a collapse about which nothing has been done."""
        settings = self.settings
        last = records[-1] if records else {}
        if settings is None or settings.on_collapse == "warn" or last.get("verdict") != "collapsed":
            return None
        good = self._good(names, looks_of(self.folder.guard))[-1:]
        reason = "; ".join(reason for level, reason in last["findings"].values() if level == "collapsed")
        said = f"the training has collapsed at {last['kimg']:g} kimg ({reason})"
        where = self.checkpoints.storage.locate(good[0]) if good else "none"
        if settings.on_collapse == "stop":
            remedy = "--guard.on_collapse rollback goes back to it, warn goes on as it is"
        elif len(done) >= settings.max_rollbacks:
            remedy = f"guard.max_rollbacks (={settings.max_rollbacks}) times it was rolled back already"
        elif not good:
            remedy = "so it cannot be rolled back; a smaller cadences.checkpoint_kimg saves more often"
        else:
            return self._roll_back(done, last, _moment(good[0]), reason, settings)
        return {"name": None, "rollbacks": done, "error": f"{said}; last good checkpoint: {where}; {remedy}"}

    def _roll_back(
        self, done: list[dict[str, Any]], look: Look, to: int, reason: str, settings: GuardSettings
    ) -> dict[str, Any]:
        factor = settings.factor if settings.rollback == "slower" else 1.0
        rollback = {
            "at": look["images_seen"],
            "to": to,
            "reason": reason,
            "action": settings.rollback,
            "factor": factor,
        }
        rollbacks = [*done, rollback]
        self.folder.guard.append({"images_seen": to, "kimg": to / 1000, "rollbacks": rollbacks})
        how = "with other random numbers" if settings.rollback == "reseed" else f"with learning rates times {factor:g}"
        number = f"{len(rollbacks)} of at most {settings.max_rollbacks}"
        announce((), f"rollback {number}, {look['kimg']:g} to {to / 1000:g} kimg, {how}", [reason])
        return self._go_back(rollbacks)

    def _go_back(self, rollbacks: list[dict[str, Any]]) -> dict[str, Any]:
        to = rollbacks[-1]["to"]
        self.checkpoints.remove_after(moment_name(to))
        self.folder.remove_after(to)
        return {"name": moment_name(to), "rollbacks": rollbacks, "error": None}

    def _good(self, names: Sequence[str], looks: Sequence[Look]) -> list[str]:
        """Checkpoints of moments at which all was well."""
        assert self.settings is not None
        good = good_moments(list(looks), [_moment(name) for name in names], self.settings.patience)
        return [moment_name(moment) for moment in good]


def _moment(name: str) -> int:
    """The reverse of `moment_name`."""
    kimg, images = name.split(".")
    return int(kimg) * 1000 + int(images)
