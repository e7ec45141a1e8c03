"""`updated_at` of a thread that is written to again and again: half a second late, never lost."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from msgspec import structs

from mastra_storage import (
    ABSENT,
    MESSAGES,
    THREADS,
    ConflictError,
    Message,
    Put,
    Storage,
    Thread,
    Touch,
)
from mastra_storage.backends.sqlite import SqliteBackend
from mastra_storage.records import now, to_microseconds


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "agent.db"


async def save(storage: Storage, count: int = 1) -> datetime:
    """Save messages one after another; gives a time before the last of them was saved."""
    before = now()
    for _ in range(count):
        before = now()
        await storage.save_message(Message(thread_id="t", role="user", content="x"))
    return before


async def updated(storage: Storage) -> datetime:
    thread = await storage.get_thread_by_id("t")
    assert thread is not None
    return thread.updated_at


async def moves_past(storage: Storage, moment: datetime, seconds: float = 1.0) -> None:
    deadline = time.monotonic() + seconds
    while await updated(storage) < moment:
        assert time.monotonic() < deadline, "updated_at has not moved"
        await asyncio.sleep(0.02)


async def test_many_saves_write_the_thread_a_few_times(path: Path) -> None:
    async with Storage(SqliteBackend(path)) as storage:
        await storage.save_thread(Thread(id="t", resource_id="r"))
        statements: list[str] = []
        writer = storage.backend._writer()  # type: ignore[attr-defined]
        writer._connection.set_trace_callback(statements.append)
        begun = time.monotonic()
        last = await save(storage, 50)
        await moves_past(storage, last, 2)
        halves = (time.monotonic() - begun) / 0.5
        touches = [sql for sql in statements if sql.startswith("UPDATE mastra_threads")]
        assert 2 <= len(touches) <= 2 * halves + 2


async def test_the_first_save_of_a_while_moves_updated_at_at_once(path: Path) -> None:
    async with Storage(SqliteBackend(path)) as storage:
        long_ago = now() - timedelta(hours=1)
        await storage.save_thread(Thread(id="t", resource_id="r", created_at=long_ago))
        assert await save(storage) <= await updated(storage)


async def test_closing_writes_what_was_postponed(path: Path) -> None:
    async with Storage(SqliteBackend(path)) as storage:
        await storage.save_thread(Thread(id="t", resource_id="r"))
        last = await save(storage, 3)
    async with Storage(SqliteBackend(path)) as storage:
        assert await updated(storage) >= last


async def test_a_thread_that_is_made_anew_is_not_touched_by_the_old_ones_messages(
    path: Path,
) -> None:
    old = now() - timedelta(days=1)
    async with Storage(SqliteBackend(path)) as storage:
        await storage.save_thread(Thread(id="t", resource_id="r"))
        await save(storage, 3)
        await storage.delete_thread("t")
        await storage.save_thread(Thread(id="t", resource_id="r", created_at=old))
    async with Storage(SqliteBackend(path)) as storage:
        assert await updated(storage) == old


async def test_who_watches_in_this_process_sees_a_late_touch(path: Path) -> None:
    async with Storage(SqliteBackend(path, watch_interval=60)) as storage:
        await storage.save_thread(Thread(id="t", resource_id="r"))
        last = await save(storage, 3)
        async with asyncio.timeout(5):
            async for thread in storage.watch_thread("t"):
                if thread is not None and thread.updated_at >= last:
                    break


async def test_a_write_that_fails_touches_nothing_later_either(path: Path) -> None:
    backend = SqliteBackend(path)
    async with Storage(backend) as storage:
        await storage.save_thread(Thread(id="t", resource_id="r"))
        await storage.save_message(Message(id="m", thread_id="t", role="user", content="x"))
        before = await updated(storage)
        [row] = await backend.get(MESSAGES, [("t", "m")])
        assert row is not None
        ahead = to_microseconds(now()) + 10**12
        new = structs.replace(row, version="new")
        other, again = Put(new, if_version="not this one"), Put(new, if_version=ABSENT)
        touch = Touch(THREADS, ("t",), ahead)
        results = await asyncio.gather(
            *[backend.write([touch, put]) for put in (other, again, other, again)],
            return_exceptions=True,
        )
        assert [type(result) for result in results] == [ConflictError] * 4
    async with Storage(SqliteBackend(path)) as storage:
        assert await updated(storage) == before


async def test_a_late_touch_waits_for_a_locked_file(path: Path) -> None:
    async with Storage(SqliteBackend(path, busy_timeout=0.05)) as storage:
        await storage.save_thread(Thread(id="t", resource_id="r"))
        last = await save(storage, 3)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            await asyncio.sleep(0.8)
            assert await updated(storage) < last
            other.execute("ROLLBACK")
        await moves_past(storage, last, 2)


async def test_a_touch_that_is_lost_by_closing_is_logged(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    storage = Storage(SqliteBackend(path, busy_timeout=0.05))
    await storage.open()
    await storage.save_thread(Thread(id="t", resource_id="r"))
    await save(storage, 3)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with caplog.at_level(logging.WARNING, "mastra_storage.sqlite"):
            await storage.close()
        other.execute("ROLLBACK")
    assert "updated_at of 1 threads" in caplog.text
