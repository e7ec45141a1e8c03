"""`sqlite://`: the embedded default. One file, safe across threads and processes.

WAL with `synchronous=FULL`: an acknowledged write is on disk. One thread writes, with group
commit; a few read beside it. The event loop never waits for the disk.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import unquote, urlsplit

from mastra_storage.backend import Backend, Capabilities, Op, Query, Result
from mastra_storage.backends._sqlite_errors import mapped
from mastra_storage.backends._sqlite_layout import exists, layout_of
from mastra_storage.backends._sqlite_migrations import migrate
from mastra_storage.backends._sqlite_writer import Writer, patiently
from mastra_storage.errors import InvalidArgumentError, StorageError, UnavailableError
from mastra_storage.plugins import url_options
from mastra_storage.records import now, to_microseconds
from mastra_storage.schema import Key, Row, Table

__all__ = ["SqliteBackend"]

T = TypeVar("T")

_READERS = 4
_URL_FORM = "sqlite:///relative.db or sqlite:////absolute/path.db"


class SqliteBackend(Backend):
    """Rows in a SQLite file, which is made when it is not there.

        storage = Storage(SqliteBackend("agent.db"))

    - `busy_timeout`: seconds a write waits for other processes before `UnavailableError`.
    - `watch_interval`: seconds between looks for what other processes wrote, while watched;
      what this process writes is seen at once.
    """

    name = "sqlite"
    capabilities = Capabilities(
        atomic=True,
        compare_and_set=True,
        watch=True,
        strong_reads=True,
        max_record_bytes=900_000_000,
    )

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        busy_timeout: float = 60.0,
        watch_interval: float = 0.05,
    ) -> None:
        self.path = Path(path)
        self._busy_timeout = _seconds(busy_timeout, "busy_timeout")
        self._watch_interval = _seconds(watch_interval, "watch_interval")
        self._writer: Writer | None = None
        self._readers: ThreadPoolExecutor | None = None
        self._idle: list[sqlite3.Connection] = []
        self._lookout: sqlite3.Connection | None = None
        self._changed = asyncio.Event()
        self._data_version = 0
        self._looking = asyncio.Lock()
        self._looked_at = 0.0

    @classmethod
    def from_url(cls, url: str, **options: Any) -> Self:
        parts = urlsplit(url)
        path = unquote(parts.path)[1:]
        if parts.netloc or not path or path == ":memory:":
            raise InvalidArgumentError(
                f"a SQLite URL looks like {_URL_FORM}; for a store without a file use memory://",
                backend=cls.name,
            )
        return cls(path, **url_options(url, options, allowed=("busy_timeout", "watch_interval")))

    async def open(self) -> None:
        if self._readers is None:
            self._changed = asyncio.Event()
            self._looking = asyncio.Lock()
            self._readers = ThreadPoolExecutor(_READERS, "mastra-storage-reader")
            await self._in_thread(self._open)

    async def close(self) -> None:
        readers, self._readers = self._readers, None
        self._wake()
        if readers is not None:
            # Shielded, so that a cancelled close does not leave threads behind.
            await asyncio.shield(asyncio.to_thread(self._close, readers))

    async def get(self, table: Table, keys: Sequence[Key]) -> list[Row | None]:
        return await self._in_thread(lambda: self._read(lambda c: _get(c, table, keys)))

    async def query(self, query: Query) -> Result:
        return await self._in_thread(lambda: self._read(lambda c: _query(c, query)))

    async def write(self, ops: Sequence[Op]) -> None:
        if self._readers is None or self._writer is None:
            raise _closed()
        await self._writer.submit(ops)

    async def watch(self, query: Query) -> AsyncIterator[Result]:
        while self._readers is not None:
            changed = self._changed
            yield await self.query(query)
            while self._readers is not None and not changed.is_set():
                try:
                    await asyncio.wait_for(changed.wait(), self._watch_interval)
                except TimeoutError:
                    await self._look()

    async def tables(self) -> list[str]:
        return await self._in_thread(lambda: self._read(_tables))

    # -- threads -----------------------------------------------------------------------------

    async def _in_thread(self, work: Callable[[], T]) -> T:
        if self._readers is None:
            raise _closed()
        return await asyncio.get_running_loop().run_in_executor(self._readers, work)

    def _open(self) -> None:
        connection: sqlite3.Connection | None = None
        try:
            connection = _connect(self.path, self._busy_timeout)
            if connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
                patiently(connection, "PRAGMA journal_mode=WAL", self._busy_timeout)
            connection.execute("PRAGMA synchronous=FULL")
            migrate(connection, self._busy_timeout)
            self._writer = Writer(connection, self._busy_timeout, self._wake)
        except (sqlite3.Error, StorageError) as exc:
            if connection is not None:
                connection.close()
            raise mapped(exc) from exc.__cause__

    def _close(self, readers: ThreadPoolExecutor) -> None:
        readers.shutdown()
        # Only now: a cancelled `open` may have made the writer in the meantime.
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.stop()
        for connection in (*self._idle, *([self._lookout] if self._lookout else [])):
            connection.close()
        self._idle.clear()
        self._lookout = None

    def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` on a connection that nobody else uses meanwhile."""
        try:
            try:
                connection = self._idle.pop()
            except IndexError:
                connection = self._connect_reader()
            try:
                return work(connection)
            finally:
                self._idle.append(connection)
        except (sqlite3.Error, OverflowError, UnicodeEncodeError) as exc:
            raise mapped(exc) from exc

    def _connect_reader(self) -> sqlite3.Connection:
        connection = _connect(self.path, self._busy_timeout)
        connection.execute("PRAGMA query_only=1")
        return connection

    # -- watching ----------------------------------------------------------------------------

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _look(self) -> None:
        """Wake all watchers if another process has written; one of them looks for all."""
        moment = time.monotonic()
        async with self._looking:
            if moment < self._looked_at or self._readers is None:
                return
            changed = await self._in_thread(self._has_changed)
            self._looked_at = time.monotonic()
        if changed:
            self._wake()

    def _has_changed(self) -> bool:
        """Whether anything was committed since the last look; tells it for one connection only."""
        if self._lookout is None:
            self._lookout = self._connect_reader()
        before = self._data_version
        self._data_version = self._lookout.execute("PRAGMA data_version").fetchone()[0]
        return self._data_version != before


