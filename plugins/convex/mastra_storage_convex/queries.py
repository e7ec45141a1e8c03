"""What finds rows: queries as arguments of `M:list` and `M:count`, walked to their end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from msgspec import structs

from mastra_storage import (
    EVALS,
    MESSAGES,
    THREADS,
    TRACES,
    WORKFLOW_SNAPSHOT,
    InvalidArgumentError,
    Key,
    Position,
    Query,
    Result,
    Row,
    Table,
    UnsupportedError,
    select,
)
from mastra_storage_convex._answers import DEPLOY
from mastra_storage_convex.client import Client
from mastra_storage_convex.layout import CoreLayout, DocumentLayout, layout_of
from mastra_storage_convex.wire import Counted, Documents, Found, int64, wire_position

MAX_LIMIT = 4_096
"""How many rows one `M:list` gives at most."""

MAX_KEYS = 1_000
"""How many keys one `M:get` looks up at most."""

# How many rows are made of documents before others may run.
_ROWS_AT_ONCE = 500

# The core tables that have an index of all their rows, by time and by last change.
_BY_ORDER = (THREADS, WORKFLOW_SNAPSHOT, TRACES, EVALS)
_BY_RECENT = (THREADS,)

# Larger numbers of rows are not exact in JavaScript, and there are none.
_MAX_SKIP = 2**53


class Finder:
    """Finds rows, by as many calls as that takes."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def get(self, table: Table, keys: Sequence[Key]) -> list[Row | None]:
        """The rows with these keys, in the order asked; `None` for one that is not there."""
        layout = layout_of(table)
        which = {} if isinstance(layout, CoreLayout) else {"table": table.name}
        documents: list[Any] = []
        while len(documents) < len(keys):
            wanted = keys[len(documents) : len(documents) + MAX_KEYS]
            path = f"{layout.module}:get"
            kind = Found[layout.document]  # type: ignore[name-defined]
            found = await self._client.query(path, which | {"keys": wanted}, kind)
            if not 0 < len(found.rows) <= len(wanted):
                raise UnsupportedError(f"{path} gives other rows than were asked for; {DEPLOY}")
            documents += found.rows
        rows = layout.read([document for document in documents if document is not None])
        there = {row.key: row for row in rows}
        return [there.get(key) for key in keys]

    async def query(self, query: Query) -> Result:
        """The rows that match, all up to the limit."""
        if sorts_here(query):
            return select((await self._list(all_of(query))).rows, query)
        if not query.count:
            return await self._list(query)
        try:
            async with asyncio.TaskGroup() as group:
                listing = group.create_task(self._list(query))
                counting = group.create_task(self._count(query))
        except BaseExceptionGroup as failed:
            error = failed.exceptions[0]
            raise error from error.__cause__  # the group is left out, its cause is not
        return structs.replace(listing.result(), total=counting.result())

    async def _list(self, query: Query) -> Result:
        rows: list[Row] = []
        step = query
        while step.limit is None or step.limit > 0:
            path, arguments = list_arguments(step)
            found = await self._client.query(path, arguments, list_answer(query.table))
            for start in range(0, len(found.rows), _ROWS_AT_ONCE):
                part = found.rows[start : start + _ROWS_AT_ONCE]
                rows += layout_of(query.table).read(part)
                await asyncio.sleep(0)
            if found.next is None:
                return Result(rows=rows)
            after = found.next.position()
            if after == step.after:
                raise _no_way_on(path)
            left = None if query.limit is None else query.limit - len(rows)
            if left == 0:
                last = query.position(rows[-1])
                return Result(
                    rows=rows, cursor=last if await self._goes_on(step, after, last) else None
                )
            skip = max(step.offset - int(found.skipped), 0)
            step = structs.replace(step, after=after, offset=skip, limit=left)
        return Result(rows=rows)

    async def _goes_on(self, query: Query, after: Position, last: Position) -> bool:
        """Whether there is a row behind the last one that was given.

        A walk that went on behind it, until it had read enough for one call, left that open.
        """
        if after == last:
            return True
        rest = structs.replace(query, after=after, offset=0, limit=1)
        return bool((await self._list(rest)).rows)

    async def _count(self, query: Query) -> int:
        path, arguments = f"{layout_of(query.table).module}:count", filter_arguments(query)
        count = 0
        while True:
            found: Counted = await self._client.query(path, arguments, Counted)
            count += int(found.count)
            if found.next is None:
                return count
            if found.next == arguments.get("after"):
                raise _no_way_on(path)
            arguments["after"] = found.next


