"""Requests to Cloudflare's REST API: attempts, time limits, the budget, errors."""

from __future__ import annotations

import asyncio
import errno
import io
import logging
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
import tenacity
import yarl
from tenacity import RetryCallState

from mastra_storage import (
    InvalidArgumentError,
    RateLimitedError,
    StorageError,
    UnavailableError,
)
from mastra_storage_cloudflare._answers import decoded, failure_of
from mastra_storage_cloudflare.budget import REQUESTS, RateBudget

BASE_URL = "https://api.cloudflare.com/client/v4"

# As many as calls of one moment may need: each listing is a request of its own.
_CONNECTIONS = 300
# Seconds. A new connection costs round trips, and an agent's turns are some time apart. Cloudflare
# closes idle ones after 400 seconds, but some networks between forget them within a minute.
_KEEP_ALIVE = 30.0
# Bytes. A larger body is sent in parts, or aiohttp would warn that it holds up the event loop.
_LARGE = 2**20
_ATTEMPTS = 6
_BACKOFF = tenacity.wait_exponential(multiplier=0.1, max=5.0) + tenacity.wait_random(0.0, 0.5)
# A connection that is not made, or a read that stays without an answer, for this share of a call's
# time is tried anew. A write is not: given up, it might still take effect after a later one.
_SILENCE = 1 / 3

_log = logging.getLogger("mastra_storage.cloudflare")


