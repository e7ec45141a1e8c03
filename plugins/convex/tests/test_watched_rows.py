"""Live queries: which rows they give, of one moment, however many pages it takes."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import datetime, timedelta, timezone

import pytest
from convex_server import ConvexServer
from convex_stores import convex_backend, convex_store
from mastra_storage_convex import ConvexBackend, watching
from watchers import ROWS, put, shown, ticking, value, watch

from mastra_storage import THREADS, Delete, Op, Position, Put, Query, Thread

_figures = logging.getLogger("figures")


@pytest.fixture
async def backend(convex: ConvexServer) -> AsyncIterator[ConvexBackend]:
    backend = convex_backend(convex)
    await backend.open()
    yield backend
    await backend.close()


def at(seconds: float) -> datetime:
    return datetime(2024, 5, 6, tzinfo=timezone.utc) + timedelta(seconds=seconds)


QUERIES = {
    "all": Query(table=ROWS),
    "descending": Query(table=ROWS, descending=True),
    "recent": Query(table=ROWS, order_by="recent", descending=True),
    "recent in a box": Query(table=ROWS, prefix=("b",), order_by="recent", limit=5),
    "a color, counted": Query(table=ROWS, fields={"color": ("red",)}, count=True, limit=3),
    "any": Query(table=ROWS, order_by="any"),
    "a box": Query(table=ROWS, prefix=("b",), descending=True),
    "by key": Query(table=ROWS, prefix=("b", "r1")),
    "a color": Query(table=ROWS, fields={"color": ("red",)}),
    "colors": Query(table=ROWS, fields={"color": ("red", "")}, descending=True),
    "a color in a box": Query(table=ROWS, prefix=("c",), fields={"color": ("red",)}),
    "a time": Query(table=ROWS, since=3, until=9),
    "limited": Query(table=ROWS, limit=7, descending=True),
    "limited to a page": Query(table=ROWS, limit=4),
    "none": Query(table=ROWS, limit=0),
    "from a place": Query(table=ROWS, offset=3, limit=9),
    "far": Query(table=ROWS, offset=30),
    "counted": Query(table=ROWS, count=True, limit=2, offset=1, descending=True),
    "after": Query(table=ROWS, after=Position(5, 0, ("b", "r5"))),
    "after, descending": Query(table=ROWS, after=Position(9, 0, ("c", "")), descending=True),
}


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
async def test_any_query_is_watched_page_by_page(
    backend: ConvexBackend, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "_PAGE_ROWS", 4)
    chance = random.Random(7)
    rows: list[Op] = [
        put(f"r{n}", chance.randrange(12), "bc"[n % 2], color=("red", "blue")[n % 3 // 2])
        for n in range(20)
    ]
    await backend.write(rows)
    async with aclosing(watch(backend, query)) as values:
        found = await value(values)
        for step in range(12):
            expected = await backend.query(query)
            while (found.rows, found.total) != (expected.rows, expected.total):
                found = await value(values)
            name, box = f"r{chance.randrange(30)}", chance.choice("bc")
            change: Op = Delete(ROWS, (box, name))
            if step % 3:
                change = put(name, chance.randrange(12), box, color=chance.choice(["red", "blue"]))
            await backend.write([change])


async def test_pages_are_of_one_moment(
    backend: ConvexBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two rows, on different pages, always say the same; rows come and go before and between."""
    monkeypatch.setattr(watching, "_PAGE_ROWS", 8)

    def twins(number: int) -> list[Op]:
        said = b'{"is":%d}' % number
        return [put("first", 5, value=said), put("last", 95, value=said)]

    await backend.write([*twins(0), *[put(f"r{n}", n) for n in range(0, 100, 2)]])
    chance = random.Random(3)

    async def disturb() -> None:
        for number in range(1, 60):
            n = chance.randrange(100)
            one: Op = Delete(ROWS, ("b", f"r{n}")) if number % 2 else put(f"r{n}", n)
            await backend.write([*twins(number), one])

    disturbing = asyncio.create_task(disturb())
    seen = 0
    async with aclosing(watch(backend, Query(table=ROWS, descending=True))) as values:
        said = b""
        while said != b'{"is":59}':
            rows = (await value(values)).rows
            assert [row.order for row in rows] == sorted([r.order for r in rows], reverse=True)
            assert len({row.key for row in rows}) == len(rows)
            assert 40 <= len(rows) <= 80
            [said, other] = [row.value for row in rows if row.key[1] in ("first", "last")]
            assert said == other
            seen += 1
        await disturbing
        assert rows == (await backend.query(Query(table=ROWS, descending=True))).rows
    assert seen > 5


async def test_all_of_more_threads_than_a_call_gives_are_watched(convex: ConvexServer) -> None:
    store = convex_store(convex)
    count = 4_200
    rows = [
        THREADS.row(
            Thread(id=f"t{n:05}", resource_id="many", created_at=at(n)), seq=n, version=f"v{n}"
        )
        for n in range(count)
    ]
    async with (
        store,
        aclosing(store.watch_threads("many")) as values,
        ticking() as ticker,
    ):
        for start in range(0, count, 1_400):
            await store.backend.write([Put(row) for row in rows[start : start + 1_400]])
        await convex.reset(clear=False)
        ticker.worst_cpu = 0.0
        found = await value(values, 60)
        assert [thread.id for thread in found] == [f"t{n:05}" for n in reversed(range(count))]
        pages = (await convex.counts())["watch threads:list"]
        assert pages < 12
        # The newest, one in the middle, the oldest; and the page alone that it is on.
        for name in (f"t{count - 1:05}", "t02100", "t00000"):
            await convex.reset(clear=False)
            await store.update_thread(name, title=name)
            await shown(values, lambda found: any(thread.title == name for thread in found))  # noqa: B023
            assert (await convex.counts())["watch threads:list"] <= 2
        await store.save_thread(Thread(id="new", resource_id="many"))
        await shown(values, lambda found: found[0].id == "new" and len(found) == count + 1)
        await store.delete_thread("t02100")
        await shown(values, lambda found: len(found) == count)
    _figures.info("4,200 threads: held %d ms of CPU time", ticker.worst_cpu * 1000)
