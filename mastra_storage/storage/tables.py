"""Tables: plain rows, without cascades or checks across tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mastra_storage.arguments import list_argument
from mastra_storage.backend import DeletePrefix, Put
from mastra_storage.errors import InvalidArgumentError
from mastra_storage.schema import Table
from mastra_storage.storage._engine import operation, unique
from mastra_storage.storage._parts import with_parts
from mastra_storage.storage.rows import Rows
from mastra_storage.validation import check_id, record_from

__all__ = ["Tables"]


class Tables(Rows):
    """The table methods of `Storage`.

    `table` is one of "threads", "messages", "workflow_snapshot", "traces", "evals", "resources",
    or the name of a table that an adapter registered. A record is a record of that table, or
    a mapping with its members (snake_case or camelCase, times as datetimes or ISO-8601).
    """

    @operation
    async def insert(self, table: str, record: Any) -> None:
        """Store one record as a plain row. Raises `InvalidRecordError`."""
        await self._insert(table, [record])

    @operation
    async def batch_insert(self, table: str, records: Iterable[Any]) -> None:
        """Store several; all are checked before any is written."""
        await self._insert(table, records)

    async def _insert(self, name: str, records: Iterable[Any]) -> None:
        table = self._table(name)
        kind = table.record
        if kind is not None:
            records = [
                record_from(kind, record) if isinstance(record, Mapping) else record
                for record in list_argument(records, "records")
            ]
        if table.large:
            _, rows = await self._rows(table, records)
            puts = [Put(row) for row in unique(rows)]
            await self._change_rows([(table, put.row.key) for put in puts], lambda _: puts)
        else:
            await self._save(table, records)

    async def load(self, /, table: str, **key: str) -> Any:
        """The record with this key, or `None`; the members of the key are given by name.

        await storage.load("messages", thread_id="t1", id="m1")
        """
        return await self._load(table, key)

    # Its own method, for a decorated one cannot leave all names but `table` to the key.
    @operation
    async def _load(self, table: str, key: Mapping[str, str]) -> Any:
        found = self._table(table)
        if set(key) != set(found.key):
            raise InvalidArgumentError(
                f"the key of table {table!r} is {', '.join(found.key)}; "
                f"what was given is {', '.join(sorted(key)) or 'nothing'}"
            )
        empty = found.record is None
        wanted = tuple([check_id(key[part], part, empty=empty) for part in found.key])
        [row] = await self._whole(await self.backend.get(found, [wanted]))
        return None if row is None else found.record_of(row)

    @operation
    async def clear_table(self, table: str) -> None:
        """Delete all rows of a table, and of no other."""
        await self._write(*with_parts([DeletePrefix(self._table(table), ())], None))

    def _table(self, name: str) -> Table:
        table = self._tables.get(name) if isinstance(name, str) else None
        if table is None:
            shown = repr(name) if isinstance(name, str) else f"of type {type(name).__name__}"
            raise InvalidArgumentError(
                f"there is no table {shown}; the tables are: {', '.join(self._tables)}"
            )
        return table
