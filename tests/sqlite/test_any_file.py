"""Whatever the file holds, calls give a result or a `StorageError`."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mastra_storage import Include, Message, MessageUpdate, Storage, StorageError, Thread, Trace
from mastra_storage.backends.sqlite import SqliteBackend

CALLS: dict[str, Callable[[Storage], Awaitable[Any]]] = {
    "get_thread_by_id": lambda s: s.get_thread_by_id("t"),
    "list_threads": lambda s: s.list_threads(order_by="updated_at"),
    "get_messages": lambda s: s.get_messages("t"),
    "get_messages around": lambda s: s.get_messages("t", last=1, include=[Include("m1", next=1)]),
    "get_messages_paginated": lambda s: s.get_messages_paginated("t", page=1, per_page=1),
    "get_messages_by_id": lambda s: s.get_messages_by_id("t", ["m0", "m2"]),
    "get_traces": lambda s: s.get_traces(),
    "get_workflow_run": lambda s: s.get_workflow_run("run"),
    "save_message": lambda s: s.save_message(message(1)),
    "update_messages": lambda s: s.update_messages("t", [MessageUpdate("m1", metadata={"a": 1})]),
    "update_thread": lambda s: s.update_thread("t", title="new"),
    "delete_thread": lambda s: s.delete_thread("t"),
    "watch_messages": lambda s: anext(s.watch_messages("t")),
    "tables": lambda s: s.backend.tables(),
}
VALUES = st.none() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text() | st.binary()


def message(number: int) -> Message:
    return Message(id=f"m{number}", thread_id="t", role="user", content="x" * 300)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A file with some rows."""
    path = tmp_path_factory.mktemp("sound") / "agent.db"

    async def fill() -> None:
        async with Storage(SqliteBackend(path)) as storage:
            await storage.save_thread(Thread(id="t", resource_id="r"))
            await storage.save_messages([message(number) for number in range(30)])
            await storage.save_trace(Trace(id="trace", run_id="run"))
            await storage.persist_workflow_snapshot("flow", "run", {"a": 1})

    asyncio.run(fill())
    return path.read_bytes()


async def ask(path: Path, call: Callable[[Storage], Awaitable[Any]]) -> None:
    with suppress(StorageError):
        async with Storage(SqliteBackend(path)) as storage, asyncio.timeout(20):
            await call(storage)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=60)), max_size=4),
    st.floats(0, 1) | st.none(),
    st.sampled_from([*CALLS]),
)
def test_any_bytes(
    sound: bytes, damages: Sequence[tuple[float, bytes]], end: float | None, name: str
) -> None:
    content = bytearray(sound)
    for place, damage in damages:
        start = round(place * (len(content) - len(damage)))
        content[start : start + len(damage)] = damage
    if end is not None:
        del content[round(end * len(content)) :]
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "agent.db"
        path.write_bytes(content)
        asyncio.run(ask(path, CALLS[name]))


@settings(max_examples=80, deadline=None)
@given(data=st.data(), name=st.sampled_from([*CALLS]))
def test_any_values(sound: bytes, data: st.DataObject, name: str) -> None:
    """What another program may have written into the columns."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "agent.db"
        path.write_bytes(sound)
        with closing(sqlite3.connect(path)) as connection:
            tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            table = data.draw(st.sampled_from(sorted(name for (name,) in tables)))
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            column = data.draw(st.sampled_from(columns))
            with suppress(sqlite3.IntegrityError):  # not all columns take everything
                connection.execute(f"UPDATE {table} SET {column} = ?", [data.draw(VALUES)])
            connection.commit()
        asyncio.run(ask(path, CALLS[name]))
