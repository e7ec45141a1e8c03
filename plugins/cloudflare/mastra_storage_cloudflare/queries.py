"""Answering queries on a store that can only list keys by prefix, in their order.

A query for the newest rows of a listing that has index keys reads the first of those. Any
other query lists all keys of its prefix: their metadata is enough to filter and sort. Only
then are the values read that are asked for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import pairwise
from typing import NamedTuple

import msgspec
from msgspec import Struct

from mastra_storage import Position, Query, Result, Row
from mastra_storage_cloudflare.kv import KV, MAX_KEYS_OF_LIST, Entry
from mastra_storage_cloudflare.layout import Layout, Place, is_index, place_of_index, place_text
from mastra_storage_cloudflare.overlay import written_at
from mastra_storage_cloudflare.reader import Reader

# More touches than this are listed rather than read one by one.
_TOUCHES_TO_GET = 300
_MAX_HINT = 1024

_Rank = tuple[int, int, tuple[str, ...]]


class _Hint(Struct, array_like=True):
    """Where a listing of index keys goes on: behind KV's `cursor`.

    Before that come the `keys` that were listed but not given. Where those would be too many,
    `cursor` is that of the page they are on.
    """

    cursor: str | None = None
    keys: list[str] = []


class _Candidate(NamedTuple):
    """A row that matches as far as its key's metadata tells, and its rank in the order."""

    rank: _Rank
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
        return await _newest(kv, reader, layout, query, start)
    return await _sorted(kv, reader, layout, query, start if query.fields else None)


async def list_all(kv: KV, namespace: str, prefix: str) -> AsyncIterator[Entry]:
    """Every key with a prefix."""
    cursor: str | None = None
    while True:
        listing = await kv.keys(namespace, prefix, cursor=cursor, limit=MAX_KEYS_OF_LIST)
        for entry in listing.entries:
            yield entry
        cursor = listing.cursor
        if cursor is None:
            return


async def _one(reader: Reader, layout: Layout, query: Query) -> Result:
    [row] = await reader.rows(layout, [layout.record_key(query.prefix)])
    if row is None or not layout.row_matches(row, query):
        return Result(rows=[], total=0 if query.count else None)
    after = query.after
    rank = _after_rank(layout, query.position(row))
    passed = after is not None and not _is_behind(rank, _after_rank(layout, after), query)
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
            if entry.key > behind and (place := layout.place(entry)) is not None and matches(place)
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
                    cursor=query.position(rows[-1], hint if len(hint) <= _MAX_HINT else ""),
                )
            if rows:
                return Result(rows=rows)
        if listing.cursor is None:
            return Result(rows=[])
        cursor = listing.cursor


# -- the newest, by index keys ---------------------------------------------------------------


def _index_of(layout: Layout, query: Query) -> str | None:
    """The prefix of the index keys of the rows a query asks for; `None` when there are none."""
    listings = layout.table.listings
    if len(query.prefix) in listings:
        return layout.newest_prefix(query.prefix)
    for name, values in query.fields.items():
        if name in listings and len(values) == 1 and values[0] and not query.prefix:
            return layout.field_prefix(name, values[0])
    return None


async def _newest(kv: KV, reader: Reader, layout: Layout, query: Query, start: str) -> Result:
    index = _Index(kv, layout, query, start)
    rows: list[Row] = []
    while query.limit is None or len(rows) < query.limit:
        left = MAX_KEYS_OF_LIST if query.limit is None else query.limit - len(rows)
        keys = await index.take(left)
        if not keys:
            break
        names = layout.record_keys_of_index(keys, start, query.prefix)
        found = await reader.rows(layout, names)
        standing = await reader.standing(layout, start, dict(zip(keys, found, strict=True)))
        given = {row.key for row in rows}
        rows += [row for row in standing if row.key not in given]
    more = bool(rows) and await index.has_more()
    return Result(rows=rows, cursor=query.position(rows[-1], index.hint()) if more else None)


