"""A storage in an event loop of its own, for callers in any other loop, or in none.

Strands makes event loops as it needs them: an agent restores its session, while it is made, in
one that ends with the call, and blocks the caller's meanwhile; `agent(…)` makes another.
A `Storage` lives in the loop it was opened in, so it gets one that is always there.
"""

from __future__ import annotations

import asyncio
import atexit
import os
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, ExitStack, suppress
from contextvars import copy_context
from functools import partial
from types import TracebackType
from typing import NamedTuple, ParamSpec, Self, TypeVar

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


class _Opened(NamedTuple):
    """An open storage, the way to its thread, and the process that has the thread."""

    portal: BlockingPortal
    storage: Storage
    process: int

    @property
    def is_of_parent(self) -> bool:
        """Whether this process was forked since then, and does not have the thread."""
        return self.process != os.getpid()


class Bridge:
    """Opens a storage in a thread with an event loop, and runs coroutines with it there."""

    def __init__(self, source: AbstractAsyncContextManager[Storage], *tables: Table) -> None:
        self._source = source
        self._tables = tables
        self._opened: _Opened | None = None
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
        self._opened = _Opened(portal, storage, os.getpid())
        atexit.register(self._leave)

    def close(self) -> None:
        """Close the storage, and end its thread. Safe to call twice."""
        atexit.unregister(self._leave)
        if self._opened is not None and self._opened.is_of_parent:
            self._forget(self._opened.portal)
        self._opened = None
        self._closing.close()

    def _leave(self) -> None:
        """End the thread of a storage that nobody closed, before the interpreter waits for it.

        It is too late to close that: no other thread can be started any more.
        """
        opened, self._opened = self._opened, None
        if opened is not None and opened.is_of_parent:
            self._forget(opened.portal)
        elif opened is not None:
            opened.portal.call(opened.portal.stop, True)
        self._closing = ExitStack()  # what is closed later finds nothing to close

    def _forget(self, portal: BlockingPortal) -> None:
        """Let go of a thread that is not here: whoever asked it to end would wait for ever."""
        with suppress(StopIteration):
            portal.stop().send(None)
        self._closing = ExitStack()

    async def run(self, work: Callable[[Storage], Awaitable[T]]) -> T:
        """What `work` gives, awaited from any event loop; cancelled with its caller."""
        opened = self._open()
        return await opened.portal.call_async(work, opened.storage)

    def run_sync(self, work: Callable[[Storage], Awaitable[T]]) -> T:
        """What `work` gives. Blocks the caller's thread."""
        opened = self._open()
        return opened.portal.call(work, opened.storage)

    def _open(self) -> _Opened:
        if self._opened is None:
            raise UnavailableError(
                "the storage of Strands is not open; use it inside `with` or `async with`",
                retryable=False,
            )
        if self._opened.is_of_parent:
            raise UnavailableError(
                "the storage of Strands was opened before this process was forked; open one in "
                "each process",
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
