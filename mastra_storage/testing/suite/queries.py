"""The verb that finds: prefix, fields, ranges, orders, positions, limits, counts."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from mastra_storage.backend import Backend, Delete, Query, select
from mastra_storage.schema import Row
from mastra_storage.testing.suite._base import Base, full
from mastra_storage.testing.suite._build import ODD_IDS, ROWS, found_by, micros, names, put, row


def sample() -> list[Row]:
    """Rows of which no two orders agree, with ties in every one of them."""
    places = [
        # box, id, order, seq, updated, touched, color, owner
        ("x", "f", 0, 1, 9, None, "red", "me"),
        ("x", "e", 0, 0, 3, 20, "red", None),
        ("y", "d", 0, 0, 5, None, None, "me"),
        ("x", "c", 1, 0, 5, 4, "blue", "you"),
        ("y", "b", 2, 7, 1, 9, "red", "you"),
        ("x:y", "a", 2, 7, 9, None, "blue", None),
        ("x", "z", -5, 3, -5, None, "gréen", "me"),
        ("x", "y", 5, 0, 5, None, None, None),
    ]
    return [
        row(
            box,
            id,
            order=order,
            seq=seq,
            updated=micros(updated),
            touched=None if touched is None else micros(touched),
            fields={k: v for k, v in (("color", color), ("owner", owner)) if v is not None},
        )
        for box, id, order, seq, updated, touched, color, owner in places
    ]


FILTERS: tuple[dict[str, Any], ...] = (
    {},
    {"prefix": ("x",)},
    {"prefix": ("x", "c")},
    {"prefix": ("nobody",)},
    {"fields": {"color": ("red",)}},
    {"fields": {"color": ("red", "blue")}},
    {"fields": {"color": ("",)}},
    {"fields": {"owner": ("", "me")}, "prefix": ("x",)},
    {"fields": {"color": ("red",), "owner": ("me",)}},
    {"fields": {"color": ("nothing",)}},
    {"fields": {"color": ()}},
    {"since": micros(0), "until": micros(2)},
    {"since": micros(1)},
    {"until": micros(0), "prefix": ("x",)},
    {"since": micros(3), "until": micros(1)},
)


async def walk(backend: Backend, query: Query) -> list[Row]:
    """All rows of a query, by the cursor of each result."""
    rows: list[Row] = []
    for _ in range(1_000):
        result = await backend.query(query)
        rows += result.rows
        if result.cursor is None:
            return rows
        query = structs.replace(query, after=result.cursor, offset=0)
    pytest.fail("the cursors of this query do not come to an end")


class QueryTests(Base):
    async def matches(self, backend: Backend, rows: list[Row], query: Query) -> None:
        """The backend finds, by whatever steps, what the reference finds."""
        expected = select(rows, structs.replace(query, count=True))
        first = await backend.query(structs.replace(query, count=True))
        assert first.total == expected.total
        found = await found_by(backend, query)
        assert found.rows == expected.rows, query
        assert (found.cursor is None) == (expected.cursor is None), query

    @full
    async def test_a_count_is_of_all_rows_that_match(self, backend: Backend) -> None:
        rows = [row(id=id, order=n) for n, id in enumerate("abcde")]
        await put(backend, *rows, row("elsewhere"))
        query = Query(table=ROWS, prefix=("box",), count=True)
        behind = structs.replace(query, after=query.position(rows[2]))
        for asked in (query, structs.replace(query, limit=2), behind):
            assert (await backend.query(asked)).total == 5, asked

    @full
    async def test_a_cursor_says_whether_rows_are_left(self, backend: Backend) -> None:
        await put(backend, *[row(id=id, order=n) for n, id in enumerate("abcd")])
        query = Query(table=ROWS, prefix=("box",), limit=3)
        first = await found_by(backend, query)
        assert names(first.rows) == ["a", "b", "c"]
        assert first.cursor is not None, "a row is left, and nothing says so"
        for last in (
            structs.replace(query, after=first.cursor),
            structs.replace(query, limit=4),
            structs.replace(query, limit=None),
        ):
            found = await found_by(backend, last)
            assert names(found.rows)[-1] == "d"
            assert found.cursor is None, "no row is left"

    async def test_filters_and_orders(self, backend: Backend) -> None:
        rows = sample()
        await put(backend, *rows)
        for filters in FILTERS:
            for order_by in ("created", "recent"):
                for descending in (False, True):
                    query = Query(
                        table=ROWS,
                        order_by=order_by,
                        descending=descending,
                        **filters,
                    )
                    await self.matches(backend, rows, query)
                    await self.matches(backend, rows, structs.replace(query, limit=2))
                    await self.matches(backend, rows, structs.replace(query, offset=1, limit=2))

    async def test_a_bare_query_gives_the_same_values(self, backend: Backend) -> None:
        rows = sample()
        await put(backend, *rows)
        for descending in (False, True):
            for limit in (None, 2):
                query = Query(table=ROWS, prefix=("x",), descending=descending, limit=limit)
                found = await found_by(backend, structs.replace(query, bare=True))
                expected = select(rows, query).rows
                assert [row.value for row in found.rows] == [row.value for row in expected]

    async def test_equal_places_are_in_the_order_of_keys(self, backend: Backend) -> None:
        """By code points, whatever sorts text otherwise: as UTF-16, or a language."""
        ids = [id for id in ("B", "b", "ä", *ODD_IDS) if len(id) < 64]
        keys = [*[("box", id) for id in ids], *[("Box", id) for id in "Bbä"]]
        rows = [row(*key) for key in dict.fromkeys(keys)]
        await put(backend, *rows)
        for prefix in ((), ("box",)):
            for descending in (False, True):
                query = Query(table=ROWS, prefix=prefix, descending=descending)
                await self.matches(backend, rows, query)
                assert await walk(backend, structs.replace(query, limit=5)) == (
                    select(rows, query).rows
                )

    @full
    async def test_offsets_and_limits_at_the_edges(self, backend: Backend) -> None:
        rows = sample()
        await put(backend, *rows)
        base = Query(table=ROWS, prefix=("x",))
        for offset in (0, 4, 5, 6, 2**62):
            for limit in (None, 1, 5, 2**31):
                await self.matches(backend, rows, structs.replace(base, offset=offset, limit=limit))
        none = await backend.query(structs.replace(base, limit=0, count=True))
        assert (none.rows, none.total) == ([], 5)

    async def test_nothing_is_counted_unasked(self, backend: Backend) -> None:
        await put(backend, row())
        assert (await backend.query(Query(table=ROWS))).total is None

    async def test_every_place_is_one_to_continue_from(self, backend: Backend) -> None:
        rows = sample()
        await put(backend, *rows)
        for order_by in ("created", "recent"):
            for descending in (False, True):
                for prefix in ((), ("x",)):
                    query = Query(
                        table=ROWS,
                        prefix=prefix,
                        order_by=order_by,
                        descending=descending,
                    )
                    for place in select(rows, query).rows:
                        behind = structs.replace(query, after=query.position(place), limit=3)
                        await self.matches(backend, rows, behind)
                        await self.matches(backend, rows, structs.replace(behind, offset=1))

    async def test_a_position_outlives_its_row(self, backend: Backend) -> None:
        rows = [row(id=id, order=n) for n, id in enumerate("abcd")]
        await put(backend, *rows)
        query = Query(table=ROWS, prefix=("box",), limit=2)
        first = await found_by(backend, query)
        assert first.cursor is not None
        await backend.write([Delete(ROWS, rows[1].key)])
        rest = await found_by(backend, structs.replace(query, after=first.cursor))
        assert names(rest.rows) == ["c", "d"]
        assert rest.cursor is None

    @full
    async def test_walks_by_cursor_meet_every_row_once(self, backend: Backend) -> None:
        rows = sample()
        await put(backend, *rows)
        for order_by in ("created", "recent"):
            for limit in (1, 3):
                query = Query(table=ROWS, order_by=order_by, limit=limit)
                assert await walk(backend, query) == select(rows, query_all(query)).rows

    async def test_any_order_meets_every_row_once(self, backend: Backend) -> None:
        rows = sample()
        await put(backend, *rows)
        for limit in (None, 1, 3, 100):
            found = await walk(backend, Query(table=ROWS, order_by="any", limit=limit))
            assert sorted(found, key=lambda r: r.key) == sorted(rows, key=lambda r: r.key)
        inside = await walk(backend, Query(table=ROWS, order_by="any", prefix=("x",), limit=2))
        assert sorted(names(inside)) == ["c", "e", "f", "y", "z"]

    async def test_any_order_survives_deletes_on_the_way(self, backend: Backend) -> None:
        await put(backend, *sample())
        query = Query(table=ROWS, order_by="any", limit=2)
        seen: list[Row] = []
        while True:
            result = await backend.query(query)
            await backend.write([Delete(ROWS, r.key) for r in result.rows])
            seen += result.rows
            if result.cursor is None:
                break
            query = structs.replace(query, after=result.cursor)
        assert sorted(names(seen)) == sorted(names(sample()))


def query_all(query: Query) -> Query:
    return structs.replace(query, limit=None)
