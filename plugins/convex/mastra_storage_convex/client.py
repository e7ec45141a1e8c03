"""Calls of Convex functions over HTTP: attempts, time limits, errors."""

from __future__ import annotations

import asyncio
import io
import logging
from typing import Any, Literal, TypeVar

import aiohttp
import msgspec
import tenacity
import yarl
from msgspec import Struct
from tenacity import RetryCallState
from tenacity.stop import stop_base

from mastra_storage import (
    InvalidArgumentError,
    RateLimitedError,
    StorageError,
    UnavailableError,
    UnsupportedError,
)
from mastra_storage_convex._answers import DEPLOY, FUNCTION_FAILED, decoded, failure_of
from mastra_storage_convex._connections import connection_failure
from mastra_storage_convex.wire import PROTOCOL, Version

T = TypeVar("T")

_CONNECTIONS = 32
# Seconds. A connection that the server has closed is noticed, or costs one more attempt.
_KEEP_ALIVE = 30.0
_ATTEMPTS = 8
_STOP = tenacity.stop_after_attempt(_ATTEMPTS)
# An attempt in which nothing is heard for this share of a call's time is made anew. Not so while
# something large may still be on its way to the deployment.
_SILENCE = 1 / 3
_SOON_THERE_BYTES = 2**16
# Seconds. A deployment that is about to start is waited for, but not as long as by a call.
_OPENING_SECONDS = 5.0
_ATTEMPTS_TO_CHECK = 4
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
        of this deployment, `UnavailableError` when it cannot be reached within the time of a
        call, 5 seconds at most, or nothing is heard of it for a third of that time.
        """
        connector = aiohttp.TCPConnector(limit=_CONNECTIONS, keepalive_timeout=_KEEP_ALIVE)
        self._session = aiohttp.ClientSession(
            connector=connector, headers={"Authorization": f"Convex {self.settings.key}"}
        )
        seconds = min(self.settings.timeout, _OPENING_SECONDS)
        await self._check(_Before(asyncio.get_running_loop().time() + seconds))

    async def check(self) -> None:
        """See whether key and functions are what they must be; raises as `open` does."""
        await self._check(tenacity.stop_after_attempt(_ATTEMPTS_TO_CHECK))

    async def _check(self, stop: stop_base) -> None:
        body = _body("system:version", b"{}")
        found: Version = await self._call(
            "query", "system:version", body, Version, stop=tenacity.stop_any(stop, _STOP)
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
        return await self._call("query", path, body, kind)

    async def mutate(self, path: str, arguments: bytes, kind: Any) -> Any:
        """Call a mutation; what it gives, as `kind`."""
        return await self._call("mutation", path, _body(path, arguments), kind)

    async def _call(
        self,
        verb: Literal["query", "mutation"],
        path: str,
        body: bytes,
        kind: Any,
        stop: stop_base = _STOP,
    ) -> Any:
        url = yarl.URL(f"{self.settings.url}/api/{verb}")
        failure: StorageError | None = None
        try:
            async with asyncio.timeout(self.settings.timeout):
                async for attempt in self._attempts(stop):
                    with attempt:
                        try:
                            return decoded(await self._send(url, body), kind, path)
                        except StorageError as exc:
                            failure = exc
                            raise
        except TimeoutError as exc:
            silent = isinstance(failure and failure.__cause__, aiohttp.SocketTimeoutError)
            if failure is not None and not silent:  # the last one, between two attempts
                raise failure from exc
            raise UnavailableError(
                f"Convex did not answer within {self.settings.timeout:g} seconds; try again later"
            ) from exc

    def _attempts(self, stop: stop_base) -> tenacity.AsyncRetrying:
        return tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(self._may_retry),
            stop=stop,
            wait=_pause,
            before_sleep=_note,
            reraise=True,
        )

    def _may_retry(self, exc: BaseException) -> bool:
        if isinstance(exc, RateLimitedError) and (exc.retry_after or 0) >= self.settings.timeout:
            return False
        return isinstance(exc, StorageError) and exc.retryable

    @property
    def _silence(self) -> float:
        return self.settings.timeout * _SILENCE

    def _limits(self, size: int) -> aiohttp.ClientTimeout:
        """How long an attempt with so many bytes may hear nothing; all of them share the call's."""
        silence = self._silence
        return aiohttp.ClientTimeout(
            total=None,
            sock_connect=silence,
            sock_read=silence if size <= _SOON_THERE_BYTES else None,
        )

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
                timeout=self._limits(len(body)),
            ) as response:
                content = await response.read()
        except asyncio.CancelledError as exc:
            task = asyncio.current_task()
            if self._session is not None or (task is not None and task.cancelling()):
                raise
            # Those who wait for a connection are cancelled by aiohttp when the session closes.
            raise UnavailableError("the store is closed", retryable=False) from exc
        except aiohttp.ClientResponseError as exc:
            # It holds the headers of the request, the key among them.
            problem = f"what answered in Convex's place is not HTTP ({exc.message})"
        except aiohttp.SocketTimeoutError as exc:
            raise UnavailableError(
                f"{url.host}:{url.port} did not answer for {self._silence:.3g} seconds; try again"
            ) from exc
        except (aiohttp.ClientError, ConnectionError) as exc:
            raise connection_failure(exc, url) from exc
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


class _Before(stop_base):
    """Lets no attempt begin after a time of the event loop."""

    def __init__(self, moment: float) -> None:
        self._moment = moment

    def __call__(self, retry_state: RetryCallState) -> bool:
        return asyncio.get_running_loop().time() + retry_state.upcoming_sleep >= self._moment


def _pause(state: RetryCallState) -> float:
    """The seconds from an attempt that failed to the next one."""
    failure = _failure(state)
    if isinstance(failure, RateLimitedError) and failure.retry_after is not None:
        return max(failure.retry_after, _BACKOFF(state))
    return _BACKOFF(state)


def _note(state: RetryCallState) -> None:
    _log.debug("attempt %d failed: %s", state.attempt_number, type(_failure(state)).__name__)


def _failure(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None
