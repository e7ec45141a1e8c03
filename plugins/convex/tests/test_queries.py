"""Queries as calls, and what they find on the server."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from convex_server import ConvexServer
from convex_stores import convex_backend
from mastra_storage_convex import ConvexBackend
from mastra_storage_convex.layout import SLOTS
from mastra_storage_convex.queries import filter_arguments, list_arguments, sorts_here
from mastra_storage_convex.wire import int64
from msgspec import structs

from mastra_storage import (
    ABSENT,
    TABLES,
    ConflictError,
    Delete,
    InvalidArgumentError,
    Message,
    Position,
    Put,
    Query,
    Result,
    Row,
    StorageError,
    Table,
    UnavailableError,
    select,
)

MESSAGES, THREADS = TABLES["messages"], TABLES["threads"]
# More listings than a document has groups for.
WIDE = Table(
    name="wide",
    key=("one", "two", "three"),
    fields=tuple(f"f{number}" for number in range(9)),
    ordered=(0, 2),
    recent=True,
)
BARE = Table(name="bare", key=("one", "two", "three"), ordered=())


@pytest.fixture
async def backend(convex: ConvexServer) -> AsyncIterator[ConvexBackend]:
    backend = convex_backend(convex)
    await backend.open()
    yield backend
    await backend.close()


def row(table: Table, *key: str, order: int = 0, **members: Any) -> Row:
    defaults: dict[str, Any] = {
        "fields": {},
        "updated": order,
        "version": "v",
        "value": b"{}",
        "seq": 0,
    }
    return Row(table=table, key=key, order=order, **(defaults | members))


def message(id: str, size: int, owner: str, order: int) -> Row:
    record = Message(id=id, thread_id="t", role="user", content="x" * size, resource_id=owner)
    return structs.replace(MESSAGES.row(record, seq=0, version="v"), order=order)


async def put(backend: ConvexBackend, *rows: Row) -> None:
    await backend.write([Put(row) for row in rows])


class TestArguments:
    def test_of_a_core_table_name_columns(self) -> None:
        query = Query(
            table=MESSAGES,
            prefix=("t",),
            fields={"resource_id": ("", "r")},
            since=-1,
            descending=True,
            after=Position(5, 6, ("t", "m")),
            offset=2**62,
            limit=10**6,
        )
        path, arguments = list_arguments(query)
        assert path == "messages:list"
        assert msgspec.json.decode(msgspec.json.encode(arguments)) == {
            "prefix": ["t"],
            "resourceId": ["", "r"],
            "since": {"$integer": "//////////8="},
            "orderBy": "created",
            "descending": True,
            "after": {
                "order": {"$integer": "BQAAAAAAAAA="},
                "seq": {"$integer": "BgAAAAAAAAA="},
                "key": ["t", "m"],
            },
            "skip": 2**53,
            "limit": 4096,
        }

    def test_of_other_tables_name_the_listing(self) -> None:
        def slot(**given: Any) -> Any:
            return filter_arguments(Query(table=WIDE, **given)).get("slot")

        assert slot(prefix=("a", "b")) == {"index": 7, "group": ("a", "b")}
        assert slot(fields={"f2": ("x",)}) == {"index": 2, "group": ("x",)}
        assert slot(fields={"f1": ("x", "y"), "f2": ("x",)})["index"] == 2
        assert slot(prefix=("a", "b"), fields={"f2": ("x",)})["index"] == 7
        for unlisted in (
            {},
            {"prefix": ("a",)},
            {"fields": {"f2": ("",)}},
            {"fields": {WIDE.fields[SLOTS - 1]: ("x",)}},
            {"prefix": ("a", "b"), "order_by": "any"},
        ):
            assert slot(**unlisted) is None

    def test_of_fields_that_are_not_indexed_are_refused(self) -> None:
        with pytest.raises(InvalidArgumentError, match="no indexed field 'title'"):
            list_arguments(Query(table=THREADS, fields={"title": ("x",)}))

    def test_numbers_are_the_nearest_there_are(self) -> None:
        assert int(int64(10**30)) == 2**63 - 1
        assert int(int64(-(10**30))) == -(2**63)

    @pytest.mark.parametrize(
        ("query", "sorted_here"),
        [
            (Query(table=THREADS), False),
            (Query(table=THREADS, order_by="recent", fields={"resource_id": ("r",)}), False),
            (Query(table=MESSAGES, prefix=("t",)), False),
            (Query(table=MESSAGES, prefix=("t",), order_by="recent"), True),
            (Query(table=MESSAGES), True),
            (Query(table=MESSAGES, limit=0, count=True), False),
            (Query(table=MESSAGES, order_by="any"), False),
            (Query(table=TABLES["traces"]), False),
            (Query(table=TABLES["traces"], order_by="recent"), True),
            (Query(table=TABLES["resources"]), True),
            (Query(table=BARE), False),
            (Query(table=BARE, prefix=("a",)), True),
            (Query(table=BARE, prefix=("a",), order_by="any"), False),
            (Query(table=WIDE, prefix=("a", "b")), False),
            (Query(table=WIDE, prefix=("a", "b"), order_by="recent"), True),
            (Query(table=WIDE, fields={"f1": ("x",)}, order_by="recent"), False),
        ],
    )
    def test_orders_without_an_index_are_sorted_here(self, query: Query, sorted_here: bool) -> None:
        assert sorts_here(query) == sorted_here


@pytest.mark.parametrize("table", [WIDE, BARE, *TABLES.values()], ids=lambda table: table.name)
async def test_any_query_finds_what_the_reference_finds(
    backend: ConvexBackend, table: Table
) -> None:
    numbers = random.Random(4)
    some = ("", "a", "b", "a\0", "é🧵")
    rows = {
        key: row(
            table,
            *key,
            order=numbers.randrange(4),
            seq=numbers.randrange(3),
            touched=numbers.choice((None, 1, 9)),
            version=f"v{number}",
            fields={name: text for name, text in fields.items() if text},
        )
        for number in range(90)
        for key in [tuple(numbers.choice(some) for _ in table.key)]
        for keyed in [dict(zip(table.key, key, strict=True))]
        for fields in [{n: keyed.get(n, numbers.choice(("x", "y", ""))) for n in table.fields}]
    }
    await put(backend, *rows.values())
    for _ in range(150):
        places = [*rows.values()]
        query = Query(
            table=table,
            prefix=numbers.choice(places).key[: numbers.randrange(len(table.key) + 1)],
            fields={
                name: tuple(numbers.sample(("x", "y", ""), numbers.choice((1, 1, 2))))
                for name in numbers.sample(
                    table.fields, min(len(table.fields), numbers.choice((0, 1, 2)))
                )
            },
            since=numbers.choice((None, None, 1)),
            until=numbers.choice((None, None, 2)),
            order_by=numbers.choice(("created", "recent")),
            descending=numbers.random() < 0.5,
            offset=numbers.choice((0, 0, 2)),
            limit=numbers.choice((None, 0, 1, 5)),
            count=numbers.random() < 0.5,
        )
        if numbers.random() < 0.3:
            below = [row for row in places if row.key[: len(query.prefix)] == query.prefix]
            query = structs.replace(query, after=query.position(numbers.choice(below)))
        assert await backend.query(query) == select(rows.values(), query), query


async def test_an_order_without_an_index_is_refused_by_the_functions(
    backend: ConvexBackend,
) -> None:
    """They are never asked for it here; a page of somebody's own could be."""
    await put(backend, row(MESSAGES, "t", "m"))
    for query, order in (
        (Query(table=MESSAGES), "created"),
        (Query(table=MESSAGES, prefix=("t",)), "recent"),
        (Query(table=TABLES["resources"]), "created"),
        (Query(table=TABLES["evals"]), "recent"),
    ):
        path, arguments = list_arguments(query)
        with pytest.raises(StorageError, match=f"the function {path} failed"):
            await backend._client.query(path, arguments | {"orderBy": order}, dict)


