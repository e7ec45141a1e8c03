"""Answering queries on a store that can only list keys by prefix, in their order.

A query for the newest rows of a listing that has index keys reads the first of those. Any
other query lists all keys of its prefix: their metadata is enough to filter and sort. Only
then are the values read that are asked for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NamedTuple

from mastra_storage import Position, Query, Result
from mastra_storage_cloudflare.ahead import Ahead
from mastra_storage_cloudflare.kv import KV, MAX_KEYS_OF_LIST, Entry
from mastra_storage_cloudflare.layout import Layout
from mastra_storage_cloudflare.listings import page_behind
from mastra_storage_cloudflare.newest import MAX_HINT, newest
from mastra_storage_cloudflare.overlay import written_at
from mastra_storage_cloudflare.places import Place, place_of
from mastra_storage_cloudflare.ranks import Rank, after_rank, is_behind, rank_key
from mastra_storage_cloudflare.reader import Reader

# More touches than this are listed rather than read one by one.
_TOUCHES_TO_GET = 300


class _Candidate(NamedTuple):
    """A row that matches as far as its key's metadata tells, and its rank in the order."""

    rank: Rank
    name: str


async def find(kv: KV, reader: Reader, layout: Layout, query: Query) -> Result:
    """The answer to a query."""
    if len(query.prefix) == len(layout.table.key):
        return await _one(reader, layout, query)
    if query.order_by == "any":
        return await _walk(kv, reader, layout, query)
    start = _index_of(layout, query)
    simple = query.order_by == "created" and query.descending
    if start is not None and simple and not query.count and not query.offset:
        return await newest(kv, reader, layout, query, start)
    return await _sorted(kv, reader, layout, query, start)


def _index_of(layout: Layout, query: Query) -> str | None:
    """The prefix of the index keys of the rows a query asks for; `None` when there are none."""
    if len(query.prefix) in layout.table.listings:
        return layout.newest_prefix(query.prefix)
    return _field_index_of(layout, query)


def _field_index_of(layout: Layout, query: Query) -> str | None:
    """The prefix of the index keys of the rows with a field's value, if the query is for those."""
    for name, values in query.fields.items():
        if name in layout.table.listings and len(values) == 1 and values[0] and not query.prefix:
            return layout.field_prefix(name, values[0])
    return None


async def list_all(kv: KV, namespace: str, prefix: str) -> AsyncIterator[Entry]:
    """Every key with a prefix."""
    cursor: str | None = None
    behind = ""
    while True:
        listing = await page_behind(
            kv, namespace, prefix, behind, cursor=cursor, limit=MAX_KEYS_OF_LIST
        )
        for entry in listing.entries:
            yield entry
            behind = entry.key
        cursor = listing.cursor
        if cursor is None:
            return


async def _one(reader: Reader, layout: Layout, query: Query) -> Result:
    [row] = await reader.rows(layout, [layout.record_key(query.prefix)])
    if row is None or not layout.row_matches(row, query):
        return Result(rows=[], total=0 if query.count else None)
    after = query.after
    rank = after_rank(layout, query.position(row))
    passed = after is not None and not is_behind(rank, after_rank(layout, after), query)
    given = [] if passed or query.offset or query.limit == 0 else [row]
    return Result(rows=given, total=1 if query.count else None)


async def _walk(kv: KV, reader: Reader, layout: Layout, query: Query) -> Result:
    """Rows in the order of their keys, a page of KV's listing at a time."""
    if query.limit == 0:
        return Result(rows=[])
    after = query.after
    cursor = after.hint or None if after else None
    behind = layout.record_key(after.key) if after else ""
    limit = MAX_KEYS_OF_LIST if query.limit is None else query.limit
    prefix = layout.record_prefix(query.prefix)
    matches = layout.matching(query)
    while True:
        listing = await kv.keys(layout.table.name, prefix, cursor=cursor, limit=limit)
        names = [
            entry.key
            for entry in listing.entries
            if entry.key > behind and (place := place_of(entry)) is not None and matches(place)
        ]
        # More keys than rows may be listed, and those of rows that are gone by now.
        for start in range(0, len(names), limit):
            found = await reader.rows(layout, names[start : start + limit])
            rows = [row for row in found if row is not None]
            more = start + limit < len(names)
            if rows and (more or listing.cursor is not None):
                hint = (cursor if more else listing.cursor) or ""
                return Result(
                    rows=rows,
                    # Without a hint the listing starts anew, and passes over what comes before.
                    cursor=query.position(rows[-1], hint if len(hint) <= MAX_HINT else ""),
                )
            if rows:
                return Result(rows=rows)
        if listing.cursor is None:
            return Result(rows=[])
        cursor = listing.cursor