def _no_way_on(path: str) -> UnsupportedError:
    return UnsupportedError(f"{path} goes on where it began, and would for ever; {DEPLOY}")


def list_arguments(query: Query) -> tuple[str, dict[str, Any]]:
    """The path and the arguments, ready for JSON, of the `M:list` that begins to answer `query`.

    Its answer is a `list_answer(query.table)`. It gives up to 4,096 rows, and may give fewer and
    a place to continue from. Where `sorts_here(query)`, they come in the order of their keys.
    """
    layout = layout_of(query.table)
    limit = MAX_LIMIT if query.limit is None else min(query.limit, MAX_LIMIT)
    arguments = filter_arguments(query) | {
        "orderBy": "any" if sorts_here(query) else query.order_by,
        "descending": query.descending,
        "skip": min(query.offset, _MAX_SKIP),
        "limit": limit,
    }
    if query.after is not None:
        arguments["after"] = wire_position(query.after)
    return f"{layout.module}:list", arguments


def filter_arguments(query: Query) -> dict[str, Any]:
    """Which rows, as `M:list` and `M:count` take it."""
    layout = layout_of(query.table)
    arguments: dict[str, Any] = {"prefix": query.prefix}
    if query.since is not None:
        arguments["since"] = int64(query.since)
    if query.until is not None:
        arguments["until"] = int64(query.until)
    if isinstance(layout, CoreLayout):
        unknown = [name for name in query.fields if name not in layout.names]
        if unknown:
            raise InvalidArgumentError(
                f"table {query.table.name!r} has no indexed field {unknown[0]!r}"
            )
        return arguments | {layout.names[name]: values for name, values in query.fields.items()}
    arguments |= {"table": query.table.name, "fields": query.fields}
    slot = _slot(layout, query)
    if slot is not None:
        arguments["slot"] = slot
    return arguments


def list_answer(table: Any) -> Any:
    """The type to decode what `M:list` gives for a table."""
    return Documents[layout_of(table).document]  # type: ignore[misc]


def all_of(query: Query) -> Query:
    """All rows that match, in the order that costs least, for `select` to answer `query` from."""
    everything = structs.replace(
        query, order_by="created", descending=False, after=None, offset=0, limit=None, count=False
    )
    return structs.replace(everything, order_by="any") if sorts_here(everything) else everything


def sorts_here(query: Query) -> bool:
    """Whether no index has the order of `query`, so that all that match are read and sorted."""
    if query.order_by == "any" or query.limit == 0:
        return False
    layout = layout_of(query.table)
    is_recent = query.order_by == "recent"
    if isinstance(layout, CoreLayout):
        return query.table not in (_BY_RECENT if is_recent else _BY_ORDER) and not (
            query.table == MESSAGES and query.prefix and not is_recent
        )
    return bool(query.prefix) and (is_recent or len(query.prefix) not in layout.slots)


def _slot(layout: DocumentLayout, query: Query) -> dict[str, Any] | None:
    """The group of documents of an adapter's table that an index lists in order.

    Without one the whole table is listed: in order, or by key from the prefix on.
    """
    if query.order_by != "created":
        return None
    if query.prefix:
        return _group(layout, len(query.prefix), query.prefix)
    for name, values in query.fields.items():
        if len(values) == 1 and values[0] and name in layout.slots:
            return _group(layout, name, values)
    return None


def _group(layout: DocumentLayout, slot: int | str, group: Key) -> dict[str, Any] | None:
    if slot not in layout.slots:
        return None
    return {"index": layout.slots[slot], "group": group}
