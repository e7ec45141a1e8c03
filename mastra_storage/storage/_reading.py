"""Reading: whole listings, pages, and scans for what no backend has an index for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime
from typing import Any

from msgspec import structs

from mastra_storage.arguments import count_argument, filter_argument, time_argument
from mastra_storage.backend import Position, Query
from mastra_storage.cursor import decode_cursor, encode_cursor, fingerprint
from mastra_storage.errors import InvalidArgumentError
from mastra_storage.records import Page, to_microseconds
from mastra_storage.schema import Key, Row, Table
from mastra_storage.storage._lifecycle import Lifecycle

# How many rows a scan reads at a time when the engine itself has to filter.
_SCAN_BATCH = 500
_MAX_OFFSET = 2**62


class Reading(Lifecycle):
    """The reading half of the engine."""

    async def _get(self, table: Table, *key: str) -> Row | None:
        [row] = await self.backend.get(table, [key])
        return row

    def _listing(
        self,
        table: Table,
        fields: Mapping[str, str | None],
        from_date: datetime | None,
        to_date: datetime | None,
        *,
        prefix: Key = (),
    ) -> Query:
        """The rows of a table, newest first, with the filters that are not `None`."""
        since, until = time_argument(from_date, "from_date"), time_argument(to_date, "to_date")
        wanted = {name: filter_argument(value, name) for name, value in fields.items()}
        return Query(
            table=table,
            prefix=prefix,
            fields={name: (value,) for name, value in wanted.items() if value is not None},
            since=None if since is None else to_microseconds(since),
            until=None if until is None else to_microseconds(until),
            descending=True,
        )

    async def _all(self, query: Query) -> list[Row]:
        """All rows of a query, however many steps the backend takes."""
        rows: list[Row] = []
        async for batch in self._batches(query):
            rows += batch
        return rows

    async def _batches(self, query: Query) -> AsyncIterator[list[Row]]:
        """The rows of a query as the backend gives them, up to its limit."""
        left = query.limit
        while left is None or left > 0:
            result = await self.backend.query(structs.replace(query, limit=left))
            if left is not None:
                left -= len(result.rows)
            if result.rows:
                yield result.rows
            if result.cursor is None:
                return
            query = structs.replace(query, after=result.cursor, offset=0)

    async def _page(
        self,
        query: Query,
        *,
        page: int,
        per_page: int | None,
        cursor: str | None,
        count: bool,
        accept: Callable[[Any], bool] | None = None,
        accept_id: Any = None,
    ) -> Page[Any]:
        """One page of a listing, as records.

        `accept` filters by what only the record itself holds, at the price of a scan;
        `accept_id` is its part in the identity of the query.
        """
        page = count_argument(page, "page")
        size = None if per_page is None else count_argument(per_page, "per_page")
        mark = fingerprint(query, accept_id)
        after: Position | None = None
        if cursor is not None:
            if page:
                raise InvalidArgumentError("give either page or cursor, not both")
            page, after = decode_cursor(cursor, mark)
        offset, limit = 0, size
        if after is None and size is not None:
            offset = min(page * size, _MAX_OFFSET)
        elif after is None and page:
            limit = 0  # everything is on page 0
        query = structs.replace(query, after=after, offset=offset, count=count)
        if accept is None:
            rows, total, end = await self._find(query, limit)
        else:
            rows, total, end = await self._scan(query, limit, accept)
        return Page(
            items=query.table.records_of(rows),
            total=total,
            page=page,
            per_page=per_page,
            has_more=end is not None,
            next_cursor=encode_cursor(mark, page + 1, end) if end is not None else None,
        )

    async def _find(
        self, query: Query, limit: int | None
    ) -> tuple[list[Row], int | None, Position | None]:
        """Rows that the backend alone can find, their total, and where to continue."""
        rows: list[Row] = []
        total: int | None = None
        while limit != 0 or query.count:
            left = None if limit is None else limit - len(rows)
            result = await self.backend.query(structs.replace(query, limit=left))
            total = total if result.total is None else result.total
            rows += result.rows
            if result.cursor is None or (limit is not None and len(rows) >= limit):
                return rows, total, result.cursor
            query = structs.replace(query, after=result.cursor, offset=0, count=False)
        return rows, total, None

    async def _scan(
        self, query: Query, limit: int | None, accept: Callable[[Any], bool]
    ) -> tuple[list[Row], int | None, Position | None]:
        """Rows that `accept` takes, found by reading all that could be."""
        skip, query = query.offset, structs.replace(query, offset=0, limit=None)
        counted, after, count = 0, query.after, query.count
        rows: list[Row] = []
        last: Position | None = None
        end: Position | None = None
        query = structs.replace(
            query, after=None if count else after, count=False, limit=_SCAN_BATCH
        )
        while True:
            result = await self.backend.query(query)
            for row in result.rows:
                if not accept(query.table.record_of(row)):
                    continue
                counted += 1
                position = query.position(row, query.after.hint if query.after else "")
                if count and after is not None and not behind(position, after, query):
                    continue
                if skip:
                    skip -= 1
                elif limit is None or len(rows) < limit:
                    rows.append(row)
                    last = position
                elif rows:
                    end = last
            if result.cursor is None or (end is not None and not count):
                return rows, counted if count else None, end
            query = structs.replace(query, after=result.cursor)


def holds(members: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether `members` has all of `wanted`, with values equal as JSON has it: true is not 1."""
    return all(name in members and _same(members[name], value) for name, value in wanted.items())


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and holds(one, other)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def behind(position: Position, other: Position, query: Query) -> bool:
    """Whether `position` comes after `other` in the direction of `query`."""
    here, there = (position.order, position.seq, position.key), (other.order, other.seq, other.key)
    return here < there if query.descending else here > there
