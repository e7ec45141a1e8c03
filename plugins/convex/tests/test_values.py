"""What records may hold, in every member of every kind of record: nothing is changed on the way."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, get_type_hints

import msgspec
import pytest
from convex_server import ConvexServer
from convex_stores import convex_store
from msgspec import structs

from mastra_storage import (
    TABLES,
    InvalidRecordError,
    Message,
    Put,
    Query,
    Row,
    Storage,
    Table,
    Thread,
)

IDS = (
    "$ref",
    "_id",
    "a\0b",
    "\uffff",
    "🧵\u2028né",
    "'; \"\\\n",
    "null",
    "1.0",
    " ",
    "..",
    "x" * 250,
)
TEXTS = ("", *IDS, "x" * 5_000)


def nested(depth: int) -> Any:
    """A value of `depth` containers, one inside the other."""
    value: Any = "deep"
    for level in range(depth):
        value = [value] if level % 2 else {"$k": value}
    return value


OBJECT = {
    "$ref": {"$oid": 1, "$": None},
    "_id": "x",
    "_creationTime": 2**53 + 1,
    "": {"": []},
    "clé 🔑\0": "\0\u2028",
    "__proto__": {"constructor": 1},
    "x" * 2_000: True,
    "numbers": [2**53 + 1, -(2**63), 2**64, 10**30, 1.0, 1, -0.0, 1e-300, 0.1 + 0.2, 1e16],
    "deep": nested(97),
}
JSON: tuple[Any, ...] = (
    None,
    True,
    0,
    "",
    "text",
    [],
    {},
    OBJECT,
    [OBJECT, None, [[]]],
    nested(99),
    10**30,
    1.0,
)


def exactly(record: Any) -> bytes:
    """As JSON, in which 1, 1.0 and True differ."""
    return msgspec.json.encode(record)


@pytest.fixture
async def store(convex: ConvexServer) -> AsyncIterator[Storage]:
    async with convex_store(convex) as storage:
        yield storage


def member(kind: str, number: int, value: Any) -> Any:
    """What a member of this kind holds in the record of this number."""
    match kind:
        case "id":
            return f"{number}{IDS[number % len(IDS)]}"
        case "text":
            return TEXTS[number % len(TEXTS)]
        case "json":
            return value
        case "object":
            return value if isinstance(value, dict) else {TEXTS[number % len(TEXTS)]: value}
        case _:
            return value if isinstance(value, list) else [value]


def records(table: Table) -> list[Any]:
    """Records with every odd value in each member that may have it."""
    assert table.record is not None
    hints = get_type_hints(table.record, include_extras=True)
    kinds = {
        name: kind.__metadata__[0] for name, kind in hints.items() if hasattr(kind, "__metadata__")
    }
    return [
        table.record(
            **{
                name: member(kind, number + place, value)
                for place, (name, kind) in enumerate(kinds.items())
                if kind != "time"
            }
        )
        for number, value in enumerate(JSON)
    ]


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
async def test_every_member_comes_back_as_it_was(store: Storage, table: Table) -> None:
    made = records(table)
    await store.batch_insert(table.name, made)
    keys = [tuple(str(getattr(record, part)) for part in table.key) for record in made]
    found = await store.backend.get(table, keys)
    assert [row and table.record_of(row) for row in found] == made
    for row, record in zip(found, made, strict=True):
        assert row is not None
        assert exactly(table.record_of(row)) == exactly(record)
    listed = await store.backend.query(Query(table=table))
    assert sorted(row.key for row in listed.rows) == sorted(keys)
    for row in listed.rows:
        assert row in found


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
async def test_members_of_a_later_version_stay(store: Storage, table: Table) -> None:
    [record, *_] = records(table)
    row = table.row(record, seq=1, version="v1")
    members = msgspec.json.decode(row.value) | {"$new": OBJECT, "newer": nested(90), "": None}
    later = structs.replace(row, value=msgspec.json.encode(members))
    await store.backend.write([Put(later)])
    [found] = await store.backend.get(table, [row.key])
    assert found is not None
    assert msgspec.json.decode(found.value) == members
    assert exactly(msgspec.json.decode(found.value)) == exactly(members)
    assert table.record_of(found) == record


async def test_rows_of_adapters_are_kept_byte_for_byte(store: Storage) -> None:
    table = Table(name="own_rows", key=("a", "b"), fields=("owner",), ordered=(1,))
    rows = [
        Row(
            table=table,
            key=(IDS[n % len(IDS)], TEXTS[n % len(TEXTS)]),
            value=value,
            order=n,
            seq=n,
            fields={"owner": IDS[-n]},
            updated=n,
            version=f"v{n}",
        )
        for n, value in enumerate(
            [b"{}", b' {"a" : 1.0e0, "a":2} ', b"1E400", b"not JSON", "né🧵".encode(), b"\0", b""]
        )
    ]
    await store.backend.write([Put(row) for row in rows])
    assert await store.backend.get(table, [row.key for row in rows]) == rows
    for row in rows:
        for query in (
            Query(table=table, prefix=row.key[:1]),
            Query(table=table, fields={"owner": (row.fields["owner"],)}),
        ):
            assert (await store.backend.query(query)).rows == [row]


async def test_nesting_past_the_limit_is_refused_before_anything_is_sent(
    convex: ConvexServer, store: Storage
) -> None:
    await store.save_thread(Thread(id="t", resource_id="r"))
    await convex.reset(clear=False)
    for content in (nested(101), float("nan"), "lone \ud800", {1: 2}):
        batch = [
            Message(thread_id="t", role="user", content="fine"),
            Message(thread_id="t", role="user", content=content),
        ]
        with pytest.raises(InvalidRecordError, match="content"):
            await store.save_messages(batch)
    assert await convex.counts() == {}
    deepest = Message(thread_id="t", role="user", content=nested(100))
    await store.save_message(deepest)
    assert await store.get_messages("t") == [deepest]
