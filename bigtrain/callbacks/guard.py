"""guard.jsonl: a look now and then at whether the training collapses, and what is thought of it.

A look changes nothing: it reads weights, makes samples of the average, and draws no number that training uses. What is
thought of it follows from the looks before it, which are in the file: so it is the same in a run that was resumed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import torch
from lightning import Trainer
from torch import Tensor

from bigtrain import randomness
from bigtrain.callbacks.guard_signs import Finding, Level, Limits, Look, judge
from bigtrain.callbacks.loggers import RunLogger, log, loggers_of
from bigtrain.callbacks.periodic import Periodic
from bigtrain.callbacks.records import Records
from bigtrain.games import AdversarialGame, Game
from bigtrain.runtime.parallel import whole
from bigtrain.runtime.world import World
from bigtrain.sampling.generate import Sampler, cycled
from bigtrain.sampling.pixels import fade, to_float

SAMPLES, MOST_CLASSES, MOST_REAL = 64, 8, 256
ITERATIONS = 16


class Guard(Periodic):
    """Looks at each cadence; rank 0 judges. (Not at the end of a training besides: a longer one has no look there.)

    Args:
        kimg: the cadence.
        records: the file.
        scores: evaluation.jsonl.
        limits: of what is healthy.
        world: of the ranks.
        ends: whether a collapse ends the training here; what follows is decided by who reads the records.
        spectrum: how many singular values of each weight are recorded; the largest is what is judged.
    """

    def __init__(
        self,
        kimg: float,
        records: Records,
        scores: Records,
        limits: Limits,
        world: World,
        ends: bool = False,
        spectrum: int = 1,
    ) -> None:
        super().__init__(kimg)
        self.spectrum = spectrum
        self.records, self.scores, self.limits, self.world, self.ends = records, scores, limits, world, ends
        #: Whether the training was ended because of a collapse.
        self.ended = False
        #: All that have been judged; known to rank 0.
        self.looks: list[Look] = []

    def on_train_start(self, trainer: Trainer, game: Game) -> None:  # type: ignore[override]
        self.ended = False
        if self.world.is_first:
            self.looks = looks_of(self.records)
            _forget(self.looks, self.limits)

    def on_train_batch_end(self, trainer: Trainer, game: Game, outputs: Any, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        if self.cadence.due(game.moment.images_seen, game.clock.images_seen):
            self._batch = batch
            self.act(trainer, game)  # type: ignore[arg-type]

    def act(self, trainer: Trainer, game: AdversarialGame) -> None:  # type: ignore[override]
        look = self.look(game)
        if self.world.is_first:
            self._judge(trainer, look)
        said = self.world.tell("end" if self.ends and look.get("verdict") == "collapsed" else None)
        if said is not None:
            self.ended = trainer.should_stop = True

    def look(self, game: AdversarialGame) -> Look:
        """What is seen now. All ranks look together; rank 0 sees all of it."""
        measured = {n: v for n, v in game.measured.items() if n.startswith(("logit/", "grad_norm"))}
        means = self.world.means(list(measured.values())) if measured else []
        spectra = self._spectra(game)
        with game.whole_average():
            fake = self._diversity_of_samples(game) if self.world.is_first else None
        start = min(phase.start for phase in game.schedule.phases if phase.resolution == game.moment.resolution)
        return {
            "images_seen": game.clock.images_seen,
            "kimg": game.clock.kimg,
            "resolution": game.moment.resolution,
            "steps": (game.clock.images_seen - start) // game.moment.phase.images_per_step,
            **{name: _short(mean) for name, mean in zip(measured, means, strict=True)},
            "diversity": fake,
            "diversity/real": self._diversity_of_data(game) if self.world.is_first else None,
            "singular_values": {name: values[0] for name, values in spectra.items()},
            **({"spectra": spectra} if self.spectrum > 1 else {}),
        }

    def _spectra(self, game: AdversarialGame) -> dict[str, list[float]]:
        """The largest singular values of all weights that are trained now, by `player.name`; on rank 0."""
        found: dict[str, Tensor] = {}
        for player, owner in game.players.items():
            for name, parameter in owner.network.named_parameters():
                if parameter.ndim > 1 and parameter.requires_grad:
                    weight = whole(parameter.detach())
                    if self.world.is_first:
                        found[f"{player}.{name}"] = largest_singular_values(weight, self.spectrum)
        return {name: [_short(value) for value in values.tolist()] for name, values in found.items()}

    def _diversity_of_samples(self, game: AdversarialGame) -> float | None:
        """Of the same latents at each look, with at least eight of each label."""
        classes = game.generator_network.num_classes
        shown = range(0, max(1, classes), max(1, -(-classes // MOST_CLASSES)))
        place = game.place(game.moment, game.average)
        images, labels = Sampler(game.average, game.seed, cycled(shown), batch=SAMPLES, place=place)(range(SAMPLES))
        return diversity(to_float(images), labels)

    def _diversity_of_data(self, game: AdversarialGame) -> float | None:
        """Of this rank's part of the last batch, as the discriminator saw it; of all if too few are of one class."""
        images = fade(to_float(self._batch["images"][:MOST_REAL]), game.moment.alpha).cpu()
        labels, classes = self._batch["labels"][:MOST_REAL].cpu(), game.generator_network.num_classes
        by_class = classes and len(labels) ** 2 >= 32 * classes
        return diversity(images, labels if by_class else torch.zeros_like(labels))

    def _judge(self, trainer: Trainer, look: Look) -> None:
        before = self.looks[-1]["findings"] if self.looks else {}
        findings = judge([*self.looks, look], self.scores.read(), self.limits)
        verdict = max((finding.level for finding in findings), default=Level.OK)
        look["verdict"] = verdict.name.lower()
        look["findings"] = {finding.sign: [finding.level.name.lower(), finding.reason] for finding in findings}
        self.records.append(look)
        self.looks.append(look)
        _forget(self.looks, self.limits)
        log(trainer, look)
        new = [finding for finding in findings if _changed(finding, before)]
        if new:
            announce(
                loggers_of(trainer),
                f"{verdict.name.lower()} at {look['kimg']:g} kimg",
                [finding.reason for finding in new],
            )


