"""Options as they are given: as Python values, in a URL, or in the environment."""

from __future__ import annotations

import math
import os
from typing import Any
from urllib.parse import urlsplit

import yarl

from mastra_storage import InvalidArgumentError
from mastra_storage_convex.client import Settings

_PAIRS = (
    ("CONVEX_URL", "CONVEX_DEPLOY_KEY"),
    ("CONVEX_SELF_HOSTED_URL", "CONVEX_SELF_HOSTED_ADMIN_KEY"),
)

_SCHEMES = {"convex": "https", "convex+http": "http"}


def settings_of(
    url: str | None,
    key: str | None,
    *,
    timeout: Any = 30.0,
    names: tuple[str, str] = ("convex_url", "deploy_key"),
) -> Settings:
    """Where to call with which key; what is not given comes from the environment.

    A key of the environment is only taken together with its URL, or with the very same one.
    `names` is what URL and key are called where they can be given. Raises
    `InvalidArgumentError` for what cannot be, and says what is missing.
    """
    given = None if url is None else checked_url(url, names[0])
    if given is not None and key is not None:
        return Settings(url=given, key=checked_key(key, names[1]), timeout=_seconds(timeout))
    for url_name, key_name in _PAIRS:
        found_url, found_key = os.environ.get(url_name), os.environ.get(key_name)
        if key is None and not found_key:
            continue
        if given is not None and found_url and checked_url(found_url, url_name) != given:
            continue
        address = given or (found_url and checked_url(found_url, url_name))
        if address:
            if key is not None:
                chosen = checked_key(key, names[1])
            else:
                chosen = checked_key(found_key or "", key_name)
            return Settings(url=address, key=chosen, timeout=_seconds(timeout))
    raise InvalidArgumentError(
        _what_is_missing(given, has_key=key is not None, names=names), backend="convex"
    )


def address_in(url: str) -> str | None:
    """The address in a `convex://` or `convex+http://` URL; None when it names no host.

    Raises `InvalidArgumentError` for another URL.
    """
    parts = urlsplit(url)
    scheme = _SCHEMES.get(parts.scheme)
    if parts.netloc in ("http:", "https:"):
        right = "convex" if parts.netloc == "https:" else "convex+http"
        raise InvalidArgumentError(
            f"{right}:// takes the place of {parts.netloc}//, as in {right}://HOST; "
            f"leave {parts.netloc}// out",
            backend="convex",
        )
    if scheme is None or parts.fragment or not (parts.netloc or parts.scheme == "convex"):
        raise InvalidArgumentError(
            "a Convex URL looks like convex://cheerful-lemur-123.convex.cloud, or "
            "convex+http://127.0.0.1:3210 for a local deployment, with the deploy key in "
            "CONVEX_DEPLOY_KEY or as deploy_key=",
            backend="convex",
        )
    return f"{scheme}://{parts.netloc}{parts.path}" if parts.netloc else None


def is_convex_url(url: str) -> bool:
    """Whether a URL is one of this plugin, and not the address of a deployment."""
    return url.partition("://")[0].lower() in _SCHEMES


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


def checked_key(key: str, name: str = "deploy_key") -> str:
    """A key that can be sent in a header."""
    if not isinstance(key, str) or not key:
        raise InvalidArgumentError(f"{name} must be a text, and not empty", backend="convex")
    if key[0] in "'\"`" or key[-1] in "'\"`":
        raise InvalidArgumentError(
            f"{name} begins or ends with a quotation mark; give the key without its quotes",
            backend="convex",
        )
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise InvalidArgumentError(
            f"{name} holds blanks or characters that no key has; see how the key was copied",
            backend="convex",
        )
    return key


def _what_is_missing(given: str | None, *, has_key: bool, names: tuple[str, str]) -> str:
    """Which of URL and key is missing, what the environment has instead, and what to do."""
    halves = {name for pair in _PAIRS for name in pair if os.environ.get(name)}
    found = []
    for url_name, key_name in _PAIRS:
        if {url_name, key_name} <= halves:
            found.append(f"{key_name} is for {url_name}, which is another address")
        elif url_name in halves:
            found.append(f"{url_name} is set, {key_name} is missing or empty")
        elif key_name in halves:
            found.append(f"{key_name} is set, {url_name} is missing or empty")
    if given is None and len(found) > 1:
        found.append("the key of one pair does not go with the URL of the other")
    lacking = [("the URL", names[0])] if given is None else []
    lacking += [] if has_key else [("the key", names[1])]
    missing = " and ".join(what for what, _ in lacking)
    said = "; ".join(found) or f"{missing} {'is' if len(lacking) == 1 else 'are'} missing"
    return (
        f"{said}; give {' and '.join(name for _, name in lacking)}, or set CONVEX_URL and "
        "CONVEX_DEPLOY_KEY (of a self-hosted deployment CONVEX_SELF_HOSTED_URL and "
        "CONVEX_SELF_HOSTED_ADMIN_KEY)"
    )


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
