"""What a side of the SQLite benchmark is asked to do, and how long it takes."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

from _conversations import batches_of, messages_of
from _measure import sample
from _sides import Side

EACH, BATCH, AT_ONCE = "one by one", "one batch", "all at once"
LAST, EVERY, THREADS = "last 20", "all", "20 threads"
COLUMNS = (EACH, BATCH, AT_ONCE, LAST, EVERY, THREADS)
FEW = 20

# Seconds for what a side does after it has answered, before it is the next one's turn.
_REST = 0.05
_numbers = count()


async def write(side: Side, column: str, size: int) -> float:
    """The seconds in which `size` messages are written into a new thread."""
    thread = f"{column} {next(_numbers)}"
    await side.start(thread)
    items = [side.prepared(message) for message in messages_of(thread, size)]

    async def each() -> None:
        for item in items:
            await side.add(thread, item)

    calls: dict[str, Callable[[], Awaitable[object]]] = {
        EACH: each,
        BATCH: lambda: side.add_batch(thread, items),
        AT_ONCE: lambda: side.add_at_once(thread, items),
    }
    seconds = await _timed(calls[column])
    side.forget(thread)
    await asyncio.sleep(_REST)
    return seconds


async def fill(side: Side, thread: str, size: int) -> None:
    """A thread to read from."""
    await side.start(thread)
    for batch in batches_of(thread, size, 10_000):
        items = [side.prepared(message) for message in batch]
        if side.batch_is_rows:
            await side.add_batch(thread, items)
        else:
            for item in items:
                await side.add(thread, item)


async def fill_threads(side: Side, size: int) -> None:
    """Threads to list."""
    await side.start_many([f"thread {n}" for n in range(size)])


async def read(side: Side, column: str, thread: str, size: int) -> float:
    """The seconds in which a thread of `size` messages, or as many threads, are read from."""
    calls: dict[str, Callable[[], Awaitable[int]]] = {
        LAST: lambda: side.last(thread, FEW),
        EVERY: lambda: side.every(thread),
        THREADS: lambda: side.newest_threads(FEW),
    }

    async def checked() -> None:
        if await calls[column]() != (size if column == EVERY else FEW):
            raise RuntimeError("a side did not read what was asked")

    return await _timed(checked, repeat=1 if column == EVERY else 20)


async def _timed(call: Callable[[], Awaitable[object]], repeat: int = 1) -> float:
    gc.collect()
    gc.freeze()  # what is there already is not looked at over and over
    return await sample(call, repeat=repeat)


async def hold(side: Side, size: int) -> list[float]:
    """How long the event loop stands still while a message is written: its longest turn."""
    thread = "watched"
    await side.start(thread)
    found = []
    async with _turning() as turns:
        for item in [side.prepared(message) for message in messages_of(thread, size)]:
            turns.clear()
            await side.add(thread, item)
            await asyncio.sleep(0)
            found.append(max(turns))
    return found


@asynccontextmanager
async def _turning() -> AsyncIterator[list[float]]:
    """The seconds that each turn of the event loop takes."""
    turns: list[float] = []

    async def turn() -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0)
            now = time.perf_counter()
            turns.append(now - last)
            last = now

    task: asyncio.Task[Any] = asyncio.create_task(turn())
    await asyncio.sleep(0)
    try:
        yield turns
    finally:
        task.cancel()
