"""The one thread that writes to a SQLite file, with group commit.

Writes that wait together are committed together, each in a savepoint of its own, so that one
that fails does not take the others along.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from copy import copy
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import NamedTuple

from msgspec import UNSET

from mastra_storage.backend import Delete, Op, Put, Touch
from mastra_storage.backends._sqlite_errors import mapped
from mastra_storage.backends._sqlite_layout import (
    RECENT,
    Layout,
    columns_of,
    exists,
    layout_of,
    quoted,
)
from mastra_storage.backends._sqlite_locks import begin, patiently
from mastra_storage.backends._sqlite_migrations import check, migrate
from mastra_storage.errors import (
    ConflictError,
    NotFoundError,
    UnavailableError,
    UnsupportedError,
)
from mastra_storage.records import now, to_microseconds
from mastra_storage.schema import Key, Table

# How many ops are committed together at most, so that no caller waits for too many others.
_MAX_OPS = 20_000


class Fit(NamedTuple):
    """Bring an adapter's table, if it is there, to the definition that it has now."""

    table: Table


class Job(NamedTuple):
    """A write that waits, and whom to tell."""

    ops: Sequence[Op | Fit]
    done: asyncio.Future[None]
    loop: asyncio.AbstractEventLoop


Outcome = Exception | None