class TestManyCalls:
    async def test_all_rows_come_however_large(self, backend: ConvexBackend) -> None:
        for number in range(10):
            await put(backend, message(f"m{number}", 900_000, "a", number))
        query = Query(table=MESSAGES, prefix=("t",), count=True)
        found = await backend.query(query)
        assert [row.key[1] for row in found.rows] == [f"m{n}" for n in range(10)]
        assert (found.total, found.cursor) == (10, None)
        part = await backend.query(structs.replace(query, offset=8, limit=1))
        assert [row.key[1] for row in part.rows] == ["m8"]
        keys = [("t", f"m{number}") for number in (9, 20, *range(10), 9)]
        rows = await backend.get(MESSAGES, keys)
        assert [row and row.key[1] for row in rows] == [
            None if key[1] == "m20" else key[1] for key in keys
        ]

    async def test_more_than_one_call_gives(
        self, backend: ConvexBackend, convex: ConvexServer
    ) -> None:
        table = structs.replace(BARE, name="many")
        for start in (0, 2_000, 4_000):
            await put(
                backend,
                *[row(table, "a", "b", f"{n}", order=n) for n in range(start, start + 2_000)],
            )
        query = Query(table=table)
        await convex.reset(clear=False)
        found = await backend.query(query)
        assert [row.order for row in found.rows] == [*range(6_000)]
        assert (await convex.counts())["query documents:list"] == 2
        for limit in (4_095, 4_096, 4_097, 5_999):
            part = await backend.query(structs.replace(query, limit=limit))
            assert (len(part.rows), part.cursor) == (limit, query.position(part.rows[-1]))
        late = await backend.query(structs.replace(query, offset=5_998, limit=5, count=True))
        assert [row.order for row in late.rows] == [5_998, 5_999]
        assert (late.total, late.cursor) == (6_000, None)
        keys = [("a", "b", f"{number}") for number in range(0, 6_000, 2)]
        assert [row and row.key for row in await backend.get(table, keys)] == keys

    @pytest.mark.parametrize("more", [False, True])
    async def test_whether_more_is_left_is_found_out(
        self, backend: ConvexBackend, convex: ConvexServer, more: bool
    ) -> None:
        owners = ["a", "a", *["b"] * 9, *["a"] * more]
        for number, owner in enumerate(owners):
            await put(backend, message(f"m{number}", 900_000, owner, number))
        query = Query(table=MESSAGES, prefix=("t",), fields={"resource_id": ("a",)}, limit=2)
        await convex.reset(clear=False)
        found = await backend.query(query)
        assert [row.order for row in found.rows] == [0, 1]
        assert found.cursor == (query.position(found.rows[-1]) if more else None)
        assert await convex.counts() == {"query messages:list": 2}

    async def test_a_walk_goes_on_where_rows_were_deleted(self, backend: ConvexBackend) -> None:
        for number in range(10):
            await put(backend, message(f"m{number}", 900_000, "a", number))
        query = Query(table=MESSAGES, prefix=("t",), limit=3)
        first = await backend.query(query)
        await backend.write([Delete(MESSAGES, row.key) for row in first.rows])
        rest = await backend.query(structs.replace(query, after=first.cursor, limit=None))
        assert [row.order for row in rest.rows] == [*range(3, 10)]


