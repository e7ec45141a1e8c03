"""Live queries as the tests follow them, and what they cost the event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast

import pytest
from convex_calls import message
from convex_server import ConvexServer
from mastra_storage_convex import ConvexBackend

from mastra_storage import Message, Put, Query, Result, Row, Storage, Table

T = TypeVar("T")
ROWS = Table(name="watched_rows", key=("box", "id"), fields=("color",), ordered=(0, 1), recent=True)


def watch(backend: ConvexBackend, query: Query) -> AsyncGenerator[Result, None]:
    return cast(AsyncGenerator[Result, None], backend.watch(query))


async def value(values: AsyncGenerator[T, None], seconds: float = 20) -> T:
    """The next value."""
    async with asyncio.timeout(seconds):
        return await anext(values)


async def shown(values: AsyncGenerator[T, None], good: Callable[[T], bool]) -> T:
    """The first value that is `good`."""
    async with asyncio.timeout(20):
        async for found in values:
            if good(found):
                return found
    pytest.fail("the live query ended")


async def saves_are_seen(
    store: Storage, values: AsyncGenerator[list[Message], None], id: str
) -> None:
    await store.save_messages([message(id)])
    await shown(values, lambda found: bool(found) and found[-1].id == id)


async def sockets(server: ConvexServer) -> int:
    count: int = (await server.control())["sockets"]
    return count


async def no_socket(server: ConvexServer) -> None:
    async with asyncio.timeout(10):
        while await sockets(server):  # noqa: ASYNC110 - the server is another process
            await asyncio.sleep(0.01)


def put(id: str, order: int, box: str = "b", **more: Any) -> Put:
    """A row of `ROWS`."""
    fields = {name: more.pop(name) for name in ("color",) if name in more}
    value = more.pop("value", b'{"id":"%b"}' % id.encode())
    version = f"{id} {time.perf_counter_ns()}"
    return Put(Row(ROWS, (box, id), value, order, 0, fields, order, version=version, **more))


class Ticker:
    """How long the event loop was held at worst, in seconds: by the clock, and of CPU time."""

    def __init__(self) -> None:
        self.worst = self.worst_cpu = 0.0

    async def run(self) -> None:
        while True:
            clock, cpu = time.perf_counter(), time.thread_time()
            await asyncio.sleep(0.002)
            self.worst = max(self.worst, time.perf_counter() - clock - 0.002)
            self.worst_cpu = max(self.worst_cpu, time.thread_time() - cpu)


@asynccontextmanager
async def ticking() -> AsyncIterator[Ticker]:
    ticker = Ticker()
    task = asyncio.create_task(ticker.run())
    yield ticker
    task.cancel()
