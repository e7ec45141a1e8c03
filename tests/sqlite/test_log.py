"""The write-ahead log: brought into the file when callers know already that they are safe."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
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


class OutOfMemory:
    """A connection that has no memory left to empty the log with."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        if "wal_checkpoint" in sql:
            raise MemoryError
        return self._connection.execute(sql, *parameters)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def refuse(action: int, name: str | None, *_: Any) -> int:
    refused = action == sqlite3.SQLITE_PRAGMA and name == "wal_checkpoint"
    return sqlite3.SQLITE_DENY if refused else sqlite3.SQLITE_OK


@pytest.mark.parametrize("said", ["not authorized", "MemoryError"])
async def test_a_log_that_cannot_be_emptied_keeps_nobody_from_writing(
    path: Path, caplog: pytest.LogCaptureFixture, said: str
) -> None:
    caplog.set_level(logging.DEBUG, "mastra_storage.sqlite")
    backend = SqliteBackend(path)
    async with Storage(backend) as storage:
        await fill(storage, 1)
        writer: Any = backend._writer()
        connection = writer._connection
        if said == "MemoryError":
            writer._connection = OutOfMemory(connection)
        else:
            connection.set_authorizer(refuse)
        await fill(storage, 4)
        assert len(await storage.get_messages("t")) == 500
        assert path.stat().st_size < 2 * MEGABYTE
        await becomes(lambda: said in caplog.text)
        assert PIECE not in caplog.text
        connection.set_authorizer(None)
        writer._connection = connection
        await fill(storage, 5)
        await becomes(lambda: path.stat().st_size > 8 * MEGABYTE)
    async with Storage(SqliteBackend(path)) as storage:
        assert len(await storage.get_messages("t")) == 1_000


async def test_what_a_reader_held_back_comes_into_the_file_soon_after(path: Path) -> None:
    async with Storage(SqliteBackend(path)) as storage:
        await fill(storage, 1)
        with closing(sqlite3.connect(path)) as reader:
            reader.execute("BEGIN")
            assert reader.execute("SELECT count(*) FROM mastra_messages").fetchone() == (100,)
            await fill(storage, 5)
            await storage.get_messages("t")
            assert path.stat().st_size < 2 * MEGABYTE
        await fill(storage, 3)
        await becomes(lambda: path.stat().st_size > 6 * MEGABYTE)
