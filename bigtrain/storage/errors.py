"""One line for each way in which a store fails: what was asked of whom, and what to do about it."""

from __future__ import annotations

import re
from typing import NamedTuple

import obstore

from bigtrain.storage.stores import REMEDIES

#: What obstore raises for a request: its own errors, Python's for what is missing, and ValueError for a bad key.
FAILURES = (obstore.exceptions.BaseError, OSError, ValueError)
_WRONG_KEYS = {
    *("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken", "TokenRefreshRequired"),
    *("AuthenticationFailed", "InvalidAuthenticationInfo", "RequestTimeTooSkewed", "InvalidSecurity"),
}
_NO_BUCKET = {"NoSuchBucket", "ContainerNotFound", "InvalidBucketName"}
_WRONG_REGION = {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}
#: What the details of an error of transport have in them, and what that means.
_REASONS = (
    ("dns error", "its host is unknown"),
    ("ConnectionRefused", "it refuses connections"),
    ("certificate", "its certificate is not valid here"),
    ("kind: Timeout", "it did not answer in full within timeout_seconds (={timeout:g})"),
    ("TimedOut", "it did not answer in full within timeout_seconds (={timeout:g})"),
    ("kind: Connect,", "no connection can be made"),
    ("ConnectionReset", "it reset the connection"),
    ("", "the connection was cut"),
)


class ChangedError(OSError):
    """An object is not the one that was asked for: it was replaced meanwhile."""


class TruncatedError(OSError):
    """An object, or an answer with it, ends before the bytes that were asked for."""


class TransportError(ConnectionError):
    """A store cannot be reached, stalls, breaks off or fails by itself: the same request may succeed later."""


class ForkedError(OSError, RuntimeError):
    """A store is used in a forked child, in which it would hang."""


class Place(NamedTuple):
    """What an error is about.

    Args:
        name: of the object, for messages.
        url: of the storage, without secrets.
        scheme: of the URL.
        endpoint: that was asked; None for the cloud's own.
        timeout: seconds that a request may take.
    """

    name: str
    url: str
    scheme: str
    endpoint: str | None
    timeout: float

    @property
    def bucket(self) -> str:
        return self.url.split("://")[-1].split("/")[0]


def clear_error(error: Exception, place: Place) -> OSError | ValueError:
    """The error to raise instead of obstore's, whose text is long and quotes the server, signatures included."""
    if isinstance(error, (ChangedError, TruncatedError, TransportError)):
        return error
    text = str(error)
    found, status = re.search(r"<Code>(\w+)</Code>|\(code: (\w+)\)", text), re.search(r"status code: (\d{3})", text)
    code, number = (found[1] or found[2]) if found else "", int(status[1]) if status else 0
    return (
        _missing(error, code, number, place)
        or _changed_or_elsewhere(error, text, code, place)
        or _refused(error, text, code, number, place)
        or _broken(text, number, place)
        or _other(error, text, code, place)
    )


def _missing(error: Exception, code: str, number: int, place: Place) -> OSError | None:
    """For a bucket or an object that is not there."""
    if code in _NO_BUCKET:
        at = f" at {place.endpoint}" if place.endpoint else ""
        return FileNotFoundError(f"{place.name}: there is no bucket {place.bucket!r}{at}: check its name")
    if isinstance(error, FileNotFoundError) or number == 404:
        return FileNotFoundError(f"{place.name}: not found")
    return None


def _keys(place: Place) -> str:
    return REMEDIES.get(place.scheme, "credentials")


def _changed_or_elsewhere(error: Exception, text: str, code: str, place: Place) -> OSError | None:
    """For an object that is another by now, and a bucket in another region."""
    if isinstance(error, obstore.exceptions.PreconditionError):
        return ChangedError(f"{place.name}: has changed since it was listed")
    if code not in _WRONG_REGION and "LOCATION" not in text:
        return None
    right = re.search(r"<Region>([\w-]+)</Region>|expecting '([\w-]+)'", text)
    other = f": it is in {right[1] or right[2]}" if right else ""
    return OSError(
        f"{place.name}: bucket {place.bucket!r} is not in the region that was asked{other}; "
        f"set `region` in the options, or AWS_REGION"
    )


def _refused(error: Exception, text: str, code: str, number: int, place: Place) -> OSError | None:
    """For credentials that are wrong, missing or may not do this."""
    if "169.254.169.254" in text or "token request" in text:  # obstore found none, and asked the machine for them
        return PermissionError(f"{place.name}: no credentials: set {_keys(place)}")
    denied = (obstore.exceptions.PermissionDeniedError, obstore.exceptions.UnauthenticatedError, PermissionError)
    if not (isinstance(error, denied) or number in (401, 403) or code in _WRONG_KEYS | {"AccessDenied"}):
        return None
    if place.scheme == "file":
        return PermissionError(f"{place.name}: this user may not do that to this file or folder")
    said = f" ({code})" if code else ""
    if place.scheme.startswith("http"):
        return PermissionError(f"{place.name}: the server refuses it{said}")
    if code in _WRONG_KEYS:
        return PermissionError(f"{place.name}: the credentials are wrong or have ended{said}: check {_keys(place)}")
    return PermissionError(
        f"{place.name}: no permission for this object of bucket {place.bucket!r}{said}: "
        f"ask for it, or use other credentials: {_keys(place)}"
    )


def _broken(text: str, number: int, place: Place) -> OSError | None:
    """For what may go better another time: an error of the server's, or of the way to it."""
    asked = re.search(r"performing [A-Z]+ (\w+://)(?:[^/@\s]*@)?([^/\s]+)", text)
    who = "".join(asked.groups()) if asked else place.endpoint or f"the store of {place.url}"
    if number in (408, 429, 500, 502, 503, 504):
        return TransportError(f"{place.name}: {who} answers {number}, however often it is asked")
    if number:  # an answer to the request: the way to the server is in order
        return None
    if "HTTP error" not in text and "HttpError" not in text:
        return None
    reason = next(reason for sign, reason in _REASONS if sign in text).format(timeout=place.timeout)
    unreachable = ": check the endpoint and the network" if "kind: Connect," in text else ""
    return TransportError(f"{place.name}: {who} fails: {reason}{unreachable}")


def _other(error: Exception, text: str, code: str, place: Place) -> OSError | ValueError:
    if "416" in text or "StartTooLarge" in text:
        return TruncatedError(f"{place.name}: ends before the bytes that were asked for")
    if "Account must be specified" in text:
        return PermissionError(f"{place.name}: no account: set {_keys(place)}")
    line = re.sub(r"<.*|\?\S*", "", text.partition("\n")[0])  # no query
    line = re.sub(r"(status code: \d{3}[^:]*):.*", r"\1", line)  # none of what the server says: it may quote secrets
    said = f"{line.strip()[:200]}{f' ({code})' if code else ''}"
    if isinstance(error, OSError):
        return error if "\n" not in text and place.name in text else OSError(f"{place.name}: {said}")
    return (ValueError if isinstance(error, ValueError) else OSError)(f"{place.name}: {said}")
