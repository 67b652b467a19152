"""Opens obstore's stores: credentials are found here, before a request is made without them."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from obstore.store import LocalStore, ObjectStore, from_url

from bigtrain.storage.options import StorageOptions, scheme_of

if TYPE_CHECKING:
    from obstore.store import S3Credential

#: By scheme: where the credentials come from, for messages.
REMEDIES = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN if they are temporary), or AWS_PROFILE",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT_KEY",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY (or AZURE_STORAGE_SAS_TOKEN)",
}
#: Of these obstore makes AWS credentials by itself, without the machine's metadata service.
_AWS_SOURCES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_METADATA_ENDPOINT",
)
#: Credentials are asked for again after this: boto3 renews those that have less than 15 minutes left.
_KEYS_HOLD = timedelta(minutes=5)


def open_store(url: str, options: StorageOptions) -> ObjectStore:
    """The object store of a URL. No request is made.

    Raises:
        PermissionError: if an S3 store needs credentials and there can be none.
    """
    scheme = scheme_of(url)
    if scheme == "file":
        return LocalStore(prefix=Path(url).absolute(), automatic_cleanup=True)
    given: dict[str, Any] = {"client_options": options.client(scheme), "retry_config": options.retry()}
    if not scheme.startswith("http"):
        given["config"] = options.config(scheme)
    if scheme == "s3" and not _anonymous(options):
        region, provider = _aws_credentials(url, options)
        if provider is not None:
            given["credential_provider"] = provider
        if region and not options.region and not _set("AWS_REGION", "AWS_DEFAULT_REGION"):
            given["config"]["region"] = region
    return from_url(url, **given)


def _set(*variables: str) -> bool:
    return any(os.environ.get(name) for name in variables)


def _anonymous(options: StorageOptions) -> bool:
    return options.anonymous or os.environ.get("AWS_SKIP_SIGNATURE", "").lower() in ("1", "true", "yes")


def _aws_credentials(url: str, options: StorageOptions) -> tuple[str | None, Callable[[], S3Credential] | None]:
    """The region of a profile and its credentials; None for those that obstore finds by itself.

    AWS's own order: the keys of the environment, then a profile, then what runs around this process.
    """
    if _set(*_AWS_SOURCES):
        return None, None
    profile = os.environ.get("AWS_PROFILE")
    if profile or any(path.is_file() for path in _aws_files()):
        try:
            return _of_profile(url, profile)
        except ModuleNotFoundError:
            if profile:
                raise PermissionError(
                    f"{url}: AWS_PROFILE is {profile!r}, and reading profiles needs boto3: "
                    f"pip install 'bigtrain[aws]', or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
                ) from None
    if options.endpoint_of("s3") or not _on_cloud():
        raise PermissionError(f"{url}: no credentials: set {REMEDIES['s3']}; `anonymous` reads public buckets without")
    return None, None


def _aws_files() -> list[Path]:
    named = {"AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials", "AWS_CONFIG_FILE": "~/.aws/config"}
    return [Path(os.environ.get(name) or path).expanduser() for name, path in named.items()]


def _of_profile(url: str, profile: str | None) -> tuple[str | None, Callable[[], S3Credential]]:
    """What boto3 finds. obstore's own provider for it does not import on Python 3.10."""
    import boto3  # noqa: PLC0415 - half a second, which only profiles are worth
    from botocore.exceptions import ProfileNotFound  # noqa: PLC0415

    try:
        session = boto3.Session()
        credentials = session.get_credentials()
    except ProfileNotFound:
        files = " and ".join(str(path) for path in _aws_files())
        raise PermissionError(f"{url}: AWS_PROFILE is {profile!r}, which is not in {files}") from None
    if credentials is None:
        where = f"profile {profile or 'default'!r} has none" if profile else "none in ~/.aws"
        raise PermissionError(f"{url}: no credentials: {where}; set {REMEDIES['s3']}")

    def current() -> S3Credential:
        frozen = credentials.get_frozen_credentials()  # refreshed by boto3 if they are about to end
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.now(timezone.utc) + _KEYS_HOLD,
        }

    return session.region_name, current


def _on_cloud() -> bool:
    """Whether a metadata service answers, which may have credentials. Asking it in vain takes obstore minutes."""
    if os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
        return False
    with suppress(OSError), socket.create_connection(("169.254.169.254", 80), timeout=1):
        return True
    return False
