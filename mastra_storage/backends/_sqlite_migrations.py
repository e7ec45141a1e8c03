"""The version of the tables in a SQLite file, and how an older file becomes a newer one."""

# ruff: noqa: S608  (the only name put into SQL is the one below)

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from mastra_storage.backends._sqlite_layout import columns_of, layout_of
from mastra_storage.backends._sqlite_locks import Patience, begin
from mastra_storage.errors import UnavailableError, UnsupportedError
from mastra_storage.schema import TABLES

# No table of rows has a name like it.
_VERSION = "_mastra_version"


def _create(connection: sqlite3.Connection) -> None:
    _refuse_foreign(connection)
    connection.execute(f"CREATE TABLE {_VERSION} (version INTEGER NOT NULL)")
    connection.execute(f"INSERT INTO {_VERSION} VALUES (0)")
    for table in TABLES.values():
        for statement in layout_of(table).create():
            connection.execute(statement)


# The n-th brings a file from version n to n + 1. Never changed once released, only added to.
MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (_create,)


def check(connection: sqlite3.Connection) -> bool:
    """Whether the file is ready for reading and writing; writes nothing.

    Raises `UnsupportedError` for a file that is newer, or that is somebody else's.
    """
    if connection.in_transaction:
        return _check(connection)
    # All of it from one snapshot: another process may be making the tables right now.
    connection.execute("BEGIN")
    try:
        return _check(connection)
    finally:
        connection.execute("ROLLBACK")


def _check(connection: sqlite3.Connection) -> bool:
    version = _version(connection)
    if version > len(MIGRATIONS):
        raise UnsupportedError(
            f"the file has schema version {version}, this mastra-storage knows up to "
            f"{len(MIGRATIONS)}; upgrade mastra-storage"
        )
    if version == 0:
        _refuse_foreign(connection)
    return version == len(MIGRATIONS)


def migrate(connection: sqlite3.Connection, patience: Patience) -> None:
    """Bring the file to the newest version, in one transaction."""
    begin(connection, patience)
    try:
        check(connection)
        for step in MIGRATIONS[_version(connection) :]:  # another process may have been quicker
            step(connection)
        connection.execute(f"UPDATE {_VERSION} SET version = ?", (len(MIGRATIONS),))
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def is_empty(connection: sqlite3.Connection) -> bool:
    """Whether no tables of ours are in the file yet."""
    return _version(connection) == 0


def _refuse_foreign(connection: sqlite3.Connection) -> None:
    for table in TABLES.values():
        if columns_of(connection, layout_of(table)):
            raise UnsupportedError(
                f"the file has a table {layout_of(table).name!r} that mastra-storage did not make; "
                "a TypeScript store of Mastra makes such; choose another file"
            )


def _version(connection: sqlite3.Connection) -> int:
    found = connection.execute("SELECT 1 FROM sqlite_schema WHERE name = ?", (_VERSION,))
    if found.fetchone() is None:
        return 0
    row = connection.execute(f"SELECT version FROM {_VERSION}").fetchone()
    if row is None or not isinstance(row[0], int):
        raise UnavailableError(
            f"the table {_VERSION!r} of the file is damaged; restore the file from a backup",
            retryable=False,
        )
    version: int = row[0]
    return version
