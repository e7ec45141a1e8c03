"""Taking SQLite's locks beside busy neighbours."""

from __future__ import annotations

import random
import sqlite3
import time

from mastra_storage.errors import UnavailableError


def begin(connection: sqlite3.Connection, patience: float) -> None:
    """Take the write lock."""
    patiently(connection, "BEGIN IMMEDIATE", patience)


def patiently(connection: sqlite3.Connection, statement: str, patience: float) -> None:
    """Execute a statement that needs a lock, trying again for up to `patience` seconds.

    SQLite's own waiting sleeps up to 100 ms at a time and so starves beside a busy writer.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            connection.execute(statement)
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise
            if time.monotonic() > deadline:
                raise UnavailableError(
                    f"another process held the database's lock for {patience:g} seconds; "
                    "let it finish, or give a larger busy_timeout"
                ) from exc
            time.sleep(random.uniform(0.0005, 0.005))
        else:
            return
