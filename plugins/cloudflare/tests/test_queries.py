"""Any query, walked by cursor, gives what the reference meaning of queries gives."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mastra_storage_cloudflare import CloudflareBackend
from mastra_storage_cloudflare.kv import Found, Listing, Pair
from memory_kv import MemoryKV
from msgspec import structs

from mastra_storage import (
    Message,
    NotFoundError,
    Put,
    Query,
    Row,
    Storage,
    Table,
    Thread,
    select,
)

ROWS = Table(
    name="rows",
    key=("box", "id"),
    fields=("color", "owner"),
    ordered=(0, 1),
    listings=(0, 1, "color"),
    recent=True,
)
LONG = "x" * 256  # its key is a hash

IDS = st.sampled_from(["a", "b", "c:", "c%3A", "d", "🧵", LONG, LONG + "y"])
COLORS = st.sampled_from(["", "red", "r" * 120])
SMALL = st.integers(0, 3)


@st.composite
def rows(draw: st.DrawFn) -> Row:
    key = (draw(st.sampled_from(["x", "y"])), draw(IDS))
    fields = {"color": draw(COLORS), "owner": draw(COLORS)}
    order = draw(SMALL)
    return Row(
        table=ROWS,
        key=key,
        value=record(key, fields),
        order=order,
        # Rows of one place are sorted by their keys, where these are no hashes.
        seq=len(key[1]) + ord(key[0]) if key[1].startswith(LONG) else draw(st.integers(0, 1)),
        fields={name: value for name, value in fields.items() if value},
        updated=draw(st.sampled_from([order, 9])),
        touched=draw(st.none() | st.integers(0, 12)),
        version="v",
    )


def record(key: tuple[str, str], fields: dict[str, str]) -> bytes:
    return msgspec.json.encode({"box": key[0], "id": key[1], **fields})


QUERIES = st.builds(
    Query,
    table=st.just(ROWS),
    prefix=st.sampled_from([(), ("x",), ("y",), ("x", "a"), ("x", LONG)]),
    fields=st.dictionaries(
        st.sampled_from(["color", "owner"]),
        st.lists(COLORS, min_size=1, max_size=2, unique=True).map(tuple),
    ),
    since=st.none() | SMALL,
    until=st.none() | SMALL,
    order_by=st.sampled_from(["created", "created", "recent", "any"]),
    descending=st.booleans(),
    offset=st.sampled_from([0, 0, 1, 3]),
    limit=st.none() | st.integers(1, 5),
    count=st.booleans(),
)


async def walk(backend: CloudflareBackend, query: Query) -> tuple[list[Row], int | None]:
    found: list[Row] = []
    result = await backend.query(query)
    total = result.total
    while True:
        assert query.limit is None or len(result.rows) <= query.limit
        found += result.rows
        if result.cursor is None:
            return found, total
        assert len(result.cursor.hint) <= 1024
        after = structs.replace(query, after=result.cursor, offset=0)
        result = await backend.query(after)
        assert result.total == total


@settings(deadline=None, max_examples=200)
@given(
    given_rows=st.lists(rows(), max_size=14, unique_by=lambda row: row.key),
    query=QUERIES,
    own=st.booleans(),
)
def test_any_query(given_rows: list[Row], query: Query, own: bool) -> None:
    if query.order_by == "any":
        query = structs.replace(query, offset=0, count=False, descending=False)

    async def both() -> None:
        kv = MemoryKV()
        writer = CloudflareBackend(kv, key_interval=0)
        await writer.write([Put(row) for row in given_rows])
        reader = writer if own else CloudflareBackend(kv, key_interval=0)
        found, total = await walk(reader, query)
        expected = select(given_rows, structs.replace(query, limit=None))
        if query.order_by == "any":
            assert sorted(found, key=by_key) == sorted(expected.rows, key=by_key)
        else:
            assert found == expected.rows
            assert total == expected.total

    asyncio.run(both())


def by_key(row: Row) -> Any:
    return row.key


@pytest.mark.parametrize("descending", [False, True])
async def test_what_another_store_moved_is_listed_and_counted_where_it_stands(
    descending: bool,
) -> None:
    kv = MemoryKV()
    ours, theirs = (CloudflareBackend(kv, key_interval=0) for _ in range(2))

    def made(id: str, order: int, color: str) -> Put:
        key, fields = ("x", id), {"color": color}
        row = Row(ROWS, key, record(key, fields), order, 1, fields, order, None, f"{id}{order}")
        return Put(row, keep_place=False)

    async def red(backend: CloudflareBackend) -> tuple[list[Row], int | None]:
        query = Query(table=ROWS, fields={"color": ("red",)}, count=True, descending=descending)
        return await walk(backend, query)

    a, b = made("a", 3, "red"), made("b", 2, "red")
    await ours.write([made("a", 1, "red"), b])
    await theirs.write([a])
    expected = [a.row, b.row] if descending else [b.row, a.row]
    assert await red(theirs) == (expected, 2)
    await CloudflareBackend(kv, key_interval=0).write([made("b", 2, "blue")])
    for backend in (ours, theirs):
        assert await red(backend) == ([a.row], 1)


@pytest.mark.parametrize("count", [1, 2, 5, 25])
async def test_rows_of_one_place_and_of_many(count: int) -> None:
    kv = MemoryKV()
    backend = CloudflareBackend(kv, key_interval=0)
    every = [
        Row(
            table=ROWS,
            key=("x", f"{n:03}"),
            value=record(("x", f"{n:03}"), {}),
            order=n // 40,
            seq=0,
            fields={},
            updated=n // 40,
            version="v",
        )
        for n in range(100)
    ]
    await backend.write([Put(row) for row in every])
    query = Query(table=ROWS, prefix=("x",), descending=True, limit=count)
    found, _ = await walk(backend, query)
    assert found == every[::-1]


async def test_entries_whose_records_are_gone_or_moved_are_passed_over() -> None:
    kv = MemoryKV()
    backend = CloudflareBackend(kv, key_interval=0, consistency_seconds=0)
    every = [
        Row(
            table=ROWS,
            key=("x", str(n)),
            value=record(("x", str(n)), {}),
            order=n,
            seq=0,
            fields={},
            updated=n,
            version="v",
        )
        for n in range(6)
    ]
    await backend.write([Put(row) for row in every])
    ghosts = {name: pair for name, pair in kv.pairs.items() if ".newest" in name}
    other = CloudflareBackend(kv, key_interval=0)
    moved = structs.replace(every[4], order=9, updated=9)
    await other.write([Put(moved)])
    del kv.pairs["mastra_rows:x:2"]
    kv.pairs |= ghosts
    for limit in (1, 2, 10, None):
        query = Query(table=ROWS, prefix=("x",), descending=True, limit=limit)
        found, _ = await walk(CloudflareBackend(kv), query)
        assert found == [moved, every[5], every[3], every[1], every[0]]


@pytest.mark.parametrize("order", [1, 7])
async def test_a_row_of_which_kv_left_out_the_new_index_key_stands_where_it_was(
    order: int,
) -> None:
    kv = MemoryKV()
    old = [
        Row(
            table=ROWS,
            key=("x", str(n)),
            value=record(("x", str(n)), {}),
            order=n,
            seq=n,
            fields={},
            updated=n,
            version="v",
        )
        for n in range(3)
    ]
    await CloudflareBackend(kv, key_interval=0).write([Put(row) for row in old])
    stored = set(kv.pairs)
    replaced = structs.replace(old[1], value=record(("x", "1"), {"color": "red"}), version="w")
    # A store that does not know where the row stands gives it a new place.
    await CloudflareBackend(kv, key_interval=0).write(
        [Put(structs.replace(replaced, order=order, seq=9))]
    )
    left_out = [name for name in set(kv.pairs) - stored if ".newest1" in name]
    assert len(left_out) == 1
    del kv.pairs[left_out[0]]
    for limit in (1, 2, 10, None):
        query = Query(table=ROWS, prefix=("x",), descending=True, limit=limit)
        found, _ = await walk(CloudflareBackend(kv), query)
        assert [row.key[1] for row in found] == ["2", "1", "0"]
        assert found[1].value == replaced.value


async def test_a_walk_passes_over_rows_that_are_gone_since_they_were_listed() -> None:
    class Generous(MemoryKV):
        """Lists ten keys at least, as the API does."""

        async def keys(
            self, namespace: str, prefix: str, *, cursor: str | None = None, limit: int
        ) -> Listing:
            return await super().keys(namespace, prefix, cursor=cursor, limit=max(limit, 10))

        async def get(self, namespace: str, keys: Sequence[str]) -> dict[str, Found]:
            found = await super().get(namespace, keys)
            return {key: value for key, value in found.items() if "gone" not in key}

    kv = Generous()
    writer, backend = CloudflareBackend(kv, key_interval=0), CloudflareBackend(kv)
    names = ["a", "gone1", "gone2", "gone3", "x", "y"]
    rows = [
        Row(ROWS, ("b", name), record(("b", name), {}), order=0, seq=0, fields={}, version="v")
        for name in names
    ]
    await writer.open()
    await writer.write([Put(row) for row in rows])
    await backend.open()
    found: list[str] = []
    query: Query | None = Query(table=ROWS, prefix=("b",), order_by="any", limit=1)
    while query is not None:
        result = await backend.query(query)
        found += [row.key[1] for row in result.rows]
        query = structs.replace(query, after=result.cursor) if result.cursor else None
    await backend.close()
    await writer.close()
    assert found == ["a", "x", "y"]


async def test_a_thread_that_is_read_while_it_is_deleted_takes_no_more_messages() -> None:
    kv = MemoryKV()
    async with Storage(CloudflareBackend(kv, key_interval=0)) as storage:
        await storage.save_thread(Thread(id="t", resource_id="r"))
        put = kv.write

        async def slow(namespace: str, pairs: Sequence[Pair], deletes: Collection[str]) -> None:
            await asyncio.sleep(0.05)
            await put(namespace, pairs, deletes)

        kv.write = slow  # type: ignore[method-assign]
        deleting = asyncio.ensure_future(storage.delete_thread("t"))
        while not any(call.startswith("list") for call in kv.calls):  # noqa: ASYNC110
            await asyncio.sleep(0)
        await asyncio.sleep(0.02)
        await storage.get_thread_by_id("t")
        await deleting
        with pytest.raises(NotFoundError):
            await storage.save_message(Message(thread_id="t", role="user", content="late"))