# -- anything else, by listing and sorting all keys --------------------------------------------


async def _sorted(
    kv: KV, reader: Reader, layout: Layout, query: Query, start: str | None
) -> Result:
    """All that match, sorted; `start` is that of their index keys, if they have any."""
    ahead = Ahead(reader, layout, query, start)
    found = await ahead.during(_places(kv, layout, query))
    recent = query.order_by == "recent"
    touched = await _touched(kv, reader, layout, found) if recent else {}
    candidates = []
    for name, place in found.items():
        order = int(place.order)
        if recent:
            updated = int(place.updated or place.order)
            order = max(updated, touched.get(name, updated))
        candidates.append(_Candidate((order, int(place.seq), rank_key(layout, name)), name))
    candidates.sort(reverse=query.descending)
    total = len(candidates) if query.count else None
    if query.after is not None:
        after = after_rank(layout, query.after)
        candidates = [c for c in candidates if is_behind(c.rank, after, query)]
    end = None if query.limit is None else query.offset + query.limit
    chosen = candidates[query.offset : end]
    names = [candidate.name for candidate in chosen]
    versions = [found[name].version for name in names]
    found_rows = await ahead.rows(names, versions, lambda row, version: row.version == version)
    rows = [row for row in found_rows if row is not None and layout.row_matches(row, query)]
    if total is not None:
        total -= len(found_rows) - len(rows)  # what is listed still, and gone or changed by now
    cursor = None
    if end is not None and end < len(candidates) and chosen:
        last, (order, seq, key) = found_rows[-1], chosen[-1].rank
        cursor = Position(order, seq, key if last is None else last.key)
    ahead.sorted(rows if query.descending else rows[::-1], whole=cursor is None)
    return Result(rows=rows, total=total, cursor=cursor)


async def _places(kv: KV, layout: Layout, query: Query) -> dict[str, Place]:
    """All that match, found by the index keys of a field, or by all record keys."""
    found: dict[str, Place] = {}
    start, prefix = _field_index_of(layout, query), layout.record_prefix(query.prefix)
    async for entry in list_all(kv, layout.table.name, start or prefix):
        place = place_of(entry)
        if place is None:
            continue
        name = entry.key
        if start is not None:
            name = layout.record_key_of_index(name, start, query.prefix)
            other = found.get(name)
            # A store that moved a record may not have known where it stood before.
            if other is not None and int(other.written) > int(place.written):
                continue
        found[name] = place
    matches = layout.matching(query)
    return {name: place for name, place in found.items() if matches(place)}


async def _touched(
    kv: KV, reader: Reader, layout: Layout, found: dict[str, Place]
) -> dict[str, int]:
    """The touches of records, stored or waiting, by the records' keys."""
    names = {layout.touched_of(name): name for name in found}
    if len(names) <= _TOUCHES_TO_GET:
        stored = {k: f.metadata for k, f in (await kv.get(layout.table.name, list(names))).items()}
    else:
        prefix = layout.touched_key(())
        stored = {e.key: e.metadata async for e in list_all(kv, layout.table.name, prefix)}
    touched = {names[k]: written_at(metadata) for k, metadata in stored.items() if k in names}
    for name in found:
        waiting = reader.waiting_touch(layout, name)
        if waiting is not None:
            touched[name] = max(waiting, touched.get(name, waiting))
    return touched
