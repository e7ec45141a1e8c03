"""`memory://`: rows in a dictionary. The public test double, and the reference for all others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, Self
from weakref import WeakValueDictionary

from msgspec import structs

from mastra_storage.backend import (
    Backend,
    Capabilities,
    Delete,
    DeletePrefix,
    Op,
    Put,
    Query,
    Result,
    Touch,
    select,
)
from mastra_storage.backends._conditions import check_version
from mastra_storage.errors import ConflictError, NotFoundError
from mastra_storage.plugins import url_options
from mastra_storage.records import now, to_microseconds
from mastra_storage.schema import Key, Row, Table

__all__ = ["Memory", "MemoryBackend"]

# The rows of a table, by the first part of their key and then by the whole of it.
_Rows = dict[str, dict[Key, Row]]


class Memory:
    """The data of one or several `MemoryBackend`s: several on one are several stores of it."""

    def __init__(self) -> None:
        self.tables: dict[str, _Rows] = {}
        self.changed = asyncio.Event()


# The data of `memory://NAME`.
_named: WeakValueDictionary[str, Memory] = WeakValueDictionary()


class MemoryBackend(Backend):
    """A store that lives as long as its `Memory`.

    storage = Storage(MemoryBackend())

    `memory://` is a store of its own; all `memory://NAME` of one name and process share one,
    for as long as any of them is there.
    """

    name = "memory"
    capabilities = Capabilities(atomic=True, compare_and_set=True, watch=True, strong_reads=True)

    def __init__(self, memory: Memory | None = None) -> None:
        self._memory = memory or Memory()
        self._closed = asyncio.Event()

    @classmethod
    def from_url(cls, url: str, **options: Any) -> Self:
        url_options(url, options, allowed=())
        name = url.partition("://")[2].partition("?")[0]
        return cls(_named.setdefault(name, Memory()) if name else None)

    async def open(self) -> None:
        self._closed = asyncio.Event()

    async def close(self) -> None:
        self._closed.set()
        self._wake()

    async def get(self, table: Table, keys: Sequence[Key]) -> list[Row | None]:
        time = to_microseconds(now())
        return [_alive(self._partition(table, key).get(key), time) for key in keys]

    async def query(self, query: Query) -> Result:
        time = to_microseconds(now())
        if query.prefix:
            partitions = [self._partition(query.table, query.prefix)]
        else:
            partitions = list(self._memory.tables.get(query.table.name, {}).values())
        rows = (row for partition in partitions for row in partition.values() if _alive(row, time))
        return select(rows, query)

    async def write(self, ops: Sequence[Op]) -> None:
        undo: list[tuple[Table, Key, Row | None]] = []
        try:
            for op in ops:
                self._apply(op, undo)
        except (ConflictError, NotFoundError):
            for table, key, row in reversed(undo):
                self._set(table, key, row)
            raise
        self._wake()

    async def watch(self, query: Query) -> AsyncIterator[Result]:
        closed = self._closed  # of this opening
        while not closed.is_set():
            changed = self._memory.changed
            yield await self.query(query)
            await changed.wait()

    async def tables(self) -> list[str]:
        return [name for name, rows in self._memory.tables.items() if any(rows.values())]

    def _apply(self, op: Op, undo: list[tuple[Table, Key, Row | None]]) -> None:
        if isinstance(op, DeletePrefix):
            if op.prefix:
                partitions = [self._partition(op.table, op.prefix)]
            else:
                partitions = list(self._memory.tables.get(op.table.name, {}).values())
            keys = [
                key
                for partition in partitions
                for key in partition
                if key[: len(op.prefix)] == op.prefix
            ]
            undo.extend((op.table, key, self._set(op.table, key, None)) for key in keys)
            return
        old = _alive(self._partition(op.table, op.key).get(op.key), to_microseconds(now()))
        undo.append((op.table, op.key, self._set(op.table, op.key, _outcome(op, old))))

    def _partition(self, table: Table, key: Key) -> dict[Key, Row]:
        return self._memory.tables.get(table.name, {}).get(key[0], {})

    def _set(self, table: Table, key: Key, row: Row | None) -> Row | None:
        """Put a row in its place, or take it away; gives what was there."""
        partitions = self._memory.tables.setdefault(table.name, {})
        partition = partitions.setdefault(key[0], {})
        old = partition.pop(key, None)
        if row is not None:
            partition[key] = row
        elif not partition:
            del partitions[key[0]]
        return old

    def _wake(self) -> None:
        changed, self._memory.changed = self._memory.changed, asyncio.Event()
        changed.set()


def _alive(row: Row | None, time: int) -> Row | None:
    return row if row is None or row.expires_at is None or row.expires_at > time else None


def _outcome(op: Put | Delete | Touch, old: Row | None) -> Row | None:
    """What is there after `op`."""
    if isinstance(op, Touch):
        if old is None:
            raise NotFoundError(f"there is no row {op.key!r} in table {op.table.name!r} to touch")
        return structs.replace(old, touched=max(op.at, old.touched or op.at))
    happened = check_version(op, None if old is None else old.version)
    if isinstance(op, Delete):
        return None
    if happened or old is None:
        return old or op.row
    row = op.row
    touched = old.touched if row.touched is None else max(row.touched, old.touched or row.touched)
    keep = op.keep_place and old.order == row.order
    return structs.replace(row, seq=old.seq if keep else row.seq, touched=touched)
