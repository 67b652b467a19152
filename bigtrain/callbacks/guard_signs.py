"""The signs of a collapse: pure functions from what the guard has seen so far to what is to be thought of it.

A sign is judged by the run's own past at the same resolution, never by an absolute figure: what is healthy differs by
orders of magnitude from one architecture and objective to another. A single look may be off, so a sign must hold in
`patience` looks in a row. Their own past are the `window` looks before these.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import chain
from statistics import median
from typing import Any

Look = dict[str, Any]
Pair = tuple[float, float]
LEAST_PAST = 5


class Level(IntEnum):
    """How bad it is."""

    OK = 0
    WARN = 1
    COLLAPSED = 2


@dataclass(frozen=True)
class Finding:
    """That a sign stands badly, and why one thinks so."""

    sign: str
    level: Level
    reason: str


@dataclass(frozen=True)
class Limits:
    """When a sign warns, and when it says that the training has collapsed: pairs of factors; null to ignore the sign.

    Args:
        settle_looks: looks at each resolution that are not judged, nor are what others are judged by.
        settle_steps: steps at each resolution before which likewise nothing is judged.
        window: looks whose median is a sign's own past.
        patience: looks in a row in which a sign must hold.
        singular_values: a weight's largest singular value over its past. (What an optimizer with steps of bounded
            length does to a weight is at most linear in time: at these looks, a factor of 1.65 over the past's median.)
        logits: the distance between the means of the discriminator's outputs on real and fake, over its past or 1.
        gradients: a player's gradient norm over its past.
        silence: the same distance or gradient norm, as a part of its past.
        diversity: of fixed samples of the averaged generator, as a part of its best, or of the real images' where its
            best was more.
        fid: the newest FID over the best one before it.
    """

    settle_looks: int = 10
    settle_steps: int = 1000
    window: int = 20
    patience: int = 3
    singular_values: Pair | None = (2.0, 4.0)
    logits: Pair | None = (4.0, 10.0)
    gradients: Pair | None = (10.0, 100.0)
    silence: Pair | None = (1e-2, 1e-3)
    diversity: Pair | None = (0.4, 0.2)
    fid: Pair | None = (2.0, 4.0)

    def __post_init__(self) -> None:
        for name, least in (("settle_looks", 0), ("settle_steps", 0), ("window", 1), ("patience", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"guard.{name} (={getattr(self, name)}) must be at least {least}")
        for name in ("singular_values", "logits", "gradients", "fid"):
            pair = getattr(self, name)
            if pair is not None and not 1 < pair[0] <= pair[1]:
                raise ValueError(f"guard.{name} (={list(pair)}) must be two factors greater than 1, the larger last")
        for name in ("silence", "diversity"):
            pair = getattr(self, name)
            if pair is not None and not 1 > pair[0] >= pair[1] >= 0:
                raise ValueError(f"guard.{name} (={list(pair)}) must be two factors less than 1, the smaller last")


def judge(looks: Sequence[Look], scores: Sequence[dict[str, Any]], limits: Limits) -> list[Finding]:
    """What is to be thought of the newest look.

    Args:
        looks: all so far, the newest last.
        scores: the records of evaluation.jsonl so far.
        limits: of what is healthy.
    """
    known = settled(looks, limits)
    return list(
        chain(
            _singular_values(known, limits),
            _logits(known, limits),
            _gradients(known, limits),
            _diversity(looks, limits),
            _fid(scores, limits),
        )
    )


def settled(looks: Sequence[Look], limits: Limits) -> list[Look]:
    """The looks at the resolution of the newest one that count."""
    here = [look for look in looks if _same_place(look, looks[-1])]
    return [look for look in here[limits.settle_looks :] if look["steps"] >= limits.settle_steps]


def past_and_now(values: Sequence[float], limits: Limits) -> tuple[float, list[float]] | None:
    """The median of a sign's past, and its last `patience` values; None while there is too little past."""
    past = values[: -limits.patience][-limits.window :]
    if len(past) < min(LEAST_PAST, limits.window):
        return None
    return median(past), list(values[-limits.patience :])


def above(ratios: Sequence[float], pair: Pair | None) -> Level:
    """Of ratios that should not be large: all of them must be."""
    if pair is None:
        return Level.OK
    return Level(sum(min(ratios) >= limit for limit in pair))


def below(ratios: Sequence[float], pair: Pair | None) -> Level:
    """Of ratios that should not be small: all of them must be."""
    if pair is None:
        return Level.OK
    return Level(sum(max(ratios) <= limit for limit in pair))