def _seconds(value: Any, name: str) -> float:
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise InvalidArgumentError(f"{name} must be a number of seconds above 0", backend="sqlite")
    return seconds


def _closed() -> UnavailableError:
    return UnavailableError("the store is closed", retryable=False)


def _connect(path: Path, patience: float) -> sqlite3.Connection:
    return sqlite3.connect(
        path, timeout=patience, isolation_level=None, check_same_thread=False, cached_statements=256
    )


def _get(connection: sqlite3.Connection, table: Table, keys: Sequence[Key]) -> list[Row | None]:
    layout = layout_of(table)
    if not exists(connection, layout):
        return [None] * len(keys)
    moment = to_microseconds(now())
    found = [connection.execute(layout.get, (*key, moment)).fetchone() for key in keys]
    return [None if row is None else layout.row(row) for row in found]


def _query(connection: sqlite3.Connection, query: Query) -> Result:
    layout = layout_of(query.table)
    if not exists(connection, layout):
        return Result(rows=[], total=0 if query.count else None)
    moment = to_microseconds(now())
    rows = [layout.row(found) for found in connection.execute(*layout.page(query, moment))]
    total = None
    if query.count:
        total = connection.execute(*layout.count(query, moment)).fetchone()[0]
    more = query.limit is not None and len(rows) > query.limit
    rows = rows[: query.limit] if more else rows
    cursor = query.position(rows[-1]) if more and rows else None
    return Result(rows=rows, total=total, cursor=cursor)


def _tables(connection: sqlite3.Connection) -> list[str]:
    found = connection.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name GLOB 'mastra_*' "
        "AND name <> 'mastra_schema' ORDER BY name"
    )
    names = [name for (name,) in found.fetchall()]
    return [
        name.removeprefix("mastra_")
        for name in names
        if connection.execute(f"SELECT EXISTS (SELECT 1 FROM {name})").fetchone()[0]  # noqa: S608
    ]
