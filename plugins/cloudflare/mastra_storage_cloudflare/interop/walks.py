"""The walk through a table, in the order of its keys."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Struct, structs

from mastra_storage import Key, Position, Query, Result, Table, select
from mastra_storage_cloudflare.interop.layout import Place, Places
from mastra_storage_cloudflare.interop.recent import RecentWritesKV
from mastra_storage_cloudflare.interop.rows import Name, Rows
from mastra_storage_cloudflare.kv import MAX_KEYS_OF_LIST
from mastra_storage_cloudflare.listings import page_behind
from mastra_storage_cloudflare.newest import MAX_HINT


class _Hint(Struct, array_like=True):
    """Where a walk goes on: in which place, at which of KV's cursors, behind which key."""

    at: int
    cursor: str | None = None
    behind: str = ""


async def walk(kv: RecentWritesKV, places: Places, rows: Rows, query: Query) -> Result:
    """The next part of a table.

    Old places come first: what moves out of them meanwhile is rather given twice than never.
    """
    table = query.table
    found_places = await places.of(table)
    hint = _read_hint(query) or _Hint(len(found_places) - 1)
    place = found_places[hint.at]
    limit = MAX_KEYS_OF_LIST if query.limit is None else query.limit
    keys, next_page = await _page(kv, place, place.prefix(table, query.prefix), hint, limit)
    ahead = sorted(key for key in keys if key > hint.behind and place.holds(table, key))
    taken = ahead[:limit]
    found = [row for _, row in await rows.read(table, _names(place, taken), listed=True)]
    if hint.at:
        newer = await _there(rows, found_places[: hint.at], table, [row.key for row in found])
        found = [row for row in found if row.key not in newer]
    found = select(found, structs.replace(query, order_by="created", after=None, limit=None)).rows
    if len(ahead) > limit:
        next_page = _Hint(hint.at, hint.cursor, taken[-1])
    elif next_page is None and hint.at:
        next_page = _Hint(hint.at - 1)
    return Result(rows=found, cursor=None if next_page is None else _position(next_page))


async def _page(
    kv: RecentWritesKV, place: Place, prefix: str, hint: _Hint, limit: int
) -> tuple[set[str], _Hint | None]:
    """The keys of a page of a listing, and where the next one is.

    A key that was written lately is on the page where its place is, whatever KV lists.
    """
    coming = kv.recent_keys(place.namespace, prefix)  # what is stored while it is listed
    listing = await page_behind(
        kv, place.namespace, prefix, hint.behind, cursor=hint.cursor, limit=limit
    )
    listed = {entry.key for entry in listing.entries}
    recent = coming | kv.recent_keys(place.namespace, prefix)
    if listing.cursor is None:
        return listed | recent, None
    end = max([hint.behind, *listed])
    return listed | {key for key in recent if key <= end}, _Hint(hint.at, listing.cursor, end)


async def _there(
    rows: Rows, places: Sequence[Place], table: Table, keys: Sequence[Key]
) -> set[Key]:
    """Those of the rows that are in these places, too."""
    names = [Name(place, place.name(table, key)) for place in places for key in keys]
    return {row.key for _, row in await rows.read(table, names)}


def _names(place: Place, keys: Sequence[str]) -> list[Name]:
    return [Name(place, key) for key in keys]


def _read_hint(query: Query) -> _Hint | None:
    return msgspec.json.decode(query.after.hint, type=_Hint) if query.after else None


def _position(hint: _Hint) -> Position:
    """A place to go on; by the key alone where the cursor leaves no room for it."""
    text = msgspec.json.encode(hint).decode()
    if len(text) > MAX_HINT and hint.behind:
        text = msgspec.json.encode(_Hint(hint.at, None, hint.behind)).decode()
    return Position(0, 0, (), text)
