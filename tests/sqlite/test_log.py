"""The write-ahead log: brought into the file when callers know already that they are safe."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mastra_storage import Message, Storage, Thread
from mastra_storage.backends.sqlite import SqliteBackend

MEGABYTE = 1_000_000
PIECE = "x" * 10_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "agent.db"


async def fill(storage: Storage, megabytes: int) -> None:
    await storage.save_thread(Thread(id="t", resource_id="r"))
    for _ in range(megabytes):
        batch = [Message(thread_id="t", role="user", content=PIECE) for _ in range(100)]
        await storage.save_messages(batch)


async def becomes(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def test_the_log_does_not_grow_with_what_is_written(path: Path) -> None:
    log = path.with_name("agent.db-wal")
    async with Storage(SqliteBackend(path)) as storage:
        await fill(storage, 30)
        await becomes(lambda: path.stat().st_size > 25 * MEGABYTE)
        assert log.stat().st_size < 8 * MEGABYTE
        assert len(await storage.get_messages("t")) == 3_000


async def test_a_log_that_cannot_be_emptied_keeps_nobody_from_writing(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(action: int, name: str | None, *_: Any) -> int:
        refused = action == sqlite3.SQLITE_PRAGMA and name == "wal_checkpoint"
        return sqlite3.SQLITE_DENY if refused else sqlite3.SQLITE_OK

    caplog.set_level(logging.DEBUG, "mastra_storage.sqlite")
    backend = SqliteBackend(path)
    async with Storage(backend) as storage:
        await fill(storage, 1)
        connection = backend._writer()._connection
        connection.set_authorizer(refuse)
        await fill(storage, 9)
        assert len(await storage.get_messages("t")) == 1_000
        assert path.stat().st_size < 2 * MEGABYTE
        assert "not authorized" in caplog.text
        assert PIECE not in caplog.text
        connection.set_authorizer(None)
        await fill(storage, 5)
        await becomes(lambda: path.stat().st_size > 10 * MEGABYTE)
    async with Storage(SqliteBackend(path)) as storage:
        assert len(await storage.get_messages("t")) == 1_500
