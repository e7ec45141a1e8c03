"""A storage in an event loop of its own, for callers in any other loop, or in none.

Strands makes event loops as it needs them: an agent restores its session, while it is made, in
one that ends with the call, and blocks the caller's meanwhile; `agent(…)` makes another.
A `Storage` lives in the loop it was opened in, so it gets one that is always there.
"""

from __future__ import annotations

import asyncio
import atexit
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, ExitStack
from contextvars import copy_context
from functools import partial
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal

from mastra_storage import Storage, Table, UnavailableError

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What a blocking call gives. A caller that is cancelled waits for its end: it may have begun,
    or wait in a queue still, and is not left out for that.
    """
    work = partial(copy_context().run, call, *args, **kwargs)
    running = asyncio.get_running_loop().run_in_executor(None, work)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise


class Bridge:
    """Opens a storage in a thread with an event loop, and runs coroutines with it there."""

    def __init__(self, source: AbstractAsyncContextManager[Storage], *tables: Table) -> None:
        self._source = source
        self._tables = tables
        self._opened: tuple[BlockingPortal, Storage] | None = None
        self._closing = ExitStack()

    def __repr__(self) -> str:
        return repr(self._source)

    def open(self) -> None:
        """Open the storage. Blocks; so does `close`."""
        with ExitStack() as stack:
            portal = stack.enter_context(start_blocking_portal(name="mastra-storage-strands"))
            storage = stack.enter_context(portal.wrap_async_context_manager(self._source))
            for table in self._tables:
                storage.register(table)
            self._closing = stack.pop_all()
        self._opened = portal, storage
        atexit.register(self._leave)

    def close(self) -> None:
        """Close the storage, and end its thread. Safe to call twice."""
        atexit.unregister(self._leave)
        self._opened = None
        self._closing.close()

    def _leave(self) -> None:
        """End the thread of a storage that nobody closed, before the interpreter waits for it.

        It is too late to close that: no other thread can be started any more.
        """
        opened, self._opened = self._opened, None
        if opened is not None:
            portal, _ = opened
            portal.call(portal.stop, True)
        self._closing = ExitStack()  # what is closed later finds nothing to close

    async def run(self, work: Callable[[Storage], Awaitable[T]]) -> T:
        """What `work` gives, awaited from any event loop; cancelled with its caller."""
        portal, storage = self._open()
        return await portal.call_async(work, storage)

    def run_sync(self, work: Callable[[Storage], Awaitable[T]]) -> T:
        """What `work` gives. Blocks the caller's thread."""
        portal, storage = self._open()
        return portal.call(work, storage)

    def _open(self) -> tuple[BlockingPortal, Storage]:
        if self._opened is None:
            raise UnavailableError(
                "the storage of Strands is not open; use it inside `with` or `async with`",
                retryable=False,
            )
        return self._opened


class Bridged:
    """What has a bridge, which opens and closes with it: `with` or `async with`."""

    bridge: Bridge

    def __enter__(self) -> Self:
        self.bridge.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.bridge.close()

    async def __aenter__(self) -> Self:
        opened: list[None] = []
        try:
            await in_thread(lambda: opened.append(self.bridge.open()))  # type: ignore[func-returns-value]
        except asyncio.CancelledError:
            if opened:
                await in_thread(self.bridge.close)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await in_thread(self.bridge.close)
