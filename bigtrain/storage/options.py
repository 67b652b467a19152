"""Which URLs are stores, and how they are spoken to: endpoint, region, timeouts and retries."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

#: Schemes of stores that can be written and listed, and of all.
BUCKETS = ("s3", "gs", "az")
REMOTE_SCHEMES = (*BUCKETS, "https", "http")
#: By scheme: what obstore calls the endpoint, and the variables that name it.
_ENDPOINTS = {
    "s3": ("endpoint", ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")),
    "gs": ("base_url", ("GOOGLE_BASE_URL",)),
    "az": ("endpoint", ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT")),
}


def is_remote(url: str) -> bool:
    """Whether the URL names an object store rather than a path on this machine."""
    return "://" in url and not url.startswith("file://")


def scheme_of(url: str) -> str:
    """The scheme of a URL; `file` for a path.

    Raises:
        ValueError: if it is none that can be read, or nothing follows it.
    """
    if not is_remote(url):
        return "file"
    scheme, _, rest = url.partition("://")
    if scheme not in REMOTE_SCHEMES:
        raise ValueError(f"URL {url!r}: scheme {scheme!r} is unknown; a path or {REMOTE_SCHEMES} is valid")
    if not rest.strip("/"):
        raise ValueError(f"URL {url!r} names no {'host' if scheme.startswith('http') else 'bucket'}")
    return scheme


@dataclass(frozen=True)
class StorageOptions:
    """How a remote store is spoken to. Secrets are no options: they come from the environment.

    Args:
        endpoint: of a store that is not the cloud's own, such as `http://localhost:9000`; by default the
            environment's (`AWS_ENDPOINT_URL`, `GOOGLE_BASE_URL`, `AZURE_ENDPOINT`). Its buckets are parts of the path.
        region: of an S3 bucket; by default the environment's (`AWS_REGION`, `AWS_DEFAULT_REGION`), or us-east-1.
        anonymous: whether requests are sent without credentials, as public buckets need.
        timeout_seconds: a request that takes longer is broken off; what came of the body is kept.
        connect_seconds: the same for making the connection.
        retries: how often a request is repeated that fails in transport, or by an error of the server's own.
        retry_seconds: after which no request is repeated any more.
    """

    endpoint: str | None = None
    region: str | None = None
    anonymous: bool = False
    timeout_seconds: float = 30
    connect_seconds: float = 5
    retries: int = 10
    retry_seconds: float = 180

    def __post_init__(self) -> None:
        for name in ("timeout_seconds", "connect_seconds"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} (={getattr(self, name)}) must be more than 0: without it a stall hangs")
        for name in ("retries", "retry_seconds"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} (={getattr(self, name)}) must be 0 or more")
        if self.endpoint is not None and not self.endpoint.startswith(("http://", "https://")):
            raise ValueError(f"endpoint (={self.endpoint!r}) must start with http:// or https://")

    def hasty(self, retries: int, seconds: float) -> StorageOptions:
        """The same with less patience: at most so many repeats, and none after so many seconds."""
        return replace(self, retries=min(retries, self.retries), retry_seconds=min(seconds, self.retry_seconds))

    def endpoint_of(self, scheme: str, environ: Mapping[str, str] = os.environ) -> str | None:
        """The endpoint of a store of this scheme; None for the cloud's own."""
        _, variables = _ENDPOINTS.get(scheme, ("", ()))
        return self.endpoint or next((environ[name] for name in variables if environ.get(name)), None)

    def config(self, scheme: str) -> dict[str, str | bool]:
        """These options by obstore's names; what is not given, obstore takes from the environment."""
        config: dict[str, str | bool] = {}
        if scheme in _ENDPOINTS and self.endpoint:
            config[_ENDPOINTS[scheme][0]] = self.endpoint.rstrip("/")
        if scheme == "s3" and self.endpoint:
            config["virtual_hosted_style_request"] = False
        if scheme == "s3" and self.region:
            config["region"] = self.region
        if scheme in _ENDPOINTS and self.anonymous:
            config["skip_signature"] = True
        return config

    def client(self, scheme: str) -> ClientConfig:
        """Timeouts of each request; unencrypted connections only to where the URL or the endpoint says so."""
        endpoint = self.endpoint_of(scheme) or ""
        return {
            "timeout": timedelta(seconds=self.timeout_seconds),
            "connect_timeout": timedelta(seconds=self.connect_seconds),
            "allow_http": scheme == "http" or endpoint.startswith("http://") or _emulated(scheme),
        }

    def retry(self) -> RetryConfig:
        """Repeats with growing random pauses, shorter ones if there is little time for all of them.

        A pause is drawn from 0.5 seconds to 4 times the last one, at most 15: with 10 repeats, and the 10 of our own
        fresh attempt, they outlast a server's restart of 50 seconds in all but one of a thousand cases (simulated).
        """
        first, longest = min(0.5, self.retry_seconds / 40), min(15.0, self.retry_seconds / 4)
        return {
            "max_retries": self.retries,
            "retry_timeout": timedelta(seconds=self.retry_seconds),
            "backoff": {
                "init_backoff": timedelta(seconds=first),
                "max_backoff": timedelta(seconds=longest),
                "base": 4,
            },
        }


def _emulated(scheme: str) -> bool:
    """Whether the environment says that Azure is Azurite, which has no certificate."""
    return scheme == "az" and os.environ.get("AZURE_STORAGE_USE_EMULATOR", "").lower() in ("1", "true", "yes")
