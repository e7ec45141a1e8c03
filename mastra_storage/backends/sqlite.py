"""`sqlite://`: the embedded default. One file, safe across threads and processes.

WAL with `synchronous=FULL`: an acknowledged write is on disk. One thread writes, with group
commit; a few read beside it. The event loop never waits for the disk.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

from mastra_storage.backend import Backend, Capabilities, Op, Query, Result
from mastra_storage.backends._sqlite_layout import fits, layout_of, tables_with_rows
from mastra_storage.backends._sqlite_session import Session
from mastra_storage.backends._sqlite_transaction import Fit, tables_of
from mastra_storage.backends._sqlite_watchers import Watcher, Watchers
from mastra_storage.backends._sqlite_writer import Writer
from mastra_storage.errors import InvalidArgumentError, UnavailableError
from mastra_storage.plugins import url_options
from mastra_storage.records import now, to_microseconds
from mastra_storage.schema import Key, Row, Table

__all__ = ["SqliteBackend"]

T = TypeVar("T")

_URL_FORM = "sqlite:///relative.db or sqlite:////absolute/path.db"


class SqliteBackend(Backend):
    """Rows in a SQLite file, which is made when it is not there.

        storage = Storage(SqliteBackend("agent.db"))

    - `path`: where the file is; a relative one counts from the directory that is current when
      the store is opened.
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
        self.path = _checked_path(path)
        self._busy_timeout = _seconds(busy_timeout, "busy_timeout")
        self._watch_interval = _seconds(watch_interval, "watch_interval")
        self._session: Session | None = None
        self._closing: asyncio.Task[None] | None = None
        self._watchers = Watchers()
        self._lookout: asyncio.Task[None] | None = None

    @classmethod
    def from_url(cls, url: str, **options: Any) -> Self:
        from urllib.parse import unquote

        # By hand: in a file's name `#`, `[` and `@` mean nothing.
        place = url.partition("://")[2].partition("?")[0]
        if not place.startswith("/") or len(place) == 1:
            raise _not_a_file()
        found = url_options(url, options, allowed=("busy_timeout", "watch_interval"))
        return cls(unquote(place[1:]), **found)

    async def open(self) -> None:
        await self._closed()
        if self._session is None:
            self._session = Session(self.path, self._busy_timeout, self._watchers.wake_at)
            try:
                await self._in_thread(Session.open)
            except BaseException:
                await self.close()
                raise

    async def close(self) -> None:
        session, self._session = self._session, None
        self._watchers.wake()
        if session is not None:
            self._closing = asyncio.create_task(session.close())
            # Whoever waits is told its error, here or in `open`; who is cancelled does not wait.
            self._closing.add_done_callback(lambda task: task.cancelled() or task.exception())
        await self._closed()

    async def _closed(self) -> None:
        """Wait for the last session to end; a cancelled `close` goes on ending it."""
        if self._closing is not None:
            await asyncio.shield(self._closing)

    async def get(self, table: Table, keys: Sequence[Key]) -> list[Row | None]:
        await self._prepare(table)
        return await self._read(lambda connection: _get(connection, table, keys))

    async def query(self, query: Query) -> Result:
        await self._prepare(query.table)
        return await self._read(lambda connection: _query(connection, query))

    async def write(self, ops: Sequence[Op]) -> None:
        for table in tables_of(ops):
            await self._prepare(table)
        await self._writer().submit(ops)

    async def _prepare(self, table: Table) -> None:
        """Fit an adapter's table to its definition, which may have changed, once in a session."""
        session = self._session
        if layout_of(table).is_core or session is None or table in session.prepared:
            return
        if not await self._read(lambda connection: fits(connection, layout_of(table))):
            await self._writer().submit([Fit(table)])
        session.prepared.add(table)

    def _writer(self) -> Writer:
        if self._session is None or self._session.writer is None:
            raise _not_open()
        return self._session.writer

    async def tables(self) -> list[str]:
        return await self._read(tables_with_rows)

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await self._in_thread(lambda session: session.read(work))

    async def _in_thread(self, work: Callable[[Session], T]) -> T:
        session = self._session
        if session is None:
            raise _not_open()
        return await session.readers.submit(work, session)

    # -- watching ----------------------------------------------------------------------------

    async def watch(self, query: Query) -> AsyncIterator[Result]:
        async with self._watching(query) as (watcher, lookout):
            while self._session is not None:
                watcher.begin()
                result = await self.query(query)
                watcher.saw(result)
                yield result
                waiting = asyncio.ensure_future(watcher.changed.wait())
                try:
                    await asyncio.wait((waiting, lookout), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    waiting.cancel()
                if lookout.done() and self._session is not None:
                    lookout.result()

    @asynccontextmanager
    async def _watching(self, query: Query) -> AsyncIterator[tuple[Watcher, asyncio.Task[None]]]:
        """Who is woken when rows may have changed, and the task that looks for others' changes."""
        seen = await self._in_thread(Session.data_version) if self._lookout is None else 0
        if self._lookout is None:
            self._lookout = asyncio.create_task(self._look_out(seen))
        lookout = self._lookout
        try:
            with self._watchers.added(query) as watcher:
                yield watcher, lookout
        finally:
            if not self._watchers:
                self._lookout = None
                lookout.cancel()
                await asyncio.wait((lookout,))

    async def _look_out(self, seen: int) -> None:
        """Wake all who watch when anybody else has written to the file."""
        by_others: int | None = None
        while self._session is not None:
            await asyncio.sleep(self._watch_interval)
            if self._session is None:
                return
            version = await self._in_thread(Session.data_version)
            if version != seen and self._session is not None:  # by others, or by the writer here
                seen = version
                before, by_others = by_others, await self._version_by_others()
                if by_others is None or by_others != before:
                    self._watchers.wake()

    async def _version_by_others(self) -> int | None:
        """A number that changes with commits of others; `None` when the writer is at something."""
        try:
            # Not `wait_for`, which may swallow that this task is cancelled (Python 3.11).
            async with asyncio.timeout(self._watch_interval):
                return await self._writer().look()
        except TimeoutError:
            return None


def _checked_path(path: str | os.PathLike[str]) -> Path:
    text = os.fspath(path)
    if not isinstance(text, str) or not text or text.startswith(":") or "\0" in text:
        raise _not_a_file()
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _not_a_file() from None
    return Path(text)


def _not_a_file() -> InvalidArgumentError:
    return InvalidArgumentError(
        f"a SQLite URL looks like {_URL_FORM}; for a store without a file use memory://",
        backend=SqliteBackend.name,
    )


def _seconds(value: Any, name: str) -> float:
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise InvalidArgumentError(f"{name} must be a number of seconds above 0", backend="sqlite")
    return seconds


def _not_open() -> UnavailableError:
    return UnavailableError("the store is closed", retryable=False)


@contextmanager
def _snapshot(connection: sqlite3.Connection, *, needed: bool) -> Iterator[None]:
    """Let what is read within be of one moment, where it takes several statements."""
    if needed:
        connection.execute("BEGIN")
    try:
        yield
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _get(connection: sqlite3.Connection, table: Table, keys: Sequence[Key]) -> list[Row | None]:
    layout = layout_of(table)
    moment = to_microseconds(now())
    try:
        with _snapshot(connection, needed=len(keys) > 1):
            found = [connection.execute(layout.get, (*key, moment)).fetchone() for key in keys]
    except sqlite3.OperationalError as exc:
        if not layout.is_missing(exc):
            raise
        return [None] * len(keys)
    rows = iter(layout.rows([row for row in found if row is not None]))
    return [None if row is None else next(rows) for row in found]


def _query(connection: sqlite3.Connection, query: Query) -> Result:
    layout = layout_of(query.table)
    moment = to_microseconds(now())
    total = None
    try:
        with _snapshot(connection, needed=query.count):
            found = connection.execute(*layout.page(query, moment)).fetchall()
            if query.count:
                total = connection.execute(*layout.count(query, moment)).fetchone()[0]
    except sqlite3.OperationalError as exc:
        if not layout.is_missing(exc):
            raise
        return Result(rows=[], total=0 if query.count else None)
    if query.bare:
        return Result(rows=layout.bare_rows(found), total=total)
    more = query.limit is not None and len(found) > query.limit
    rows = layout.rows(found[: query.limit] if more else found)
    cursor = query.position(rows[-1]) if more and rows else None
    return Result(rows=rows, total=total, cursor=cursor)
