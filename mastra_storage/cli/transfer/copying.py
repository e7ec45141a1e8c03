"""Copy: every row of one store into another, through the verbs, and then a comparison."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from hashlib import blake2b

from msgspec import Struct, structs

from mastra_storage.backend import Put, Query, Result
from mastra_storage.cli.transfer.rows import (
    canonical,
    check_size,
    known_tables,
    naming,
    same_place,
    stated,
)
from mastra_storage.schema import Row, Table
from mastra_storage.storage import Storage
from mastra_storage.validation import encode

__all__ = ["Comparison", "Copied", "Digest", "copy_rows"]

_READ_ROWS = 500


class Digest(Struct):
    """How many rows, and a sum of their hashes, which does not depend on their order.

    Everything of a row counts but its version, which says who wrote it and not what.
    """

    count: int = 0
    total: int = 0

    def add(self, row: Row) -> None:
        """Count a row in, whatever the order of rows."""
        members = (
            row.table.name,
            row.key,
            row.order,
            row.seq,
            sorted(stated(row.fields).items()),
            row.updated,
            row.touched,
            row.expires_at,
        )
        mark = blake2b(encode(members) + canonical(row.value), digest_size=16).digest()
        self.count += 1
        self.total = (self.total + int.from_bytes(mark)) % 2**128

    @property
    def text(self) -> str:
        """The digest in hexadecimal."""
        return f"{self.total:032x}"


class Comparison(Struct):
    """A table after a copy: what both stores hold of it, and how many rows were written."""

    table: str
    written: int
    source: Digest
    target: Digest

    @property
    def equal(self) -> bool:
        """Whether both stores hold the same rows."""
        return self.source == self.target


class Copied(Struct):
    """How far a copy is: `compared` rows of `total` in the `table` at hand."""

    table: str
    total: int | None
    compared: int = 0
    written: int = 0


async def copy_rows(
    source: Storage, target: Storage, *, on_progress: Callable[[Copied], None] | None = None
) -> list[Comparison]:
    """Copy all tables, those of adapters too, and compare both stores afterwards.

    Rows that are equal in the target are not written again, so a copy that was interrupted
    goes on where it stopped when it is repeated. Rows that only the target has stay; the
    comparison shows them.

    Raises `PluginNotFoundError` before anything is written when the source holds rows of a
    table that nobody here knows.
    """
    with naming(source, "copy"):
        tables = await known_tables(source)
        return [await _copy(source, target, table, on_progress) for table in tables.values()]


async def _copy(
    source: Storage,
    target: Storage,
    table: Table,
    on_progress: Callable[[Copied], None] | None,
) -> Comparison:
    found = await source.backend.query(Query(table=table, limit=0, count=True))
    state, digest = Copied(table.name, found.total), Digest()
    async with aclosing(_read_ahead(source, table)) as batches:
        async for rows in batches:
            for row in rows:
                digest.add(row)
            with naming(target, "copy"):
                state.written += await _put(target, table, rows)
            state.compared += len(rows)
            if on_progress is not None:
                on_progress(state)
    with naming(target, "copy"):
        return Comparison(table.name, state.written, digest, await digest_of(target, table))


async def digest_of(storage: Storage, table: Table) -> Digest:
    """The digest of a whole table."""
    digest = Digest()
    async with aclosing(_read_ahead(storage, table)) as batches:
        async for rows in batches:
            for row in rows:
                digest.add(row)
    return digest


async def _put(target: Storage, table: Table, rows: Sequence[Row]) -> int:
    """Write the rows that are not there, or not the same there; says how many."""
    olds = await target.backend.get(table, [row.key for row in rows])
    puts = [
        Put(row, keep_place=False)
        for row, old in zip(rows, olds, strict=True)
        if not same_place(old, row)
    ]
    for put in puts:
        check_size(target, put.row)
    if puts:
        await target.backend.write(puts)
    return len(puts)


async def _read_ahead(storage: Storage, table: Table) -> AsyncGenerator[list[Row], None]:
    """All rows of a table in batches; the next is read while one is being used."""
    query = Query(table=table, order_by="any", limit=_READ_ROWS)
    reading: asyncio.Task[Result] | None = asyncio.create_task(_read(storage, query))
    try:
        while reading is not None:
            result = await reading
            reading = None
            if result.cursor is not None:
                query = structs.replace(query, after=result.cursor)
                reading = asyncio.create_task(_read(storage, query))
            if result.rows:
                yield result.rows
    finally:
        if reading is not None:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


async def _read(storage: Storage, query: Query) -> Result:
    return await storage.backend.query(query)
