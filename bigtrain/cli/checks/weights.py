"""The weights of the network that scores are measured with: there, or to be had."""

from __future__ import annotations

import urllib.error
import urllib.request
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from bigtrain.cli.checks.finding import Finding, error, ok
from bigtrain.cli.checks.plan import Plan
from bigtrain.cli.checks.sizes import shown

if TYPE_CHECKING:
    from bigtrain.evaluation.extractors.weights import Published


def weights(plan: Plan) -> list[Finding]:
    """Of the configured extractor, and whether it can measure what is asked for. Nothing is downloaded."""
    from bigtrain.callbacks.scoring import Scorer  # noqa: PLC0415 (torch)
    from bigtrain.callbacks.scoring_base import TRAINED, Measurement  # noqa: PLC0415
    from bigtrain.evaluation.extractors.named import PUBLISHED, check_name  # noqa: PLC0415
    from bigtrain.evaluation.table import check_metrics, expanded  # noqa: PLC0415
    from bigtrain.sampling.standing_stats import StandingStats  # noqa: PLC0415

    wanted = plan.evaluation
    if wanted is None:
        return [ok("none are needed (evaluation: null)")]
    check_metrics(expanded(wanted.metrics))
    generator = plan.game.generator_network
    if wanted.standing_stats is not None:
        StandingStats(wanted.standing_stats, []).check(generator)
    by = Measurement(wanted.extractor, wanted.weights, wanted.protocol)
    kind = by.kind
    check_name(kind, "auto", "classifier")
    if plan.reachable:  # otherwise another check tells why not
        Scorer(plan.shards, generator.resolution, by)
    named = kind if kind.endswith(TRAINED) else wanted.weights
    if named is not None:
        return [_named(kind, named)]
    if kind in PUBLISHED:
        return [_published(kind, PUBLISHED[kind])]
    if kind == "classifier":
        why = "" if wanted.extractor == kind else f"; Inception's are not at {PUBLISHED['inception'].path}"
        return [ok(f"the shards' own classifier needs none{why}")]
    return [ok(f"{kind} makes its own")]


def _named(kind: str, url: str) -> Finding:
    from bigtrain.sampling.outputs import place_of  # noqa: PLC0415

    storage, name = place_of(url)
    return ok(f"{kind}: {shown(storage.hasty(retries=1, seconds=5).size(name))} at {storage.locate(name)}")


def _published(kind: str, published: Published) -> Finding:
    """Here with the checksum that their name promises; else whether the server has them."""
    from bigtrain.evaluation.extractors.weights import load_weights  # noqa: PLC0415

    if published.path.is_file():
        loaded = load_weights(None, published)
        return ok(f"{kind}: {published.path}, SHA-256 {loaded.hash}…")
    host = urlsplit(published.url).hostname
    try:
        with urllib.request.urlopen(urllib.request.Request(published.url, method="HEAD"), timeout=10) as answer:
            size = int(answer.headers.get("Content-Length", 0))
    except OSError as problem:
        return error(
            f"{kind}: not here, and {host} cannot be asked ({getattr(problem, 'reason', problem)})",
            f"fetch {published.url} elsewhere and put it at {published.path}, or set evaluation.extractor",
        )
    return ok(f"{kind}: not here yet; {host} has them ({shown(size)})")
