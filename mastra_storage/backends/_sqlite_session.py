"""One opening of a SQLite file: its threads and connections, from `open` to `close`."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from mastra_storage.backends import _sqlite_forks as forks
from mastra_storage.backends._sqlite_errors import mapped
from mastra_storage.backends._sqlite_handover import Handover
from mastra_storage.backends._sqlite_locks import Patience
from mastra_storage.backends._sqlite_migrations import check, is_empty, migrate
from mastra_storage.backends._sqlite_threads import Threads
from mastra_storage.backends._sqlite_writer import Wake, Writer
from mastra_storage.errors import UnavailableError
from mastra_storage.schema import Table

T = TypeVar("T")

_READERS = 4


class Session:
    """The threads and connections of an open file. All methods block but `__init__` and `close`."""

    def __init__(self, path: Path, patience: float, wake: Wake) -> None:
        """`patience`: seconds to wait for locks; `wake`: called on the loop after a commit."""
        self._handover = Handover(asyncio.get_running_loop())
        self.readers = Threads(_READERS, "mastra-storage-reader", self._handover)
        self.writer: Writer | None = None
        self._path = path
        self._patience = patience
        self._wake = wake
        self._connections: list[sqlite3.Connection] = []
        self._idle: list[sqlite3.Connection] = []
        self._lookout: sqlite3.Connection | None = None
        self._looking = threading.Lock()
        self.process = os.getpid()
        self.file: tuple[int, int] | None = None
        self.prepared: set[Table] = set()

    def open(self) -> None:
        """Make the file if it is not there, and start the writer.

        Tables are made by the first write: reading a file that holds none leaves it as it is.
        """
        # Once: the current directory may change before a reader connects.
        try:
            self._path = self._path.absolute()
        except OSError as exc:
            raise UnavailableError(
                f"{self._path} counts from the current directory, which is gone; give an absolute "
                "path",
                retryable=False,
            ) from exc
        forks.drop_inherited(self._path)
        try:
            connection = self._connect("rwc", self._patience)
            try:
                if not check(connection) and not is_empty(connection):
                    migrate(connection, Patience(self._patience))
                self.writer = Writer(
                    connection, self._path, self._patience, self._handover, self._wake
                )
            except BaseException:
                connection.close()
                raise
        except (sqlite3.Error, UnicodeDecodeError) as exc:
            raise mapped(exc, self._path) from exc
        self.file = forks.identity(self._path)
        forks.remember(self)

    async def close(self) -> None:
        """Finish what was begun, and release everything."""
        if self.process != os.getpid():
            return  # that is for the process which has the threads
        [error] = await asyncio.gather(asyncio.to_thread(self._stop), return_exceptions=True)
        # Not reached by one that is cancelled: its threads may still call.
        self._handover.close()
        if error is not None:
            raise error

    def _stop(self) -> None:
        self.readers.stop()
        # Only now: an `open` that was cancelled may have made the writer in the meantime.
        if self.writer is not None:
            self.writer.stop()
        self.drop()
        forks.forget(self)

    def drop(self) -> None:
        """Close all connections."""
        for connection in self._connections:
            connection.close()

    def is_at_rest(self) -> bool:
        """Whether no thread is within SQLite, or was in it when this process was forked."""
        return self.readers.are_idle and self.writer is not None and not self.writer.at_work

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
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
        except (sqlite3.Error, OverflowError, UnicodeError) as exc:
            raise mapped(exc, self._path) from exc

    def data_version(self) -> int:
        """A number that changes with every commit of any process, this one included."""
        try:
            with self._looking:
                if self._lookout is None:
                    self._lookout = self._connect_reader()
                version: int = self._lookout.execute("PRAGMA data_version").fetchone()[0]
        except (sqlite3.Error, UnicodeDecodeError) as exc:
            raise mapped(exc, self._path) from exc
        return version

    def _connect_reader(self) -> sqlite3.Connection:
        connection = self._connect("rw", self._patience)
        connection.execute("PRAGMA query_only=1")
        return connection

    def _connect(self, mode: str, timeout: float) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"{self._path.as_uri()}?mode={mode}",
            uri=True,
            timeout=timeout,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
        self._connections.append(connection)
        return connection