class _Index:
    """The index keys that a query has still to give, listed as they are needed."""

    def __init__(self, kv: KV, layout: Layout, query: Query, start: str) -> None:
        self._kv = kv
        self._layout = layout
        self._query = query
        self._matches = layout.matching(query)
        self._start = start
        hint = _read_hint(query.after)
        self._cursor = hint.cursor
        self._ready = hint.keys
        # The cursor of the page on which each key was listed; a hint does not say.
        self._page_of: dict[str, str | None] = {}
        self._ended = bool(hint.keys) and hint.cursor is None
        self._after = None if query.after is None else _after_rank(layout, query.after)
        # A filter beyond what the index is made for lets an unknown share of entries through.
        bounded = query.since is not None or query.until is not None
        exact = len(query.fields) == (0 if start == layout.newest_prefix(query.prefix) else 1)
        # Without a hint nobody knows how far down the listing the place behind `after` is.
        sought = query.after is not None and not query.after.hint
        self._least = 0 if exact and not bounded and not sought else MAX_KEYS_OF_LIST

    async def take(self, count: int) -> list[str]:
        """Up to `count` keys, fewer only at the end; one more is listed to see whether it is."""
        await self._fill(count + 1)
        # Rows of one place stand in the order of their keys, and a query wants the reverse.
        while not self._ended and self._place(self._ready[-1]) == self._place(
            self._ready[count - 1]
        ):
            await self._fill(len(self._ready) + 1)
        places = [place_text(key, self._start) for key in self._ready]
        if any(place >= following for place, following in pairwise(places)):
            self._ready.sort(key=self._rank, reverse=True)
        keys, self._ready = self._ready[:count], self._ready[count:]
        return keys

    async def has_more(self) -> bool:
        await self._fill(1)
        return bool(self._ready)

    def _place(self, key: str) -> tuple[int, int]:
        return place_of_index(key, self._start)

    def _rank(self, key: str) -> _Rank:
        name = self._layout.record_key_of_index(key, self._start, self._query.prefix)
        return (*self._place(key), _key(self._layout, name))

    def hint(self) -> str:
        """Where to go on behind the keys that were taken; empty: from the start again."""
        hint = _Hint(None if self._ended else self._cursor, self._ready)
        text = msgspec.json.encode(hint).decode()
        if len(text) > _MAX_HINT:
            page = self._page_of.get(min(self._ready)) if self._ready else self._cursor
            text = msgspec.json.encode(_Hint(page)).decode()
        return text if len(text) <= _MAX_HINT else ""

    async def _fill(self, count: int) -> None:
        while len(self._ready) < count and not self._ended:
            limit = max(self._least, min(count - len(self._ready), MAX_KEYS_OF_LIST))
            page = self._cursor
            listing = await self._kv.keys(
                self._layout.table.name, self._start, cursor=page, limit=limit
            )
            self._cursor = listing.cursor
            self._ended = listing.cursor is None
            for entry in listing.entries:
                if self._takes(entry):
                    self._ready.append(entry.key)
                    self._page_of[entry.key] = page

    def _takes(self, entry: Entry) -> bool:
        query = self._query
        if not is_index(entry.key, self._start):
            return False
        if query.since is not None and self._place(entry.key)[0] < query.since:
            self._ended = True
            return False
        place = self._layout.place(entry)
        if place is None or not self._matches(place):
            return False
        return self._after is None or self._rank(entry.key) < self._after


def _read_hint(after: Position | None) -> _Hint:
    return (
        _Hint() if after is None or not after.hint else msgspec.json.decode(after.hint, type=_Hint)
    )


# -- anything else, by listing and sorting all keys --------------------------------------------


async def _sorted(
    kv: KV, reader: Reader, layout: Layout, query: Query, start: str | None
) -> Result:
    """All that match, sorted; found by the index keys behind `start`, or by all record keys."""
    found: dict[str, Place] = {}
    prefix = layout.record_prefix(query.prefix)
    matches = layout.matching(query)
    async for entry in list_all(kv, layout.table.name, start or prefix):
        place = layout.place(entry)
        if place is not None and matches(place):
            name = entry.key
            if start is not None:
                name = layout.record_key_of_index(name, start, query.prefix)
            found[name] = place
    recent = query.order_by == "recent"
    touched = await _touched(kv, reader, layout, found) if recent else {}
    candidates = []
    for name, place in found.items():
        order = int(place.order)
        if recent:
            updated = int(place.updated or place.order)
            order = max(updated, touched.get(name, updated))
        candidates.append(_Candidate((order, int(place.seq), _key(layout, name)), name))
    candidates.sort(reverse=query.descending)
    total = len(candidates) if query.count else None
    if query.after is not None:
        after = _after_rank(layout, query.after)
        candidates = [c for c in candidates if _is_behind(c.rank, after, query)]
    end = None if query.limit is None else query.offset + query.limit
    chosen = candidates[query.offset : end]
    found_rows = await reader.rows(layout, [candidate.name for candidate in chosen])
    rows = [row for row in found_rows if row is not None and layout.row_matches(row, query)]
    cursor = None
    if end is not None and end < len(candidates) and chosen:
        last, (order, seq, key) = found_rows[-1], chosen[-1].rank
        cursor = Position(order, seq, key if last is None else last.key)
    return Result(rows=rows, total=total, cursor=cursor)


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


def _key(layout: Layout, name: str) -> tuple[str, ...]:
    """What rows of one place are sorted by: their keys, or the name of one that is hashed."""
    return layout.key_of(name) or (name,)


def _after_rank(layout: Layout, after: Position) -> _Rank:
    return after.order, after.seq, _key(layout, layout.record_key(after.key))


def _is_behind(rank: _Rank, after: _Rank, query: Query) -> bool:
    return rank < after if query.descending else rank > after