async def test_counting_goes_beside_listing(backend: ConvexBackend, convex: ConvexServer) -> None:
    await put(backend, *[row(BARE, "a", "b", f"{n}", order=n) for n in range(5)])
    await convex.reset(clear=False)
    await convex.control(faults=[{"kind": "delay", "ms": 1_000, "times": 2}])
    start = asyncio.get_running_loop().time()
    found = await backend.query(Query(table=BARE, limit=1, count=True))
    assert (len(found.rows), found.total) == (1, 5)
    assert asyncio.get_running_loop().time() - start < 1.9
    assert await convex.counts() == {"query documents:list": 1, "query documents:count": 1}


async def test_a_query_that_cannot_be_answered_fails_whole(
    backend: ConvexBackend, convex: ConvexServer
) -> None:
    await put(backend, row(BARE, "a", "b", "c"))
    for part in ("list", "count"):
        fault = {"kind": "error", "match": f"documents:{part}", "message": "Uncaught Error: no"}
        await convex.control(faults=[fault])
        with pytest.raises(Exception, match=f"documents:{part} failed") as caught:
            await backend.query(Query(table=BARE, count=True))
        assert not isinstance(caught.value, (ExceptionGroup, UnavailableError))


async def test_tables_are_named_as_they_are_here(backend: ConvexBackend) -> None:
    assert await backend.tables() == []
    run = TABLES["workflow_snapshot"]
    value = b'{"runId":"r","workflowName":"w"}'
    await put(backend, row(run, "w", "r", value=value), row(WIDE, "a", "b", "c"))
    await put(backend, *[row(structs.replace(BARE, name=f"t{n}"), "a", "b", "c") for n in range(5)])
    assert sorted(await backend.tables()) == [
        "t0",
        "t1",
        "t2",
        "t3",
        "t4",
        "wide",
        "workflow_snapshot",
    ]


@pytest.mark.parametrize(
    "value",
    [
        b"{}",
        b"[1.0]",
        b'{"id":"t","title":null,"resourceId":["r"],"metadata":[],"createdAt":1e3}',
        b'{"$value":{"$ref":1.0},"id":"t"}',
    ],
)
async def test_rows_that_are_no_records_survive(backend: ConvexBackend, value: bytes) -> None:
    odd = row(THREADS, "t", value=value, fields={"resource_id": "r"}, touched=5)
    await put(backend, odd)
    assert await backend.get(THREADS, [("t",)]) == [odd]
    query = Query(table=THREADS, fields={"resource_id": ("r",)}, order_by="recent")
    assert (await backend.query(query)).rows == [odd]


async def test_rows_expire_by_the_clock_of_the_deployment(
    backend: ConvexBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a read and a write agree on what is there, however wrong the clock here is."""
    now = time.time_ns()
    gone, there = (row(BARE, "a", "b", n, order=int(n)) for n in ("1", "2"))
    gone = structs.replace(gone, expires_at=now // 1000 - 10**6)
    there = structs.replace(there, expires_at=now // 1000 + 10**9)
    await put(backend, gone, there)
    for skew in (-(10**15), 0, 10**15):
        monkeypatch.setattr(time, "time_ns", lambda skew=skew: now + skew)
        monkeypatch.setattr(time, "time", lambda skew=skew: (now + skew) / 10**9)
        assert await backend.get(BARE, [gone.key, there.key]) == [None, there]
        assert (await backend.query(Query(table=BARE, count=True))) == Result(rows=[there], total=1)
        with pytest.raises(ConflictError):
            await backend.write([Put(structs.replace(there, version="w"), if_version=ABSENT)])
    monkeypatch.undo()
    await backend.write([Put(structs.replace(gone, version="w"), if_version=ABSENT)])