class Client:
    """The KV namespaces of an account, over HTTP.

    All calls must be idempotent: they are tried again after what passes, which is a lost
    connection, a 5xx, or a 429 within the time it asks for.
    """

    def __init__(
        self,
        account_id: str,
        api_token: str,
        *,
        base_url: str = BASE_URL,
        timeout: float = 30.0,
        rate_limit: int = REQUESTS,
    ) -> None:
        """`timeout`: seconds a call may take, with all its attempts; `rate_limit`: requests that
        the API takes in five minutes.
        """
        texts = {"account_id": account_id, "api_token": api_token, "base_url": base_url}
        for name, value in texts.items():
            if not isinstance(value, str):
                raise InvalidArgumentError(
                    f"{name} must be a str, not {type(value).__name__}", backend="cloudflare"
                )
        self._root = f"{_api(base_url)}/accounts/{quote(account_id, safe='')}/storage/kv/namespaces"
        self._where = _named(base_url)
        self._headers = {"Authorization": f"Bearer {_checked_token(api_token)}"}
        self._timeout = timeout
        silence = timeout * _SILENCE
        self._limits = aiohttp.ClientTimeout(total=None, sock_connect=silence)
        self._limits_of_reads = aiohttp.ClientTimeout(
            total=None, sock_connect=silence, sock_read=silence
        )
        self._budget = RateBudget(rate_limit)
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Get ready, in the event loop that runs."""
        await self.close()  # what was opened in another
        self._budget.open()
        connector = aiohttp.TCPConnector(limit=_CONNECTIONS, keepalive_timeout=_KEEP_ALIVE)
        self._session = aiohttp.ClientSession(connector=connector, headers=self._headers)

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def call(
        self,
        method: str,
        path: str,
        result: Any,
        *,
        query: dict[str, str] | None = None,
        body: bytes | None = None,
        reads: bool = False,
    ) -> Any:
        """One call, with its attempts; an `Answer` of `result`, or bytes when that is `None`.

        `reads` says that it changes nothing, so that an attempt can be given up.
        """
        # Of what a prefix may hold nothing is left to the judgement of those who read the URL.
        asked = f"?{urlencode(query, quote_via=quote, safe='')}" if query else ""
        url = yarl.URL(self._root + path + asked, encoded=True)
        until = asyncio.get_running_loop().time() + self._timeout
        limits = self._limits_of_reads if reads else self._limits
        failure: StorageError | None = None
        try:
            async with asyncio.timeout_at(until):
                async for attempt in self._attempts():
                    with attempt:
                        try:
                            content = await self._send(method, url, body, limits, until)
                            return content if result is None else decoded(content, result)
                        except StorageError as exc:
                            failure = exc
                            raise
        except TimeoutError as exc:
            silent = isinstance(failure and failure.__cause__, aiohttp.SocketTimeoutError)
            if failure is not None and not silent:  # the last one, between two attempts
                raise failure from exc
            raise UnavailableError(
                f"{self._where} did not answer within {self._timeout:g} seconds; try again later"
            ) from exc

    def _attempts(self) -> tenacity.AsyncRetrying:
        return tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(self._may_retry),
            stop=tenacity.stop_after_attempt(_ATTEMPTS),
            wait=_pause,
            before_sleep=_note,
            reraise=True,
        )

    def _may_retry(self, exc: BaseException) -> bool:
        if isinstance(exc, RateLimitedError) and (exc.retry_after or 0) >= self._timeout:
            return False
        return isinstance(exc, StorageError) and exc.retryable

    async def _send(
        self,
        method: str,
        url: yarl.URL,
        body: bytes | None,
        limits: aiohttp.ClientTimeout,
        until: float,
    ) -> bytes:
        """One request; `until` is when it is given up."""
        headers = {"Content-Type": "application/json"} if body is not None else None
        try:
            async with self._budget.request(until):
                if self._session is None:
                    raise UnavailableError("the store is closed", retryable=False)
                async with self._session.request(
                    method,
                    url,
                    data=body if body is None or len(body) < _LARGE else io.BytesIO(body),
                    headers=headers,
                    allow_redirects=False,
                    timeout=limits,
                ) as response:
                    content = await response.read()
        except aiohttp.ClientResponseError as exc:
            # It holds the headers of the request, the token among them.
            problem = f"what answered in Cloudflare's place is not HTTP ({exc.message})"
        except aiohttp.SocketTimeoutError as exc:
            raise UnavailableError(
                f"{self._where} did not answer for {limits.sock_read:.3g} seconds; try again later"
            ) from exc
        except (aiohttp.ClientError, ConnectionError) as exc:
            raise UnavailableError(
                f"the connection to {self._where} failed ({type(exc).__name__}); try again"
            ) from exc
        else:
            self._budget.update(response.headers.get("Ratelimit"))
            if response.status == 200:
                return content
            failure = failure_of(response.status, content, response.headers.get("Retry-After"))
            if isinstance(failure, RateLimitedError):
                self._budget.pause(failure.retry_after)
            raise failure
        raise UnavailableError(f"{problem}; check base_url and proxies")


def _pause(state: RetryCallState) -> float:
    """The seconds from an attempt that failed to the next one."""
    failure = _failure(state)
    if isinstance(failure, RateLimitedError) and failure.retry_after is not None:
        return max(failure.retry_after, _BACKOFF(state))
    if state.attempt_number == 1 and failure is not None and _is_stale(failure.__cause__):
        return 0.0
    return _BACKOFF(state)


def _note(state: RetryCallState) -> None:
    kind = type(_failure(state)).__name__
    seconds = state.upcoming_sleep
    _log.debug("attempt %d failed: %s; again in %.2f s", state.attempt_number, kind, seconds)


def _failure(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None


def _is_stale(cause: BaseException | None) -> bool:
    """Whether a connection was lost as one is that had been idle, and was closed just then."""
    return isinstance(cause, aiohttp.ServerDisconnectedError) or (
        isinstance(cause, OSError) and cause.errno in (errno.ECONNRESET, errno.EPIPE)
    )


def _api(base_url: str) -> str:
    """Where the API's paths begin."""
    try:
        url = yarl.URL(base_url)
        origin = str(url.origin())
    except ValueError:
        url, origin = yarl.URL(), ""
    # What was given is in no error, nor in its cause: it may hold a password.
    if url.scheme not in ("http", "https"):
        raise InvalidArgumentError("base_url is not an http or https URL", backend="cloudflare")
    if url.raw_user is not None or url.raw_password is not None:
        raise InvalidArgumentError(
            "base_url holds a user or a password, which no request would carry: take them out; "
            "api_token says who asks",
            backend="cloudflare",
        )
    if "?" in base_url or "#" in base_url:
        raise InvalidArgumentError(
            "base_url has a '?' or '#' in it; give it up to its path, where the API's own paths "
            "go on",
            backend="cloudflare",
        )
    return origin + (url.raw_path.rstrip("/") or "/client/v4")


def _named(base_url: str) -> str:
    """What answers at a base URL, in words."""
    if base_url == BASE_URL:
        return "Cloudflare"
    url = yarl.URL(base_url)
    return f"{url.host}:{url.port}, which base_url or CLOUDFLARE_BASE_URL names,"


def _checked_token(token: str) -> str:
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise InvalidArgumentError(
            "the API token holds blanks or characters that no token has; see how it was copied",
            backend="cloudflare",
        )
    return token