def _singular_values(looks: Sequence[Look], limits: Limits) -> Iterator[Finding]:
    """BigGAN (arXiv 1809.11096, section 4.1): those of some of the generator's layers explode as it collapses."""
    recent = [look["singular_values"] for look in looks[-limits.window - limits.patience :]]
    rises: dict[str, list[tuple[float, str, list[float]]]] = {}
    for name in recent[-1] if recent else ():
        known = past_and_now([values[name] for values in recent if name in values], limits)
        if known is not None:
            rises.setdefault(name.partition(".")[0], []).append((known[0], name, known[1]))
    for player, layers in rises.items():
        least = 0.1 * median(past for past, _, _ in layers)  # layers that were begun with zeros may well grow
        found = [(min(now) / max(past, least, 1e-12), name, now[-1]) for past, name, now in layers]
        worst, name, value = max(found)
        level = above([worst], limits.singular_values)
        if level:
            yield Finding(
                f"singular_values/{player}",
                level,
                f"the largest singular value of {name} is {value:.4g}, over {worst:.3g} times its past",
            )


def _logits(looks: Sequence[Look], limits: Limits) -> Iterator[Finding]:
    gaps = [abs(look["logit/real"] - look["logit/fake"]) for look in looks if "logit/real" in look]
    what = "the distance of the discriminator's outputs on real and fake"
    yield from _rise_or_silence("logits", what, gaps, 1.0, limits.logits, limits)


def _gradients(looks: Sequence[Look], limits: Limits) -> Iterator[Finding]:
    for name in sorted(name for name in (looks[-1] if looks else ()) if name.startswith("grad_norm")):
        norms = [look[name] for look in looks if name in look]
        yield from _rise_or_silence(name, name, norms, 0.0, limits.gradients, limits)


def _rise_or_silence(
    sign: str, what: str, values: Sequence[float], least: float, rise: Pair | None, limits: Limits
) -> Iterator[Finding]:
    known = past_and_now(values, limits)
    if known is None or known[0] <= 0:
        return
    past, now = known
    for level in (above([x / max(past, least) for x in now], rise), below([x / past for x in now], limits.silence)):
        if level:
            yield Finding(sign, level, f"{what} is {now[-1]:.4g}, in its past {past:.4g}")


def _diversity(looks: Sequence[Look], limits: Limits) -> Iterator[Finding]:
    """As a part of the real images' it is compared across resolutions: a generator may collapse while it grows."""
    values = []
    for i in range(limits.settle_looks, len(looks)):
        here = [look for look in looks[max(0, i - limits.window + 1) : i + 1] if _same_place(look, looks[i])]
        real = [look["diversity/real"] for look in here if look["diversity/real"]]
        young = _same_place(looks[i], looks[0]) and looks[i]["steps"] < limits.settle_steps
        if real and looks[i]["diversity"] is not None and not young:
            values.append(looks[i]["diversity"] / median(real))
    if past_and_now(values, limits) is None:
        return
    past, now = values[: -limits.patience], values[-limits.patience :]
    best = max(median(past[i : i + limits.patience]) for i in range(max(1, len(past) - limits.patience + 1)))
    level = below([value / max(min(1.0, best), 1e-12) for value in now], limits.diversity)
    if level:
        what = "the diversity of fixed samples, as a part of the real images'"
        yield Finding("diversity", level, f"{what}, is {now[-1]:.3g}, at its best {best:.3g}")


def _same_place(look: Look, other: Look) -> bool:
    return look["resolution"] == other["resolution"]


def _fid(scores: Sequence[dict[str, Any]], limits: Limits) -> Iterator[Finding]:
    """The newest one counts until the next; it is compared with those that were measured in the same way."""
    fids = [score for score in scores if score["metric"].startswith("fid")]
    how = [[score.get(name) for name in ("metric", "truncation", "protocol")] for score in fids]
    values = [score["value"] for score, same in zip(fids, how, strict=True) if same == how[-1]]
    if len(values) < 2:
        return
    best = min(values[:-1])
    level = above([values[-1] / max(best, 1e-12)], limits.fid)
    if level:
        yield Finding("fid", level, f"{fids[-1]['metric']} is {values[-1]:.4g}, at its best {best:.4g}")


def good_moments(looks: Sequence[Look], moments: Sequence[int], patience: int) -> list[int]:
    """The moments at which the guard found nothing, nor did in the `patience` looks that followed.

    A sign is found only when it has held for so many looks: what was saved meanwhile may be of a collapse already.
    """
    verdicts = [(look["images_seen"], look["verdict"] == "ok") for look in looks]
    good = []
    for moment in moments:
        after = [ok for at, ok in verdicts if at > moment]
        before = [ok for at, ok in verdicts if at <= moment][-1:]
        if all(before) and len(after) >= patience and all(after[:patience]):
            good.append(moment)
    return good