class Writer:
    """Commits writes in a thread of its own, on a connection that nobody else uses."""

    def __init__(
        self, connection: sqlite3.Connection, path: Path, patience: float, wake: Callable[[], None]
    ) -> None:
        """`patience`: seconds to wait for a lock; `wake`: called on the loop after a commit."""
        self._connection = connection
        self._path = path
        self._patience = patience
        self._wake = wake
        self._file = _identity(path)
        self._prepared = False
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="mastra-storage-writer", daemon=True)
        self._thread.start()

    def submit(self, ops: Sequence[Op | Fit]) -> asyncio.Future[None]:
        """Commit `ops` soon; the future is done when they are safe on disk."""
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        self._jobs.put(Job(ops, done, loop))
        return done

    def stop(self) -> None:
        """Finish what was submitted, and end the thread. Blocks."""
        self._jobs.put(None)
        self._thread.join()
        self._connection.close()

    def _run(self) -> None:
        stopping = False
        while not stopping:
            job = self._jobs.get()
            jobs: list[Job] = []
            size = 0
            while job is not None:
                jobs.append(job)
                size += len(job.ops)
                if size >= _MAX_OPS:
                    break
                try:
                    job = self._jobs.get_nowait()
                except Empty:
                    break
            stopping = job is None
            if jobs:
                self._settle(jobs, self._commit(jobs))

    def _settle(self, jobs: Sequence[Job], outcomes: Sequence[Outcome]) -> None:
        """Tell everybody who waits, waking each event loop once."""
        loops: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[None], Outcome]]] = {}
        for job, outcome in zip(jobs, outcomes, strict=True):
            loops.setdefault(job.loop, []).append((job.done, outcome))
        for loop, results in loops.items():
            # A loop that was closed meanwhile has nobody left to tell.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(_resolve, results)
                if None in outcomes:
                    loop.call_soon_threadsafe(self._wake)

    def _commit(self, jobs: Sequence[Job]) -> list[Outcome]:
        try:
            self._prepare()
            begin(self._connection, self._patience)
        except Exception as exc:  # noqa: BLE001  (all of them go to the callers who wait)
            error = mapped(exc, self._path)
            # Each caller gets one of its own: errors are changed on their way up.
            return [_copied(error) for _ in jobs]
        try:
            outcomes = [self._apply(job.ops, alone=len(jobs) == 1) for job in jobs]
            self._connection.execute("COMMIT")
            self._check_file()
        except Exception as exc:  # noqa: BLE001
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            if len(jobs) == 1:
                return [mapped(exc, self._path)]
            # One of them broke the whole transaction: find out which, each on its own.
            return [outcome for job in jobs for outcome in self._commit([job])]
        return outcomes

    def _prepare(self) -> None:
        """Before the first write: the way the file is written, and its tables."""
        if self._prepared:
            return
        if self._connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
            patiently(self._connection, "PRAGMA journal_mode=WAL", self._patience)
        self._connection.execute("PRAGMA synchronous=FULL")
        if not check(self._connection):
            migrate(self._connection, self._patience)
        # From here on locks are waited for as `patiently` does.
        self._connection.execute("PRAGMA busy_timeout=0")
        self._prepared = True

    def _check_file(self) -> None:
        """Refuse to call a write stored that went into a file nobody will find again."""
        if _identity(self._path) != self._file:
            raise UnavailableError(
                f"{self._path} was removed or replaced while it was open; close the store and open "
                "it again",
                retryable=False,
            )

    def _apply(self, ops: Sequence[Op | Fit], *, alone: bool) -> Outcome:
        """Carry out one write; if it is `alone`, its failure may end the transaction."""
        if alone:
            self._execute(ops)
            return None
        self._connection.execute("SAVEPOINT job")
        try:
            self._execute(ops)
        except (ConflictError, NotFoundError) as exc:
            self._connection.execute("ROLLBACK TO job")
            return exc
        finally:
            if self._connection.in_transaction:
                self._connection.execute("RELEASE job")
        return None

    def _execute(self, ops: Sequence[Op | Fit]) -> None:
        moment = to_microseconds(now())
        for table in {id(table): table for table in map(table_of, ops)}.values():
            layout = layout_of(table)
            if exists(self._connection, layout):
                self._connection.execute(layout.purge, (moment,))
        run: list[Put] = []
        for op in ops:
            if isinstance(op, Put) and op.if_version is None and _alike(op, run):
                run.append(op)
                continue
            self._put_all(run)
            if isinstance(op, Put) and op.if_version is None:
                run = [op]
            else:
                run = []
                self._execute_one(op)
        self._put_all(run)

    def _put_all(self, puts: Sequence[Put]) -> None:
        if not puts:
            return
        layout = layout_of(puts[0].row.table)
        if not exists(self._connection, layout):
            self._execute_all(layout.create())
        rows = [layout.parameters(put.row) for put in puts]
        self._connection.executemany(layout.put(puts[0].keep_place), rows)

    def _execute_one(self, op: Op | Fit) -> None:
        layout = layout_of(table_of(op))
        there = exists(self._connection, layout)
        if isinstance(op, Put):
            self._put_if(op, self._version(layout, op.row.key) if there else None)
        elif isinstance(op, Fit):
            if there:
                self._fit(layout)
        elif isinstance(op, Touch):
            touched = there and self._connection.execute(layout.touch, (op.at, *op.key)).rowcount
            if not touched:
                raise NotFoundError(f"there is no row {op.key!r} in {layout.table.name!r} to touch")
        elif isinstance(op, Delete):
            stored = self._version(layout, op.key) if there else None
            if op.if_version is not None and stored != op.if_version:
                raise ConflictError(f"the row {op.key!r} of {layout.table.name!r} has changed")
            if there:
                self._connection.execute(layout.delete, op.key)
        elif there and (op.prefix or layout.is_core):
            self._connection.execute(layout.delete_prefix(op.prefix), op.prefix)
        elif there:
            self._connection.execute(f"DROP TABLE {layout.name}")

    def _put_if(self, put: Put, stored: str | None) -> None:
        row = put.row
        if stored == row.version:
            return  # this very write, repeated
        if put.if_version is UNSET and stored is not None:
            raise ConflictError(f"there is already a row {row.key!r} in {row.table.name!r}")
        if isinstance(put.if_version, str) and stored != put.if_version:
            raise ConflictError(f"the row {row.key!r} of {row.table.name!r} has changed")
        self._put_all([put])

    def _fit(self, layout: Layout) -> None:
        """Add the fields that a table's definition has gained; its key cannot change."""
        there = columns_of(self._connection, layout)
        given = [name for name in there if not name.startswith("_")]
        if given[: len(layout.table.key)] != list(layout.table.key):
            raise UnsupportedError(
                f"the table {layout.table.name!r} of this file has another key than the adapter "
                "asks for; give the new table a new name"
            )
        added = [f"{quoted(field)} TEXT" for field in layout.fields if field not in there]
        if layout.table.recent and "_recent" not in there:
            added.append(RECENT)
        self._execute_all(f"ALTER TABLE {layout.name} ADD COLUMN {column}" for column in added)
        self._execute_all(layout.create_indexes())

    def _execute_all(self, statements: Iterable[str]) -> None:
        for statement in statements:
            self._connection.execute(statement)

    def _version(self, layout: Layout, key: Key) -> str | None:
        found = self._connection.execute(layout.version, key).fetchone()
        return None if found is None else found[0]


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells a file from another of its name."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def table_of(op: Op | Fit) -> Table:
    """The table that an op is about."""
    return op.row.table if isinstance(op, Put) else op.table


def _copied(error: Exception) -> Exception:
    copied = copy(error)
    copied.__cause__ = error.__cause__
    return copied


def _alike(put: Put, run: Sequence[Put]) -> bool:
    """Whether `put` can be stored by the same statement as those of `run`."""
    return not run or (put.row.table is run[0].row.table and put.keep_place == run[0].keep_place)


def _resolve(results: Sequence[tuple[asyncio.Future[None], Outcome]]) -> None:
    for done, outcome in results:
        if done.done():
            continue  # its caller was cancelled
        if outcome is None:
            done.set_result(None)
        else:
            done.set_exception(outcome)
