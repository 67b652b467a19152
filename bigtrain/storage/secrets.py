"""Keeps secrets out of what is written and shown: passwords and signatures in URLs, and values of the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

#: What a variable that holds a secret is called; one of paths or identities is not.
_SECRET = re.compile(r"SECRET|PASSW|(TOKEN|KEY)$", re.IGNORECASE)
#: Shorter values are found by chance.
_SHORTEST = 8
HIDDEN = "***"


def without_secrets(url: str) -> str:
    """A URL for messages: without user, password and query."""
    return re.sub(r"(?<=://)[^/@]*@|\?.*", "", url)


def redacted(value: Any, environ: Mapping[str, str] = os.environ) -> Any:
    """Plain data without passwords and signatures of URLs, and without the secrets of the environment.

    A user's name in a URL stays, as in `abfss://container@account`: it is not secret, and says what the URL is of.

    Args:
        value: text, or any nesting of lists and dicts with texts; other values are left as they are.
        environ: the environment.
    """
    secrets = sorted((v for k, v in environ.items() if _SECRET.search(k) and len(v) >= _SHORTEST), key=len)
    return _redacted(value, secrets[::-1])


def _redacted(value: Any, secrets: list[str]) -> Any:
    if isinstance(value, dict):
        return {_redacted(key, secrets): _redacted(part, secrets) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_redacted(part, secrets) for part in value)
    if not isinstance(value, str):
        return value
    value = re.sub(r"(?<=://)[^/\s:@]*:[^/\s]*@", f"{HIDDEN}@", value)
    value = re.sub(r"(://[^\s?]*)\?[^\s'\"]*=[^\s'\"]*", rf"\1?{HIDDEN}", value)
    for secret in secrets:
        value = value.replace(secret, HIDDEN)
    return value
