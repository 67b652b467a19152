"""The storage of the data: whether it may be read, how fast, whether it may be written, and what time it has."""

from __future__ import annotations

import itertools
import os
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from bigtrain.cli.checks.finding import Finding, error, ok, warning
from bigtrain.cli.checks.plan import Plan
from bigtrain.cli.checks.sizes import MIB, shown

if TYPE_CHECKING:
    from bigtrain.data.manifest import Manifest
    from bigtrain.storage import Storage

MOST, PART, AT_ONCE, SECONDS = 64 * MIB, 4 * MIB, 4, 5.0
#: Bytes a second below which there is a warning, if so much was read that it can be said.
SLOW, ENOUGH = 10e6, 8 * MIB
#: Seconds between this clock and the store's: requests are refused after 15 minutes.
SKEW, REFUSED = 30.0, 300.0
_CLOUDS = {"s3": "https://s3.amazonaws.com", "gs": "https://storage.googleapis.com"}


def storage(plan: Plan) -> list[Finding]:
    """Each set of shards: listed, and read for a few seconds."""
    listed = [_list(where) for where in plan.storages]  # first, as it tells a missing bucket from a missing manifest
    parts = zip(plan.storages, plan.shards.manifests, listed, strict=True)
    return [_read(where, manifest, how) for where, manifest, how in parts]


def _list(where: Storage) -> str:
    """How the report calls it; web servers have no lists."""
    if where.url.startswith(("http://", "https://")):
        return ""
    next(where.list("evaluation"), None)
    return "listed, "


def _read(where: Storage, manifest: Manifest, listed: str) -> Finding:
    parts, count, begun = _parts(where, manifest), 0, time.perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for first in range(0, len(parts), AT_ONCE):
            some = parts[first : first + AT_ONCE]
            count += sum(map(len, pool.map(lambda part: part.storage.read_range(*part[1:]), some)))
            if time.perf_counter() - begun > SECONDS:
                break
    rate = count / (time.perf_counter() - begun)
    said = f"{where.locate('')[:-1]}: {listed}{shown(count)} read at {rate / 1e6:.3g} MB/s"
    if rate < SLOW and count >= ENOUGH:
        return warning(f"{said}: slow", "train near the data, or copy it; see data_wait_share in throughput.jsonl")
    return ok(said)


class _Part(NamedTuple):
    """Bytes of a shard."""

    storage: Storage
    key: str
    start: int
    length: int


def _parts(where: Storage, manifest: Manifest) -> list[_Part]:
    """The largest shards, in parts."""
    from bigtrain.data.shard_set import ShardSet  # noqa: PLC0415

    found, resolution = ShardSet([(where, manifest)], where.options), max(manifest.resolutions, default=1)
    places = sorted(
        (found.locate(resolution, shard) for shard in range(len(found.shard_samples))),
        key=lambda place: -place.info.bytes,
    )
    parts = (
        _Part(place.storage, place.key, start, min(PART, place.info.bytes - start))
        for place in places
        for start in range(0, place.info.bytes, PART)
    )
    return list(itertools.islice(parts, MOST // PART))


def kept(plan: Plan) -> list[Finding]:
    """Beside the first set of shards, where scores keep what was measured of them: an object is written and removed."""
    if plan.evaluation is None:
        return [ok("nothing is to be written (evaluation: null)")]
    where, key, content = plan.shards.storages[0], "evaluation/doctor", b"bigtrain doctor"
    try:
        where.write(key, content)
        right = where.read(key) == content
    except OSError as problem:
        return [
            warning(
                str(problem),
                "with permission to write evaluation/, classifier and statistics are made once, not for each run",
            )
        ]
    try:
        where.delete([key])
    except OSError as problem:
        return [warning(f"written and read, but not removed: {problem}", "nothing that scores need; delete it by hand")]
    if not right:
        return [error(f"{where.locate(key)} was not what had been written", "look for a cache or proxy on the way")]
    return [ok(f"{where.locate('evaluation')}: written, read and removed")]


def clock(plan: Plan) -> list[Finding]:
    """Against the Date of the store's answer to a request without credentials."""
    asked = {address: None for one in plan.storages if (address := _address(one))}
    return [_skew(address) for address in asked] or [ok("there is no object store to compare it with")]


def _address(where: Storage) -> str | None:
    """Of the server that a storage asks; None for a folder, or if that cannot be told."""
    scheme = "file" if where.is_local else where.url.partition("://")[0]
    if scheme.startswith("http"):
        return "{0.scheme}://{0.hostname}{1}".format(urlsplit(where.url), _port(where.url))
    account = os.environ.get("AZURE_STORAGE_ACCOUNT_NAME")
    if scheme == "az" and account and not where.options.endpoint_of("az"):
        return f"https://{account}.blob.core.windows.net"
    return where.options.endpoint_of(scheme) or _CLOUDS.get(scheme)


def _port(url: str) -> str:
    return f":{urlsplit(url).port}" if urlsplit(url).port else ""


def _skew(address: str) -> Finding:
    before = time.time()
    try:
        with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=10) as answer:
            headers = answer.headers
    except urllib.error.HTTPError as refusal:  # (which has a Date too)
        headers = refusal.headers
    host, date = urlsplit(address).hostname, headers.get("Date")
    if date is None:
        return ok(f"{host} does not say what time it has")
    ahead = (before + time.time()) / 2 - 0.5 - parsedate_to_datetime(date).timestamp()  # (it has whole seconds)
    said = f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} {host}"
    if abs(ahead) > SKEW:
        found = error if abs(ahead) > REFUSED else warning
        return found(said, "let this machine keep time by NTP (chrony): stores refuse what is signed 15 minutes off")
    return ok(said)
