"""journal:///agent.jsonl: a store in one file, where every write is one more line.

All rows are in memory as well, and the file only grows: for small stores to look into. POSIX only.
"""

import asyncio
import fcntl
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import FileIO
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import unquote

import msgspec

import mastra_storage as ms
from mastra_storage import Capabilities, Key, Op, Put, Query, Result, Row, Table

T = TypeVar("T")
# What a line says of one row: table, key, value (None when it is gone), the other members.
Entry = tuple[str, Key, str | None, dict[str, Any]]
MEMBERS = ("order", "seq", "fields", "updated", "touched", "version", "expires_at")


class JournalBackend(ms.Backend):
    """A store in one file. Relative paths have three slashes in the URL, absolute ones four."""

    name = "journal"
    capabilities = Capabilities(atomic=True, compare_and_set=True, strong_reads=True)

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self._file: FileIO | None = None
        self._thread = ThreadPoolExecutor(max_workers=1)  # calls take effect in their order
        self._read = 0  # how many bytes of the file are in _entries
        self._entries: dict[tuple[str, Key], Entry] = {}

    @classmethod
    def from_url(cls, url: str, **options: Any) -> Self:
        ms.url_options(url, options, allowed=())
        return cls(unquote(url.partition("://")[2].partition("?")[0].removeprefix("/")))

    async def open(self) -> None:
        try:
            self._file = await self._run(FileIO, self.path, "a+")
        except OSError as exc:
            raise ms.UnavailableError(f"the journal cannot be opened: {exc}") from exc

    async def close(self) -> None:
        await self._run(self._close)

    async def get(self, table: Table, keys: Sequence[Key]) -> list[Row | None]:
        return await self._look(lambda _: [self._row(table, key) for key in keys])

    async def query(self, query: Query) -> Result:
        return await self._look(lambda _: ms.select(self._rows(query.table, query.prefix), query))

    async def write(self, ops: Sequence[Op]) -> None:
        await self._run(self._locked, fcntl.LOCK_EX, lambda file: self._append(file, ops))

    def watch(self, query: Query) -> AsyncIterator[Result]:
        raise ms.UnsupportedError("a journal cannot be watched; the engine polls it instead")

    async def tables(self) -> list[str]:
        return await self._look(lambda _: list({e[0] for e in self._entries.values() if e[2]}))

    def _look(self, find: Callable[[FileIO], T]) -> Awaitable[T]:
        return self._run(self._locked, fcntl.LOCK_SH, find)

    def _run(self, work: Callable[..., T], *args: Any) -> Awaitable[T]:
        return asyncio.get_running_loop().run_in_executor(self._thread, work, *args)

    def _locked(self, lock: int, work: Callable[[FileIO], T]) -> T:
        """Work with the file locked, and with all that it says in `_entries`."""
        if self._file is None:
            raise ms.UnavailableError("the journal is not open", retryable=False)
        fcntl.flock(self._file, lock)
        try:
            self._file.seek(self._read)
            lines, newline, _ = self._file.read().rpartition(b"\n")
            for line in lines.splitlines():
                self._apply(msgspec.json.decode(line, type=list[Entry]))
            self._read += len(lines + newline)
            return work(self._file)
        except BaseException as exc:
            self._read, self._entries = 0, {}  # to be read again from the file
            if isinstance(exc, (OSError, msgspec.DecodeError)):
                raise ms.UnavailableError(f"the journal cannot be used: {exc}") from exc
            raise
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def _append(self, file: FileIO, ops: Sequence[Op]) -> None:
        line = [entry for op in ops for entry in self._apply(self._outcome(op))]
        data = msgspec.json.encode(line) + b"\n"
        file.truncate(self._read)  # drops half a line, of a writer that was killed
        if file.write(data) < len(data):
            raise OSError("the disk is full")
        os.fsync(file.fileno())
        self._read += len(data)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file, self._read, self._entries = None, 0, {}

    def _apply(self, entries: list[Entry]) -> list[Entry]:
        self._entries.update({entry[:2]: entry for entry in entries})
        return entries

    def _row(self, table: Table, key: Key) -> Row | None:
        _, _, value, members = self._entries.get((table.name, key), ("", key, None, {}))
        if value is None or 0 < (members["expires_at"] or 0) <= time.time_ns() // 1000:
            return None
        return Row(table=table, key=key, value=value.encode(), **members)

    def _rows(self, table: Table, prefix: Key) -> list[Row]:
        keys = [key for name, key in self._entries if name == table.name]
        rows = [self._row(table, key) for key in keys if key[: len(prefix)] == prefix]
        return [row for row in rows if row is not None]

    def _outcome(self, op: Op) -> list[Entry]:
        """What `op` makes of the rows it is about; raises when it must not happen."""
        if isinstance(op, ms.DeletePrefix):
            return [(op.table.name, row.key, None, {}) for row in self._rows(op.table, op.prefix)]
        table, key = op.table, op.key
        old = self._row(table, key)
        if isinstance(op, ms.Touch):
            if old is None:
                raise ms.NotFoundError(f"there is no row {key!r} in table {table.name!r}")
            return [entry_of(old, touched=max(op.at, old.touched or op.at))]
        if op.if_version is not None and op.if_version != (old.version if old else ms.ABSENT):
            if isinstance(op, Put) and old and old.version == op.row.version:
                return []  # this very write, retried
            raise ms.ConflictError(f"the row {key!r} of table {table.name!r} has changed")
        if isinstance(op, ms.Delete):
            return [(table.name, key, None, {})]
        touched = [row.touched for row in (op.row, old) if row and row.touched is not None]
        kept = {"seq": old.seq} if old and old.order == op.row.order and op.keep_place else {}
        return [entry_of(op.row, touched=max(touched, default=None), **kept)]


def entry_of(row: Row, **changes: Any) -> Entry:
    members = {name: getattr(row, name) for name in MEMBERS} | changes
    return row.table.name, row.key, row.value.decode(), members
