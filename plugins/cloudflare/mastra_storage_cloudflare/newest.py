"""The newest rows of a listing, by its index keys, which sort newest first."""

from __future__ import annotations

from itertools import pairwise

import msgspec
from msgspec import Struct

from mastra_storage import Position, Query, Result, Row
from mastra_storage_cloudflare.ahead import Ahead, is_exact
from mastra_storage_cloudflare.kv import KV, MAX_KEYS_OF_LIST, Entry
from mastra_storage_cloudflare.layout import Layout
from mastra_storage_cloudflare.places import is_index, place_of, place_of_index, place_text
from mastra_storage_cloudflare.ranks import Rank, after_rank, rank_key
from mastra_storage_cloudflare.reader import Reader

# Characters of a `Position.hint`.
MAX_HINT = 1024


class _Hint(Struct, array_like=True):
    """Where a listing of index keys goes on: behind KV's `cursor`.

    Before that come the `keys` that were listed but not given. Where those would be too many,
    `cursor` is that of the page they are on.
    """

    cursor: str | None = None
    keys: list[str] = []


async def newest(kv: KV, reader: Reader, layout: Layout, query: Query, start: str) -> Result:
    """The answer to a query for the newest rows of the listing that begins with `start`."""
    index, ahead = _Index(kv, layout, query, start), Ahead(reader, layout, query, start)
    rows: list[Row] = []
    taken: list[str] = []
    while query.limit is None or len(rows) < query.limit:
        left = MAX_KEYS_OF_LIST if query.limit is None else query.limit - len(rows)
        keys = await ahead.during(index.take(left))
        if not keys:
            break
        taken += keys
        names = layout.record_keys_of_index(keys, start, query.prefix)
        found = await ahead.rows(names, keys, lambda row, key: layout.stands_at(row, key, start))
        standing = await reader.standing(layout, start, dict(zip(keys, found, strict=True)))
        given = {row.key for row in rows}
        rows += [row for row in standing if row.key not in given]
    more = bool(rows) and await index.has_more()
    ahead.listed(taken, whole=not more)
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
        self._after = None if query.after is None else after_rank(layout, query.after)
        # A filter beyond what the index is made for lets an unknown share of entries through.
        bounded = query.since is not None or query.until is not None
        exact = is_exact(layout, query, start)
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

    def _rank(self, key: str) -> Rank:
        name = self._layout.record_key_of_index(key, self._start, self._query.prefix)
        return (*self._place(key), rank_key(self._layout, name))

    def hint(self) -> str:
        """Where to go on behind the keys that were taken; empty: from the start again."""
        hint = _Hint(None if self._ended else self._cursor, self._ready)
        text = msgspec.json.encode(hint).decode()
        if len(text) > MAX_HINT:
            page = self._page_of.get(min(self._ready)) if self._ready else self._cursor
            text = msgspec.json.encode(_Hint(page)).decode()
        return text if len(text) <= MAX_HINT else ""

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
        place = place_of(entry)
        if place is None or not self._matches(place):
            return False
        return self._after is None or self._rank(entry.key) < self._after


def _read_hint(after: Position | None) -> _Hint:
    return (
        _Hint() if after is None or not after.hint else msgspec.json.decode(after.hint, type=_Hint)
    )
