"""The version of the tables in a SQLite file, and how an older file becomes a newer one."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from mastra_storage.backends._sqlite_layout import layout_of
from mastra_storage.backends._sqlite_writer import begin
from mastra_storage.errors import UnsupportedError
from mastra_storage.schema import TABLES


def _create(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE mastra_schema (version INTEGER NOT NULL)")
    connection.execute("INSERT INTO mastra_schema VALUES (0)")
    for table in TABLES.values():
        for statement in layout_of(table).create():
            connection.execute(statement)


# The n-th brings a file from version n to n + 1. Never changed once released, only added to.
MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (_create,)


def migrate(connection: sqlite3.Connection, patience: float) -> None:
    """Bring the file to the newest version, at once; `UnsupportedError` when it is newer still."""
    if _version(connection) == len(MIGRATIONS):
        return
    begin(connection, patience)
    try:
        version = _version(connection)  # another process may have been quicker
        if version > len(MIGRATIONS):
            raise UnsupportedError(
                f"the file has schema version {version}, this mastra-storage knows up to "
                f"{len(MIGRATIONS)}; upgrade mastra-storage"
            )
        for step in MIGRATIONS[version:]:
            step(connection)
        connection.execute("UPDATE mastra_schema SET version = ?", (len(MIGRATIONS),))
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _version(connection: sqlite3.Connection) -> int:
    found = connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'mastra_schema'")
    if found.fetchone() is None:
        return 0
    version: int = connection.execute("SELECT version FROM mastra_schema").fetchone()[0]
    return version
