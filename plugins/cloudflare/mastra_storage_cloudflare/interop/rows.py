"""Reading rows: by their keys, and all under a prefix.

What TypeScript stores has no metadata, so that a listing shows nothing but keys: every record
of a query is read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import NamedTuple

from msgspec import structs

from mastra_storage import (
    MESSAGES,
    WORKFLOW_SNAPSHOT,
    Key,
    Row,
    StorageError,
    Table,
)
from mastra_storage_cloudflare.interop.layout import Place, Places, is_plain
from mastra_storage_cloudflare.interop.orders import Entry, places, read_order
from mastra_storage_cloudflare.interop.recent import RecentWritesKV
from mastra_storage_cloudflare.interop.records import is_resource, row_of
from mastra_storage_cloudflare.interop.values import FormError, damaged
from mastra_storage_cloudflare.kv import MAX_KEY_BYTES, Found
from mastra_storage_cloudflare.queries import list_all

# So many of the keys of damaged records are named behind the first.
_MOST_NAMED = 20


class Name(NamedTuple):
    """A key of KV and where it is."""

    place: Place
    key: str


class Rows:
    """The rows of a store, in all places they may be in."""

    def __init__(self, kv: RecentWritesKV, places: Places) -> None:
        self._kv = kv
        self._places = places

    async def get(self, table: Table, keys: Sequence[Key]) -> list[Row | None]:
        """The rows with these keys, `None` for one that is not there."""
        places = await self._places.of(table)
        names = [Name(place, place.name(table, key)) for place in places for key in keys]
        found: dict[Key, Row] = {}
        for _, row in await self.read(table, names):
            found.setdefault(row.key, row)
        if table == WORKFLOW_SNAPSHOT:
            missing = [key for key in keys if key not in found]
            for others in await asyncio.gather(*[self.all(table, key) for key in missing]):
                found.update((row.key, row) for row in others)
        return [found.get(key) for key in keys]

    async def all(self, table: Table, prefix: Key = ()) -> list[Row]:
        """All rows whose key starts with a prefix."""
        places = await self._places.of(table)
        found = await self.read(table, await self.listed(table, prefix), listed=True)
        # A record may be in several places, and a run under several keys.
        found.sort(key=lambda each: _rank(places, table, *each))
        rows: dict[Key, Row] = {}
        for _, row in found:
            if row.key[: len(prefix)] == prefix:
                rows.setdefault(row.key, row)
        return list(rows.values())

    async def located(self, table: Table, prefix: Key) -> list[Name]:
        """Where all records are whose key starts with a prefix."""
        names = await self.listed(table, prefix)
        sure = [
            name for name in names if name.place.tells(table) and _is_under(table, prefix, name)
        ]
        found = await self.read(table, set(names) - set(sure), listed=True)
        return sure + [name for name, row in found if row.key[: len(prefix)] == prefix]

    async def listed(self, table: Table, prefix: Key) -> list[Name]:
        """Where all records may be whose key starts with a prefix."""
        names: list[Name] = []
        for at, place in enumerate(await self._places.of(table)):
            # Early keys of runs have a part before those of ours.
            known = () if table == WORKFLOW_SNAPSHOT and at else prefix
            keys: set[str] = set()
            if len(known) == len(table.key):
                keys.add(place.name(table, known))
            if len(known) < len(table.key) or table == WORKFLOW_SNAPSHOT:
                keys |= await self._keys(place, place.prefix(table, known))
            names += [Name(place, key) for key in sorted(keys) if place.holds(table, key)]
        return names

    async def lists(self, prefix: Key) -> list[Name]:
        """Where the lists of messages are, of a thread or of all."""
        places = await self._places.of(MESSAGES)
        if prefix:
            return [Name(place, place.order_name(prefix[0])) for place in places]
        return [
            Name(place, key)
            for place in places
            for key in await self._keys(place, place.prefix(MESSAGES))
            if not place.holds(MESSAGES, key)
        ]

    async def any(self, table: Table) -> bool:
        """Whether a table has records."""
        for place in await self._places.of(table):
            start = place.prefix(table)
            if not place.tells(table):
                return bool(await self.all(table))
            if self._kv.recent_keys(place.namespace, start):
                return True
            async for entry in list_all(self._kv, place.namespace, start):
                if place.holds(table, entry.key):
                    return True
        return False

    async def _keys(self, place: Place, start: str) -> set[str]:
        coming = self._kv.recent_keys(place.namespace, start)  # what is stored while it is listed
        listed = {entry.key async for entry in list_all(self._kv, place.namespace, start)}
        return listed | coming | self._kv.recent_keys(place.namespace, start)

    async def read(
        self, table: Table, names: Iterable[Name], *, listed: bool = False
    ) -> list[tuple[Name, Row]]:
        """The records under these keys, as far as they are there.

        `listed`: the keys come from listings, so that there may be records of other tables.
        """
        names = [name for name in names if name.place.holds(table, name.key)]
        threads = {_thread_of(name) for name in names} if table == MESSAGES else set()
        found, orders = await asyncio.gather(self._values(names), self._orders(threads))
        rows: list[tuple[Name, Row]] = []
        damaged: dict[str, StorageError] = {}
        for name in names:
            if name not in found or (listed and not _is_of(table, name, found[name])):
                continue
            try:
                row = row_of(table, name.key, found[name].value)
            except StorageError as exc:
                damaged[name.key] = exc
                continue
            if table == MESSAGES:
                row = structs.replace(row, seq=orders.get(row.key[0], {}).get(row.key[1], 0))
            rows.append((name, row))
        if damaged:
            raise _all_of(damaged)
        return rows

    async def _values(self, names: Iterable[Name]) -> dict[Name, Found]:
        """What is stored under these keys."""
        by_namespace: dict[str, list[Name]] = {}
        for name in names:
            if 0 < len(name.key.encode()) <= MAX_KEY_BYTES:
                by_namespace.setdefault(name.place.namespace, []).append(name)
        answers = await asyncio.gather(
            *[
                self._kv.get(namespace, list(dict.fromkeys(name.key for name in wanted)))
                for namespace, wanted in by_namespace.items()
            ]
        )
        return {
            name: found[name.key]
            for found, wanted in zip(answers, by_namespace.values(), strict=True)
            for name in wanted
            if name.key in found
        }

    async def _orders(self, threads: set[str]) -> dict[str, dict[str, int]]:
        """The `seq` of the messages of these threads, by their lists."""
        if not threads:
            return {}
        names = {
            (thread, place): Name(place, place.order_name(thread))
            for thread in threads
            for place in await self._places.of(MESSAGES)
        }
        found = await self._values(names.values())
        entries: dict[str, list[Entry]] = {thread: [] for thread in threads}
        for (thread, _), name in names.items():
            if name in found:
                entries[thread] += _order(name, found[name])
        return {thread: places(listed) for thread, listed in entries.items()}


def _is_of(table: Table, name: Name, found: Found) -> bool:
    return name.place.tells(table) or is_resource(found.value, name.key)


def _all_of(damaged: dict[str, StorageError]) -> StorageError:
    """One error about all records that are damaged."""
    first, *others = damaged.values()
    if not others:
        return first
    keys = ", ".join(map(repr, islice(damaged, 1, 1 + _MOST_NAMED)))
    more = f" and {len(others) - _MOST_NAMED:,} more" if len(others) > _MOST_NAMED else ""
    error = StorageError(f"{first.message}. So it is with {keys}{more}")
    error.__cause__ = first
    return error


def _order(name: Name, found: Found) -> list[Entry]:
    try:
        return read_order(found.value)
    except FormError as exc:
        raise damaged(name.key, exc) from exc


def _thread_of(name: Name) -> str:
    """The thread that a message's key names."""
    return name.key.removeprefix(name.place.prefix(MESSAGES)).rpartition(":")[0]


def _is_under(table: Table, prefix: Key, name: Name) -> bool:
    """Whether a key alone tells that it is one of a record under a prefix."""
    if not prefix:
        return True
    if not is_plain(table, prefix):
        return False
    if len(prefix) == len(table.key):
        return name.key == name.place.name(table, prefix)
    start = name.place.prefix(table, prefix)
    return name.key.startswith(start) and ":" not in name.key[len(start) :]


def _rank(places: Sequence[Place], table: Table, name: Name, row: Row) -> tuple[int, bool, str]:
    """Which of several records of one key counts: the one where it is written now."""
    return places.index(name.place), name.key != name.place.name(table, row.key), name.key
