"""Rows: what adapters for agent runtimes keep in tables of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, cast

from msgspec import structs

from mastra_storage.arguments import list_argument, time_argument
from mastra_storage.backend import Delete, Op, Put, Query
from mastra_storage.errors import InvalidArgumentError, StorageError, UnavailableError
from mastra_storage.records import to_microseconds
from mastra_storage.schema import Key, Row, Table
from mastra_storage.storage._engine import Engine, operation, together
from mastra_storage.storage._locks import Name
from mastra_storage.storage._parts import Manifest, join, manifest_of, part_keys, with_parts
from mastra_storage.storage._row_arguments import (
    instance,
    key_argument,
    kind_of,
    op_argument,
    order_argument,
    query_argument,
)

__all__ = ["Rows"]

# How often a row is read again whose parts are not there, and how long after, in seconds: it was
# replaced meanwhile, or the store shows its newest writes late.
_PARTS_ATTEMPTS = 6
_PARTS_WAIT = 0.1


class Rows(Engine):
    """The row methods of `Storage`: for tables that adapters define, on any backend.

    They take and give `Row`s, `Op`s and `Query`s as backends do, and add what a backend leaves
    to the engine: places and versions, changes that lose nobody else's, values of any size.
    """

    def new_row(
        self,
        table: Table,
        record: Any,
        *,
        order: int | None = None,
        expires_at: datetime | None = None,
    ) -> Row:
        """A row to be put, of a record of `table`, or of a mapping where it has no record type.

        `order`, in microseconds since 1970, is its place among others; else its `created_at`,
        or now. From `expires_at` on it is gone. Not a coroutine; raises `InvalidRecordError`,
        and `InvalidArgumentError` for an `order` that has no 64 bits.
        """
        try:
            row = self._first_row(instance(table, "table", Table), record)
            order = order_argument(order, "order")
            expires_at = time_argument(expires_at, "expires_at")
        except StorageError as exc:
            self._located(exc, "new_row")
            raise
        return structs.replace(
            row,
            order=row.order if order is None else order,
            expires_at=None if expires_at is None else to_microseconds(expires_at),
        )

    @operation
    async def get_rows(self, table: Table, keys: Iterable[Key]) -> list[Row | None]:
        """The rows with these keys, in the order asked; `None` for one that is not there."""
        wanted = [key_argument(table, key) for key in list_argument(keys, "keys")]
        if not wanted:
            return []
        return await self._whole(await self.backend.get(table, wanted))

    @operation
    async def find_rows(self, query: Query) -> list[Row]:
        """All rows that match, up to `query.limit`, in however many steps the backend takes.

        Raises `InvalidArgumentError` for a query that rows of its table cannot answer.
        """
        rows = await self._whole(await self._all(query_argument(query)))
        return [row for row in rows if row is not None]

    @operation
    async def write_rows(self, *ops: Op) -> None:
        """Carry out ops as `Backend.write` does: atomic, or in order, as `capabilities` say.

        `if_version` has a meaning on stores with `compare_and_set` alone: see `change_rows`.
        In `large` tables, put rows here that are new or that have the value they had; what
        replaces a value goes through `change_rows`, which removes the parts of the old one.
        Raises `InvalidArgumentError` for an op whose key is none of its table's.
        """
        checked = [*map(op_argument, ops)]
        if checked:
            await self._write(*with_parts(checked, self.capabilities.max_record_bytes))

    @operation
    async def change_rows(
        self,
        keys: Iterable[tuple[Table, Key]],
        change: Callable[[list[Row | None]], Iterable[Op]],
    ) -> list[Op]:
        """Read rows and write what `change` makes of them, with nobody's change in between lost.

        `change` gets the rows in the order asked and gives the ops: none leaves all as it is, and
        it may raise to give up. An op on a row that was read holds only for that row as read;
        other ops are carried out as given, and a row without an op may change meanwhile. When
        another store was first, everything is read and `change` called anew, some twenty times
        before `ConflictError`. Gives the ops that were written.

        Without `compare_and_set`, only changes of this storage object are kept apart.
        """
        wanted: list[tuple[Table, Key]] = []
        for pair in list_argument(keys, "keys"):
            if not isinstance(pair, tuple) or len(pair) != 2:
                raise InvalidArgumentError("keys are pairs of a Table and a key of it")
            wanted.append((pair[0], key_argument(*pair)))
        if not callable(change):
            raise InvalidArgumentError(f"change is called, which {kind_of(change)} cannot be")
        return await self._change_rows(wanted, change)

    async def _change_rows(
        self,
        wanted: Sequence[tuple[Table, Key]],
        change: Callable[[list[Row | None]], Iterable[Op]],
    ) -> list[Op]:
        async def prepare() -> tuple[list[Op], list[Op]]:
            stored = await self._stored(wanted)
            whole = await self._whole(stored)
            known = dict(zip(wanted, stored, strict=True))
            ops = []
            for op in list_argument(change(whole), "what change gives"):
                op_argument(op)
                # A row that was not there is not deleted: by now it may be another's.
                if not isinstance(op, Delete) or known.get((op.table, op.key), op) is not None:
                    ops.append(op)
            conditional = [self._as_read(op, known) for op in ops]
            return with_parts(conditional, self.capabilities.max_record_bytes, known), ops

        async with self._locks.hold([Name(table.name, key) for table, key in wanted]):
            return await self._compare_and_set(prepare)

    async def _stored(self, wanted: Sequence[tuple[Table, Key]]) -> list[Row | None]:
        """Rows of several tables as they are stored, those of each table read at once."""
        tables = list(dict.fromkeys(table for table, _ in wanted))
        keys = [[key for of, key in wanted if of == table] for table in tables]
        found = await together(
            *[self.backend.get(table, some) for table, some in zip(tables, keys, strict=True)]
        )
        rows = {
            (table, key): row
            for table, some, answer in zip(tables, keys, found, strict=True)
            for key, row in zip(some, answer, strict=True)
        }
        return [rows[one] for one in wanted]

    def _as_read(self, op: Op, known: dict[tuple[Table, Key], Row | None]) -> Op:
        """The op, on condition that its row is as it was read."""
        if not self.capabilities.compare_and_set or not isinstance(op, Put | Delete):
            return op
        if (op.table, op.key) not in known:
            return op
        return structs.replace(op, if_version=self._expecting(known[op.table, op.key]))

    async def _whole(self, rows: Sequence[Row | None]) -> list[Row | None]:
        """The rows with their whole values, where they are kept in parts."""
        found = list(rows)
        for attempt in range(_PARTS_ATTEMPTS):
            cut = {
                place: (row, manifest)
                for place, row in enumerate(found)
                if row is not None and (manifest := manifest_of(row)) is not None
            }
            torn = await self._join(found, cut)
            if not torn:
                return found
            await asyncio.sleep(_PARTS_WAIT * 2**attempt)
            again = await self._stored([(row.table, row.key) for row in torn.values()])
            for place, row in zip(torn, again, strict=True):
                found[place] = row
        raise UnavailableError(
            f"parts of row {next(iter(torn.values())).key!r} are not there; the store may show "
            "them in a while: try again"
        )

    async def _join(
        self, found: list[Row | None], cut: dict[int, tuple[Row, Manifest]]
    ) -> dict[int, Row]:
        """Put whole rows in the places of `cut`; gives those whose parts are not all there."""
        wanted = [
            (row.table.parts, key)
            for row, manifest in cut.values()
            for key in part_keys(row, manifest)
        ]
        parts = iter(await self._stored(wanted) if wanted else [])
        torn: dict[int, Row] = {}
        for place, (row, manifest) in cut.items():
            own = [next(parts) for _ in range(manifest.count)]
            if None in own:
                torn[place] = row
            else:
                found[place] = join(row, manifest, cast(list[Row], own))
        return torn
