"""Where the TypeScript store keeps what: its namespaces, its keys, and those it used before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from mastra_storage import (
    MESSAGES,
    RESOURCES,
    TABLES,
    InvalidRecordError,
    Key,
    Table,
    UnsupportedError,
)
from mastra_storage_cloudflare.futures import of_this_loop
from mastra_storage_cloudflare.kv import KV, MAX_KEY_BYTES, Entry
from mastra_storage_cloudflare.queries import list_all

# The id that the list of a thread's messages takes.
_ORDER_ID = "messages"

# The namespaces that earlier releases kept a table in.
_OLD_NAMESPACES = {
    "threads": ["threads"],
    "messages": ["threads"],
    "workflow_snapshot": ["workflows"],
    "traces": ["evals"],
    "evals": ["evals"],
}

# Namespaces of earlier releases that hold a table of another name, or no records.
_NOT_RECORDS = {"workflows", "schemas"}


class Place(NamedTuple):
    """A namespace, and what stands before `mastra_…` in the keys there.

    `shared`: other tables, and what is no table at all, may be there too.
    """

    namespace: str
    start: str
    shared: bool = False

    def name(self, table: Table, key: Key) -> str:
        """The key of a record in KV."""
        return self.prefix(table) + ":".join(key)

    def prefix(self, table: Table, prefix: Key = ()) -> str:
        """Before the keys of all records whose key starts with `prefix`."""
        if table == RESOURCES:
            return ""  # the bare id
        return f"{self.start}mastra_{table.name}:" + "".join(f"{part}:" for part in prefix)

    def order_name(self, thread_id: str) -> str:
        """The key of the list of a thread's messages."""
        return self.name(MESSAGES, (thread_id, _ORDER_ID))

    def tells(self, table: Table) -> bool:
        """Whether keys alone tell that a record is one of this table."""
        return table != RESOURCES or not self.shared

    def holds(self, table: Table, name: str) -> bool:
        """Whether a key that was listed may be one of a record of this table."""
        if table == RESOURCES:
            return not name.startswith((f"{self.start}mastra_", f"{self.start}schema:"))
        return table != MESSAGES or not name.endswith(f":{_ORDER_ID}")


class Places:
    """The places of each table: where it is written, and where earlier releases wrote it."""

    def __init__(self, kv: KV, prefix: str, *, titled: bool) -> None:
        """`titled`: whether namespaces are found by their titles, as they are over REST.

        Only there are old places looked for: bindings name a namespace for every table.
        """
        prefix = prefix.strip()
        self._kv = kv
        self._start = f"{prefix}:" if prefix else ""
        self._titled = titled
        self._found: dict[str, asyncio.Task[list[Place]]] = {}

    def main(self, table: Table) -> Place:
        """Where a table is written."""
        return Place(table.name, self._start, shared=not self._titled)

    async def of(self, table: Table) -> list[Place]:
        """Where a table is read: first where it is written, then old places with records."""
        if not self._titled:
            return [self.main(table)]
        finding = self._found.get(table.name)
        if finding is None or (finding.done() and (finding.cancelled() or finding.exception())):
            finding = asyncio.get_running_loop().create_task(self._find(table))
            self._found[table.name] = finding
        return await asyncio.shield(finding)

    async def _find(self, table: Table) -> list[Place]:
        main = self.main(table)
        there = await self._kv.namespaces()
        old = [
            place
            for namespace in _OLD_NAMESPACES.get(table.name, ())
            for place in (Place(namespace, self._start), Place(namespace, ""))
            if namespace in there and place != main
        ]
        old = list(dict.fromkeys(old))
        used = await asyncio.gather(*[self._is_used(place, table) for place in old])
        return [main, *[place for place, is_used in zip(old, used, strict=True) if is_used]]

    async def _is_used(self, place: Place, table: Table) -> bool:
        return await _any(list_all(self._kv, place.namespace, place.prefix(table)))

    async def unread(self) -> list[str]:
        """The namespaces with records of kinds that this library does not have."""
        if not self._titled:
            return []
        names = set(await self._kv.namespaces()) - TABLES.keys() - _NOT_RECORDS
        return [name for name in sorted(names) if await _any(list_all(self._kv, name, ""))]

    async def close(self) -> None:
        """Let what is being looked for come to its end."""
        await asyncio.gather(*of_this_loop(self._found.values()), return_exceptions=True)
        self._found.clear()


async def _any(entries: AsyncIterator[Entry]) -> bool:
    async for _ in entries:
        return True
    return False


def check_table(table: Table) -> None:
    """Refuse the tables that this layout has no place for."""
    if TABLES.get(table.name) != table:
        raise UnsupportedError(
            f"the layout of the TypeScript store has no table {table.name!r}; "
            "open the store without interop='mastra' for it"
        )


def is_plain(table: Table, key: Key) -> bool:
    """Whether a key is one that this layout holds without mistaking it for another."""
    return _fault(table, key) is None


def check_key(place: Place, table: Table, key: Key) -> None:
    """Refuse a key that this layout cannot hold."""
    fault = _fault(table, key)
    if fault is not None:
        raise InvalidRecordError(f"{fault}; choose another id", field=_field(table, key))
    if not place.holds(table, place.name(table, key)):
        raise InvalidRecordError(
            f"the id {key[-1]!r} would be taken for a record of another table in the layout of the "
            "TypeScript store; choose another id",
            field=table.key[-1],
        )
    size = len(place.name(table, key).encode())
    if size > MAX_KEY_BYTES:
        raise InvalidRecordError(
            f"the key of {key!r} of table {table.name!r} would be {size} bytes in the layout of "
            f"the TypeScript store, and KV has keys of {MAX_KEY_BYTES}; choose a shorter id",
            field=table.key[-1],
        )


def _fault(table: Table, key: Key) -> str | None:
    at = _bad_part(table, key)
    if at is None:
        return None
    return (
        f"{table.key[at]} {key[at]!r} cannot be kept in the layout of the TypeScript store, which "
        + (
            "has its list of a thread's messages under that id"
            if key[at] == _ORDER_ID
            else f"escapes none of {' '.join(map(_named, _refused(table)))} in its keys"
        )
    )


def _field(table: Table, key: Key) -> str | None:
    at = _bad_part(table, key)
    return None if at is None else table.key[at]


def _bad_part(table: Table, key: Key) -> int | None:
    for at, part in enumerate(key):
        if set(part) & set(_refused(table)) or (table == RESOURCES and part in (".", "..")):
            return at
        if table == MESSAGES and at == 1 and part == _ORDER_ID:
            return at
    return None


def _refused(table: Table) -> Sequence[str]:
    # The id of a resource stands alone, so that a colon in it separates nothing.
    return "?#%/\0" if table == RESOURCES else ":?#%/\0"


def _named(character: str) -> str:
    return character if character.isprintable() else f"U+{ord(character):04X}"
