"""Options as they are given: as Python values, in a URL, or in the environment."""

from __future__ import annotations

import math
import os
from typing import Any

import yarl

from mastra_storage import InvalidArgumentError
from mastra_storage_convex.client import Settings

_PAIRS = (
    ("CONVEX_URL", "CONVEX_DEPLOY_KEY"),
    ("CONVEX_SELF_HOSTED_URL", "CONVEX_SELF_HOSTED_ADMIN_KEY"),
)


def settings_of(url: str | None, key: str | None, *, timeout: Any = 30.0) -> Settings:
    """Where to call with which key; what is not given comes from the environment.

    A key of the environment is only taken together with its URL, or with the very same one.
    Raises `InvalidArgumentError` for what cannot be, and says what is missing.
    """
    given = None if url is None else checked_url(url)
    if given is not None and key is not None:
        return Settings(url=given, key=checked_key(key), timeout=_seconds(timeout))
    strangers: list[str] = []
    for url_name, key_name in _PAIRS:
        found_url, found_key = os.environ.get(url_name), os.environ.get(key_name)
        if key is None and not found_key:
            continue
        if given is not None and found_url and checked_url(found_url, url_name) != given:
            strangers.append(f"{key_name} is for {url_name}, which is another address")
            continue
        address = given or (found_url and checked_url(found_url, url_name))
        if address:
            chosen = checked_key(key or found_key or "")
            return Settings(url=address, key=chosen, timeout=_seconds(timeout))
    hint = f" ({'; '.join(strangers)})" if strangers else ""
    raise InvalidArgumentError(
        "give convex_url and deploy_key, or set CONVEX_URL and CONVEX_DEPLOY_KEY (of a "
        "self-hosted deployment CONVEX_SELF_HOSTED_URL and CONVEX_SELF_HOSTED_ADMIN_KEY); "
        f"{'the URL' if given is None else 'the key'} is missing{hint}",
        backend="convex",
    )


def checked_url(url: str, name: str = "convex_url") -> str:
    """The address of a deployment, without a slash at its end."""
    try:
        parsed = yarl.URL(url)
        parsed.origin()
        proper = parsed.scheme in ("http", "https") and not (parsed.user or parsed.password)
    except (ValueError, TypeError):
        proper = False
    if not proper or parsed.query_string or parsed.fragment:
        raise InvalidArgumentError(
            f"{name} must be an address like https://cheerful-lemur-123.convex.cloud or "
            "http://127.0.0.1:3210, without a query or a password",
            backend="convex",
        )
    if (parsed.host or "").endswith(".convex.site"):
        raise InvalidArgumentError(
            f"{name} is the address of HTTP actions; that of the deployment itself ends in "
            ".convex.cloud",
            backend="convex",
        )
    return str(parsed).rstrip("/")


def checked_key(key: str) -> str:
    """A key that can be sent in a header."""
    if not isinstance(key, str) or not key:
        raise InvalidArgumentError("deploy_key must be a text, and not empty", backend="convex")
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise InvalidArgumentError(
            "the deploy key holds blanks or characters that no key has; see how it was copied",
            backend="convex",
        )
    return key


def _seconds(value: Any) -> float:
    """How many seconds a call may take."""
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise InvalidArgumentError(
            "timeout must be a number of seconds, more than 0", backend="convex"
        )
    return seconds
