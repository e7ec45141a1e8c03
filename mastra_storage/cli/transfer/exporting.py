"""Export: a whole store as JSON lines, one thread a line, then the rows of all other tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from errno import EAGAIN
from io import RawIOBase
from typing import BinaryIO, TypeAlias

from msgspec import Struct, structs

from mastra_storage.backend import Query, Result
from mastra_storage.cli.transfer.blocking import in_thread
from mastra_storage.cli.transfer.encoding import message_object, row_line, thread_object
from mastra_storage.cli.transfer.rows import batches_of, known_tables, naming
from mastra_storage.schema import MESSAGES, THREADS, Row, Table
from mastra_storage.storage import Storage
from mastra_storage.storage._lifecycle import together
from mastra_storage.validation import encode

__all__ = ["Exported", "export_lines"]

Output: TypeAlias = BinaryIO | RawIOBase

_READ_ROWS = 500
_AT_ONCE = 8  # threads whose first messages are read together
_WRITE_BYTES = 2**20


class Exported(Struct):
    """What an export has written so far; `rows` are those of row lines."""

    threads: int = 0
    messages: int = 0
    rows: int = 0


async def export_lines(
    storage: Storage,
    file: Output,
    *,
    on_progress: Callable[[Exported], None] | None = None,
) -> Exported:
    """Write everything a store holds, so that an import makes an equal store of it.

    A line is written piece by piece, in threads: memory stays flat whatever the length of a
    conversation. Rows that are added meanwhile may or may not be in the export.

    Raises `PluginNotFoundError` before anything is written when the store holds rows of a
    table that nobody here knows, and `StorageError` at a damaged row.
    """
    with naming(storage, "export"):
        tables = await known_tables(storage)
        exporter = _Exporter(storage, file, on_progress)
        await exporter.threads()
        await exporter.other_messages()
        for name, table in tables.items():
            if name not in (THREADS.name, MESSAGES.name):
                await exporter.rows(table)
        await exporter.flush()
    return exporter.done


class _Exporter:
    def __init__(
        self, storage: Storage, file: Output, on_progress: Callable[[Exported], None] | None
    ) -> None:
        self._storage = storage
        self._file = file
        self._on_progress = on_progress
        self._pieces: list[bytes] = []
        self._size = 0
        self.done = Exported()

    async def threads(self) -> None:
        """All threads with their messages, oldest first."""
        async for rows in batches_of(self._storage, Query(table=THREADS, limit=_READ_ROWS)):
            for start in range(0, len(rows), _AT_ONCE):
                group = rows[start : start + _AT_ONCE]
                found = await together(
                    *[self._storage.backend.query(_messages_of(row)) for row in group]
                )
                for row, first in zip(group, found, strict=True):
                    await self._thread(row, first)

    async def other_messages(self) -> None:
        """Messages without a thread, and rows that no message object can stand for."""
        counted = await self._storage.backend.query(Query(table=MESSAGES, limit=0, count=True))
        if counted.total is not None and counted.total <= self.done.messages:
            return
        everything = Query(table=MESSAGES, order_by="any", limit=_READ_ROWS)
        async for rows in batches_of(self._storage, everything):
            keys = list({row.key[:1] for row in rows})
            threads = await self._storage.backend.get(THREADS, keys)
            shown = {row.key[:1] for row in threads if row is not None and thread_object(row)}
            await self._row_lines(
                row for row in rows if row.key[:1] not in shown or message_object(row) is None
            )

    async def rows(self, table: Table) -> None:
        """All rows of a table."""
        everything = Query(table=table, order_by="any", limit=_READ_ROWS)
        async for rows in batches_of(self._storage, everything):
            await self._row_lines(rows)

    async def flush(self) -> None:
        """Hand what was written to the file."""
        pieces, self._pieces, self._size = b"".join(self._pieces), [], 0
        await in_thread(lambda: _write_all(self._file, pieces))

    async def _thread(self, row: Row, result: Result) -> None:
        shown = thread_object(row)
        if shown is None:
            await self._row_lines([row])
            return
        await self._write(b'{"thread_id":%b,"thread":%b,"messages":[' % (encode(row.key[0]), shown))
        comma = b""
        query = _messages_of(row)
        while True:
            for message in result.rows:
                if (text := message_object(message)) is not None:
                    self.done.messages += 1
                    await self._write(comma + text)
                    comma = b","
            if result.cursor is None:
                break
            self._report()
            query = structs.replace(query, after=result.cursor)
            result = await self._storage.backend.query(query)
        await self._write(b"]}\n")
        self.done.threads += 1
        self._report()

    async def _row_lines(self, rows: Iterable[Row]) -> None:
        for row in rows:
            await self._write(row_line(row))
            self.done.rows += 1
        self._report()

    async def _write(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size >= _WRITE_BYTES:
            await self.flush()

    def _report(self) -> None:
        if self._on_progress is not None:
            self._on_progress(self.done)


def _write_all(file: Output, pieces: bytes) -> None:
    """Write to a file without a buffer of its own, which may take less than it is given."""
    left = memoryview(pieces)
    while left:
        written = file.write(left)
        if written is None:
            raise BlockingIOError(EAGAIN, "the output is full, and set not to wait")
        left = left[written:]


def _messages_of(thread: Row) -> Query:
    return Query(table=MESSAGES, prefix=thread.key, limit=_READ_ROWS)
