"""Queries that are kept up to date: a client of Convex's sync protocol, over one WebSocket.

The PyPI client is not used: docs/architecture.md says why.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Generic, NoReturn, TypeVar
from uuid import uuid4

import aiohttp
from msgspec import Raw

from mastra_storage import UnsupportedError
from mastra_storage_convex import _frames as frames
from mastra_storage_convex._frames import FrameError
from mastra_storage_convex.feeds import Feed, Queries

__all__ = ["SyncClient"]

_CONNECT_SECONDS = 10.0
_CLOSE_SECONDS = 1.0
# The server shows itself every 15 seconds; one large answer may take the line for longer.
_SILENCE_SECONDS = 60.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 8.0
# A socket that lasted so long is no reason to wait longer before the next.
_LASTING_SECONDS = 10.0
_MAX_FRAME_BYTES = 256 * 1024 * 1024
_NONE = "no answer yet"

_log = logging.getLogger("mastra_storage.convex")

T = TypeVar("T")


class _LostError(Exception):
    """The WebSocket is of no use any more. `check`: whether to ask for the reason over HTTP."""

    def __init__(self, reason: str, *, check: bool = False, fatal: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.check = check
        self.fatal = fatal


class _Conversation:
    """What was said over one WebSocket."""

    def __init__(self) -> None:
        self.version = frames.START
        self.asked: set[int] = set()
        self.modifications = 0
        self.was_answered = False
        self.chunks = frames.Chunks()


class SyncClient(Generic[T]):
    """One WebSocket for all that is followed: opened for the first feed, closed with the last.

    A WebSocket that is lost or silent is replaced, for as long as there are feeds; answers that
    come again unchanged are the same objects as before.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        check: Callable[[], Awaitable[object]],
        build: Callable[[bytes, T | None], T],
    ) -> None:
        """`url`: of the deployment, http or https. `check` asks over HTTP for the reason when
        the server refuses something, and raises what cannot get better by itself. `build` makes
        an answer of its JSON text and of the answer before it.

        `trouble` says why there is no answer, if there is none.
        """
        self._url = "ws" + url.removeprefix("http").rstrip("/") + frames.PATH
        self._key = key
        self._check = check
        self._session = str(uuid4())
        self._feeds: set[Feed[T]] = set()
        self._queries = Queries(build)
        self._runner: asyncio.Task[NoReturn] | None = None
        self._connections = 0
        self._seen = 0
        self.trouble = _NONE

    def __repr__(self) -> str:
        return f"<SyncClient {self._url}: {len(self._queries)} queries>"

    @asynccontextmanager
    async def feed(self) -> AsyncIterator[Feed[T]]:
        """A feed, for as long as the context lasts."""
        feed = Feed(self._queries)
        self._feeds.add(feed)
        if self._runner is None:
            self._runner = asyncio.create_task(self._run())
            self._runner.add_done_callback(self._finish)
        try:
            yield feed
        finally:
            self._feeds.discard(feed)
            try:
                if not self._feeds:
                    await self._stop()
            finally:
                feed.keep(())

    async def close(self) -> None:
        """End all feeds and close the WebSocket."""
        for feed in self._feeds:
            feed.end()
        await self._stop()

    async def _stop(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.cancel()
            await asyncio.wait((runner,))

    def _finish(self, runner: asyncio.Task[NoReturn]) -> None:
        if self._runner is runner:
            self._runner = None
        if not runner.cancelled():
            failure = runner.exception()
            for feed in self._feeds:
                feed.end(failure)

    # -- one WebSocket after the other -------------------------------------------------------

    async def _run(self) -> NoReturn:
        self._queries.changed = asyncio.Event()  # of this event loop
        failures = 0
        fatal = False
        while True:
            started = time.monotonic()
            try:
                await self._converse()
            except _LostError as exc:
                lost = exc
            except (aiohttp.ClientError, OSError, FrameError) as exc:
                lost = _LostError(f"{exc}" if isinstance(exc, FrameError) else type(exc).__name__)
            self.trouble = lost.reason
            _log.debug("watch: the WebSocket was lost: %s", lost.reason)
            if lost.check:
                await self._check()
            if lost.fatal and fatal:
                raise UnsupportedError(
                    f"Convex refuses what this client asks over its WebSocket ({lost.reason}); "
                    "update mastra-storage-convex, or the self-hosted backend"
                )
            fatal = lost.fatal
            failures = 0 if time.monotonic() - started > _LASTING_SECONDS else failures + 1
            pause = min(_FIRST_PAUSE * 2 ** min(failures, 10), _LONGEST_PAUSE)
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))

    async def _converse(self) -> NoReturn:
        """All that is said over one WebSocket, until it is lost."""
        redirects = aiohttp.TraceConfig()
        redirects.on_request_redirect.append(_refuse)
        async with aiohttp.ClientSession(trace_configs=[redirects]) as session:
            ws = await self._connected(session)
            conversation = _Conversation()
            reading = asyncio.create_task(self._read(ws, conversation))
            asking = asyncio.create_task(self._ask(ws, conversation))
            try:
                await asyncio.wait((reading, asking), return_when=asyncio.FIRST_COMPLETED)
            finally:
                reading.cancel()
                asking.cancel()
                self._queries.forget()
                if not conversation.was_answered:
                    self._seen = 0  # a server that was set back would refuse it for ever
                outcomes = await asyncio.gather(reading, asking, return_exceptions=True)
                await _close(ws)
        raise next(
            (
                outcome
                for outcome in outcomes
                if isinstance(outcome, BaseException)
                and not isinstance(outcome, asyncio.CancelledError)
            ),
            _LostError("its WebSocket was closed"),
        )

    async def _connected(self, session: aiohttp.ClientSession) -> aiohttp.ClientWebSocketResponse:
        timeout = aiohttp.ClientWSTimeout(ws_close=_CLOSE_SECONDS)
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                return await session.ws_connect(
                    self._url, timeout=timeout, max_msg_size=_MAX_FRAME_BYTES
                )
        except aiohttp.WSServerHandshakeError as exc:
            raise _LostError(
                f"its WebSocket was refused with HTTP {exc.status}", check=exc.status < 500
            ) from exc

    async def _ask(self, ws: aiohttp.ClientWebSocketResponse, said: _Conversation) -> NoReturn:
        """Say which queries are followed, and again whenever that changes."""
        await ws.send_str(
            frames.connect(self._session, self._connections, self.trouble, self._seen, time.time())
        )
        self._connections += 1
        await ws.send_str(frames.authenticate(self._key))
        while True:
            self._queries.changed.clear()
            wanted = self._queries.wanted()
            adds = [
                frames.Add(number, call.path, [Raw(call.args.encode())])
                for number, call in wanted.items()
                if number not in said.asked
            ]
            removes = said.asked.difference(wanted)
            if adds or removes:
                said.asked = set(wanted)
                await ws.send_str(frames.modify_query_set(said.modifications, adds, removes))
                said.modifications += 1
            await self._queries.changed.wait()

    async def _read(self, ws: aiohttp.ClientWebSocketResponse, said: _Conversation) -> NoReturn:
        while True:
            async with asyncio.timeout(_SILENCE_SECONDS):
                frame = await ws.receive()
            if frame.type is not aiohttp.WSMsgType.TEXT:
                raise _LostError(f"its WebSocket was closed ({ws.close_code or frame.type.name})")
            message = frames.decoded(frame.data, said.chunks)
            if isinstance(message, frames.Transition):
                if message.start_version != said.version:
                    raise FrameError("a transition does not follow the one before")
                said.version = message.end_version
                said.was_answered = True
                self.trouble = _NONE
                self._seen = max(self._seen, frames.moment(said.version))
                self._queries.take(message.modifications)
            elif isinstance(message, frames.AuthError):
                raise _LostError("it could not check the key", check=True)
            elif isinstance(message, frames.FatalError):
                raise _LostError(frames.said(message.error), check=True, fatal=True)


async def _refuse(*redirect: Any) -> NoReturn:
    """Keep the key from a server that was not meant to have it."""
    raise _LostError("its WebSocket was redirected", check=True)


async def _close(ws: aiohttp.ClientWebSocketResponse) -> None:
    """Close, with a word to the server if that is quick."""
    try:
        async with asyncio.timeout(_CLOSE_SECONDS):
            await ws.close()
    except (aiohttp.ClientError, OSError) as exc:
        _log.debug("watch: closing a WebSocket: %s", type(exc).__name__)
