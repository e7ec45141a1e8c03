"""Short ways to make and to compare what the tests store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta, timezone
from itertools import count
from typing import Any

import msgspec
import pytest
from msgspec import structs

from mastra_storage.backend import Backend, Op, Put, Query, Result
from mastra_storage.records import Message, Thread, to_microseconds
from mastra_storage.schema import Key, Row, Table
from mastra_storage.storage import Storage

T0 = datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=timezone.utc)

ODD_IDS = (
    "a",
    "?",
    "\0",
    "a\0",
    "a:b",
    "a/b",
    "100%",
    "what?",
    "#1",
    "%2F",
    "🧵 né",
    "__proto__",
    "constructor",
    "42",
    "messages",
    "..",
    ".",
    " ",
    "a\nb",
    "a\0b",
    "\\",
    "'; drop table messages; --",
    '"quoted"',
    "é",  # one code point
    "e\u0301",  # two, which look the same
    "\uffff",
    "\U0010ffff",
    "x" * 256,
    "🧵" * 64,
)

ROWS = Table(
    name="kit_rows",
    key=("box", "id"),
    fields=("color", "owner"),
    ordered=(0, 1),
    recent=True,
)
"""A table of the kit's own, for the tests of the verbs."""

_versions = count(1)


def new_version() -> str:
    """A version that no other write of this process has, as long as those of the engine."""
    return f"kit{next(_versions):017x}"


def at(seconds: float = 0) -> datetime:
    return T0 + timedelta(seconds=seconds)


def micros(seconds: float = 0) -> int:
    return to_microseconds(at(seconds))


def messages(
    thread_id: str, contents: Iterable[Any], *, step: float = 1, start: float = 0
) -> list[Message]:
    """Messages with ids m0, m1 …, each `step` seconds after the one before."""
    return [
        Message(
            id=f"m{number}",
            thread_id=thread_id,
            role="user" if number % 2 == 0 else "assistant",
            content=content,
            created_at=at(start + number * step),
        )
        for number, content in enumerate(contents)
    ]


async def thread_with(storage: Storage, messages: Sequence[Message] = (), **given: Any) -> Thread:
    """A saved thread "t" (or as `given`) with these messages."""
    defaults: dict[str, Any] = {"id": "t", "resource_id": "r", "created_at": at()}
    thread = await storage.save_thread(Thread(**defaults | given))
    if messages:
        await storage.save_messages(messages)
    return thread


def ids(records: Iterable[Any]) -> list[str]:
    return [record.id for record in records]


def contents(messages: Iterable[Message]) -> list[Any]:
    return [message.content for message in messages]


def row(
    box: str = "box",
    id: str = "a",
    *,
    table: Table = ROWS,
    order: float = 0,
    seq: int = 0,
    value: bytes = b"{}",
    **members: Any,
) -> Row:
    """A row of the kit's own table, with a version of its own; `order` in seconds."""
    place = micros(order)
    defaults: dict[str, Any] = {"fields": {}, "updated": place, "version": new_version()}
    members = defaults | members
    return Row(table=table, key=(box, id), order=place, seq=seq, value=value, **members)


async def put(backend: Backend, *rows: Row) -> None:
    await backend.write([Put(row) for row in rows])


async def refused(backend: Backend, error: type[Exception], *ops: Op) -> str:
    """What the error says with which a write of `ops` must fail."""
    try:
        await backend.write(ops)
    except error as exc:
        return str(exc)
    pytest.fail(f"no {error.__name__} was raised by a write of {ops}")


def names(rows: Iterable[Row]) -> list[str]:
    """The last part of the key of each row."""
    return [row.key[-1] for row in rows]


async def stored(backend: Backend, table: Table, *key: str) -> Row:
    """A row that must be there."""
    [row] = await backend.get(table, [key])
    assert row is not None, f"there is no row {key!r} in {table.name}"
    return row


async def found_by(backend: Backend, query: Query) -> Result:
    """The rows of a query up to its limit, in as many steps as the backend takes."""
    result = await backend.query(query)
    rows = list(result.rows)
    while result.cursor is not None and (query.limit is None or len(rows) < query.limit):
        left = None if query.limit is None else query.limit - len(rows)
        step = structs.replace(query, after=result.cursor, offset=0, limit=left)
        result = await backend.query(step)
        rows += result.rows
    return Result(rows=rows, total=result.total, cursor=result.cursor)


async def plant(backend: Backend, table: Table, key: Key, **members: Any) -> None:
    """Add members to a stored record, as a later version of the library might write them."""
    old = await stored(backend, table, *key)
    value = msgspec.json.encode(msgspec.json.decode(old.value) | members)
    await put(backend, structs.replace(old, value=value, version=new_version()))


async def members(backend: Backend, table: Table, *key: str) -> dict[str, Any]:
    """The stored JSON of a record."""
    row = await stored(backend, table, *key)
    return msgspec.json.decode(row.value, type=dict[str, Any])
