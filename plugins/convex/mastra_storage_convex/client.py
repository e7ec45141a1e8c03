"""Calls of Convex functions over HTTP: attempts, time limits, errors."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Callable
from typing import Any, Literal

import aiohttp
import msgspec
import tenacity
import yarl
from msgspec import Struct
from tenacity import RetryCallState

from mastra_storage import (
    InvalidArgumentError,
    RateLimitedError,
    StorageError,
    UnavailableError,
    UnsupportedError,
)
from mastra_storage_convex._answers import DEPLOY, FUNCTION_FAILED, decoded, failure_of
from mastra_storage_convex.wire import PROTOCOL, Version

_CONNECTIONS = 32
# Seconds. A connection that the server has closed is noticed, or costs one more attempt.
_KEEP_ALIVE = 30.0
_ATTEMPTS = 8
# To open a store that is not there should not take as long as a pause of one that is open.
_ATTEMPTS_TO_OPEN = 4
_BACKOFF = tenacity.wait_exponential(multiplier=0.05, max=5.0) + tenacity.wait_random(0.0, 0.2)

_log = logging.getLogger("mastra_storage.convex")


class Settings(Struct, frozen=True, kw_only=True):
    """Where a deployment is and how it is called.

    `url` is its address without a slash at the end, `key` its deploy or admin key, `timeout`
    how many seconds a call may take, with all its attempts. The repr shows no key.
    """

    url: str
    key: str
    timeout: float = 30.0

    def __repr__(self) -> str:
        return f"Settings(url={self.url!r}, key=…, timeout={self.timeout:g})"


class Client:
    """The functions of a deployment.

    All calls must be safe to repeat: they are tried again after what passes, which is a lost
    connection, a 5xx, or a 429 within the time it asks for.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Get ready, and see whether the functions that this version needs are there.

        Raises `UnsupportedError` when they are not, `AuthenticationError` for a key that is not
        of this deployment, `UnavailableError` when it cannot be reached.
        """
        connector = aiohttp.TCPConnector(limit=_CONNECTIONS, keepalive_timeout=_KEEP_ALIVE)
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers={"Authorization": f"Convex {self.settings.key}"},
            timeout=aiohttp.ClientTimeout(total=None),  # calls have their own
        )
        await self.check()

    async def check(self) -> None:
        """See whether key and functions are what they must be; raises as `open` does."""
        body = _body("system:version", b"{}")
        found: Version = await self._call(
            "query", "system:version", lambda _: body, Version, attempts=_ATTEMPTS_TO_OPEN
        )
        if found.protocol != PROTOCOL:
            older = "older" if found.protocol < PROTOCOL else "newer"
            raise UnsupportedError(
                f"the functions of the deployment are {older} than this version of "
                f"mastra-storage-convex (protocol {found.protocol:g}, not {PROTOCOL}); "
                + (DEPLOY if older == "older" else "upgrade mastra-storage-convex")
            )

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def query(self, path: str, arguments: Any, kind: Any) -> Any:
        """Call a query; what it gives, as `kind`."""
        body = _body(path, encoded(arguments))
        return await self._call("query", path, lambda _: body, kind)

    async def mutate(self, path: str, arguments: Callable[[bool], bytes], kind: Any) -> Any:
        """Call a mutation; what it gives, as `kind`.

        `arguments` makes its arguments in JSON, told whether the call is repeated: the one before
        may have happened though its answer got lost.
        """
        return await self._call("mutation", path, lambda again: _body(path, arguments(again)), kind)

    async def _call(
        self,
        verb: Literal["query", "mutation"],
        path: str,
        body: Callable[[bool], bytes],
        kind: Any,
        attempts: int = _ATTEMPTS,
    ) -> Any:
        trying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(self._may_retry),
            stop=tenacity.stop_after_attempt(attempts),
            wait=_wait,
            before_sleep=_note,
            reraise=True,
        )
        url = yarl.URL(f"{self.settings.url}/api/{verb}")
        failure: StorageError | None = None

        async def attempt() -> Any:
            nonlocal failure
            try:
                content = await self._send(url, body(failure is not None))
                return decoded(content, kind, path)
            except StorageError as exc:
                failure = exc
                raise

        try:
            async with asyncio.timeout(self.settings.timeout):
                return await trying(attempt)
        except TimeoutError as exc:
            if failure is not None:  # the last one, between two attempts
                raise failure from exc
            raise UnavailableError(
                f"Convex did not answer within {self.settings.timeout:g} seconds; try again later"
            ) from exc

    def _may_retry(self, exc: BaseException) -> bool:
        if isinstance(exc, RateLimitedError) and (exc.retry_after or 0) >= self.settings.timeout:
            return False
        return isinstance(exc, StorageError) and exc.retryable

    async def _send(self, url: yarl.URL, body: bytes) -> bytes:
        """One request."""
        if self._session is None:
            raise UnavailableError("the store is closed", retryable=False)
        try:
            async with self._session.post(
                url,
                data=io.BytesIO(body),
                headers={"Content-Type": "application/json"},
                allow_redirects=False,
            ) as response:
                content = await response.read()
        except aiohttp.ClientResponseError as exc:
            # It holds the headers of the request, the key among them.
            problem = f"what answered in Convex's place is not HTTP ({exc.message})"
        except (aiohttp.ClientError, ConnectionError) as exc:
            raise UnavailableError(
                f"the connection to Convex failed ({type(exc).__name__}); check the URL and that "
                "the deployment is running, or try again"
            ) from exc
        else:
            if response.status in (200, FUNCTION_FAILED):
                return content
            raise failure_of(response.status, content, response.headers.get("Retry-After"))
        raise UnavailableError(f"{problem}; check the URL and proxies")


def _body(path: str, arguments: bytes) -> bytes:
    return b'{"path":"%b","format":"convex_encoded_json","args":%b}' % (path.encode(), arguments)


def encoded(arguments: Any) -> bytes:
    """Arguments in JSON; raises `InvalidArgumentError` for text that is not valid Unicode."""
    try:
        return msgspec.json.encode(arguments)
    except UnicodeEncodeError as exc:
        raise InvalidArgumentError(
            "a key or filter holds a lone surrogate, which is not valid Unicode text"
        ) from exc


def _wait(state: RetryCallState) -> float:
    """The seconds until the next attempt."""
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, RateLimitedError) and error.retry_after is not None:
        return error.retry_after
    return _BACKOFF(state)


def _note(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    _log.debug("attempt %d failed: %s", state.attempt_number, type(error).__name__)
