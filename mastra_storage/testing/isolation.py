"""Tables of one's own in a store that holds other data."""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import cast

from msgspec import structs

from mastra_storage.backend import Backend, DeletePrefix, Op, Put, Query, Result
from mastra_storage.schema import Key, Row, Table
from mastra_storage.testing._wrapper import Wrapper

__all__ = ["IsolatedBackend", "is_of_check", "isolated", "prefix_for_check"]

_OF_CHECK = re.compile(r"kit[0-9a-f]{8}_")


def isolated(backend: Backend, prefix: str) -> IsolatedBackend:
    """`backend`, seeing and touching only tables whose names start with `prefix`.

    What uses it sees the usual names. `prefix` starts with a lower-case letter and has only
    lower-case letters, digits and `_`; with it a table's name stays within 63 characters.
    """
    return IsolatedBackend(backend, prefix)


def prefix_for_check() -> str:
    """A prefix for the tables of one run of the kit in a store that holds other data."""
    return f"kit{secrets.token_hex(4)}_"


def is_of_check(table_name: str) -> bool:
    """Whether a table is of such a run; one that was killed leaves what it had written."""
    return _OF_CHECK.match(table_name) is not None


class IsolatedBackend(Wrapper):
    """A backend whose tables carry a prefix in the store, and none outside it."""

    def __init__(self, wrapped: Backend, prefix: str) -> None:
        super().__init__(wrapped)
        self.prefix = prefix
        self._written: dict[str, Table] = {}

    async def get(self, table: Table, keys: Sequence[Key]) -> list[Row | None]:
        rows = await self.wrapped.get(self._inside(table), keys)
        return [row and structs.replace(row, table=table) for row in rows]

    async def query(self, query: Query) -> Result:
        found = await self.wrapped.query(structs.replace(query, table=self._inside(query.table)))
        return _outside(found, query.table)

    async def write(self, ops: Sequence[Op]) -> None:
        await self.wrapped.write([self._renamed(op) for op in ops])

    async def watch(self, query: Query) -> AsyncIterator[Result]:
        source = self.wrapped.watch(structs.replace(query, table=self._inside(query.table)))
        async with aclosing(cast(AsyncGenerator[Result, None], source)) as results:
            async for result in results:
                yield _outside(result, query.table)

    async def tables(self) -> list[str]:
        found = await self.wrapped.tables()
        return [name.removeprefix(self.prefix) for name in found if name.startswith(self.prefix)]

    async def clear(self) -> None:
        """Delete every row of the tables written through this wrapper."""
        await self.write([DeletePrefix(table, ()) for table in self.written])

    @property
    def written(self) -> list[Table]:
        """The tables written through this wrapper, by their usual names."""
        return list(self._written.values())

    def _inside(self, table: Table) -> Table:
        return structs.replace(table, name=self.prefix + table.name)

    def _renamed(self, op: Op) -> Op:
        table = op.table
        self._written[table.name] = table
        table = self._inside(table)
        if isinstance(op, Put):
            return structs.replace(op, row=structs.replace(op.row, table=table))
        return structs.replace(op, table=table)


def _outside(result: Result, table: Table) -> Result:
    return structs.replace(result, rows=[structs.replace(row, table=table) for row in result.rows])