def looks_of(records: Records) -> list[Look]:
    """The looks among the guard's records: it tells of rollbacks too."""
    return [record for record in records.read() if "verdict" in record]


def announce(loggers: Iterable[RunLogger], what: str, reasons: list[str]) -> None:
    """One line on stderr, and an alert by the loggers."""
    text = "; ".join(reasons)
    print(f"bigtrain: guard: {what}: {text}", file=sys.stderr, flush=True)
    for logger in loggers:
        logger.alert(f"bigtrain guard: {what}", text)


@torch.no_grad()
def largest_singular_values(weight: Tensor, count: int = 1) -> Tensor:
    """Of a weight as a matrix [outputs, the rest], in descending order: [count], or as many as there are.

    By orthogonal iteration: a few percent low at worst. It begins with the same vectors each time rather than with the
    last ones: so it is a function of the weight alone.
    """
    matrix = weight.detach().to(torch.float32).flatten(1)
    v = _beginning(matrix.shape[1], min(count, *matrix.shape)).to(matrix)  # [the rest, count]
    for _ in range(ITERATIONS):
        v = torch.linalg.qr(matrix.T @ torch.linalg.qr(matrix @ v).Q).Q
    return torch.linalg.svdvals(matrix @ v)


@lru_cache(maxsize=256)
def _beginning(size: int, count: int) -> Tensor:
    return torch.from_numpy(randomness.normal(0, "guard", range(count), size)).T


def diversity(images: Tensor, labels: Tensor) -> float | None:
    """The root of the mean variance of a pixel within a class; None if no class has two images.

    (Squared and doubled, it is the mean squared distance of two images of one class, over the pixels.)
    """
    flat = images.detach().to(torch.float32).flatten(1)  # [n, pixels]
    classes, index = labels.unique(return_inverse=True)
    if len(flat) == len(classes):
        return None
    sums = torch.zeros(len(classes), flat.shape[1]).index_add_(0, index, flat)
    means = sums / torch.bincount(index)[:, None]
    squares = (flat - means[index]).square().mean(dim=1).sum()
    return _short(float((squares / (len(flat) - len(classes))).sqrt()))


def _short(value: float) -> float:
    """As it is recorded: what is judged after a resume must be the same number."""
    return float(f"{value:.6g}")


def _forget(looks: list[Look], limits: Limits) -> None:
    """Of the older looks, what is many numbers and is not needed any more."""
    for look in looks[: -limits.window - limits.patience]:
        look["singular_values"] = {}
        look.pop("spectra", None)


def _changed(finding: Finding, before: dict[str, list[str]]) -> bool:
    return before.get(finding.sign, [""])[0] != finding.level.name.lower()
