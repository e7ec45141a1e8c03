"""Taking SQLite's locks beside busy neighbours."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable
from typing import NamedTuple

from mastra_storage.errors import UnavailableError


class Patience(NamedTuple):
    """How many seconds to wait for a lock, and whether anybody still wants it."""

    seconds: float
    wanted: Callable[[], bool] = lambda: True


def begin(connection: sqlite3.Connection, patience: Patience) -> None:
    """Take the write lock."""
    patiently(connection, "BEGIN IMMEDIATE", patience)


def patiently(connection: sqlite3.Connection, statement: str, patience: Patience) -> None:
    """Execute a statement that needs a lock, trying again as long as `patience` says.

    SQLite's own waiting sleeps up to 100 ms at a time and so starves beside a busy writer.
    """
    deadline = time.monotonic() + patience.seconds
    while True:
        try:
            connection.execute(statement)
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise
            if time.monotonic() > deadline or not patience.wanted():
                raise UnavailableError(
                    f"another process held the database's lock for {patience.seconds:g} seconds; "
                    "let it finish, or give a larger busy_timeout"
                ) from exc
            time.sleep(random.uniform(0.0005, 0.005))
        else:
            return
