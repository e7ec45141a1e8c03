"""Connections that cannot be made or break: where they were to go, and why, in words."""

from __future__ import annotations

import errno
import ssl

import aiohttp
import yarl

from mastra_storage import UnavailableError

_REASONS = {
    errno.ECONNREFUSED: "it was refused, nothing listens there",
    errno.ETIMEDOUT: "nothing answered",
    errno.EHOSTUNREACH: "there is no way to that host",
    errno.ENETUNREACH: "there is no way to that network",
    errno.ECONNRESET: "it was broken off",
    errno.EPIPE: "it was broken off",
}


def connection_failure(exc: Exception, url: yarl.URL) -> UnavailableError:
    """The error for a connection to `url` that could not be made, or broke."""
    where = f"{url.host}:{url.port}"
    if isinstance(exc, aiohttp.ClientConnectorCertificateError):
        return UnavailableError(
            f"no connection to {where}: its TLS certificate is not one that this machine trusts; "
            "check the URL and the certificate",
            retryable=False,
        )
    if isinstance(exc, ssl.SSLError):
        return UnavailableError(
            f"no connection to {where}: TLS failed; use convex+http:// for a server without TLS "
            "(http:// as convex_url)",
            retryable=False,
        )
    return UnavailableError(
        f"no connection to {where}: {_reason(exc)}; check the URL and that the deployment is "
        "running, or try again"
    )


def _reason(exc: Exception) -> str:
    if isinstance(exc, aiohttp.ClientConnectorDNSError):
        return "a host of that name is not known"
    if isinstance(exc, aiohttp.ServerDisconnectedError | aiohttp.ClientPayloadError):
        return "it was broken off"
    if isinstance(exc, aiohttp.ConnectionTimeoutError):
        return _REASONS[errno.ETIMEDOUT]
    number = exc.errno if isinstance(exc, OSError) else None
    return _REASONS.get(number or 0, f"it failed ({type(exc).__name__})")
