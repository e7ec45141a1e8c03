"""What SQLite's errors mean to a caller."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from mastra_storage.errors import (
    InvalidArgumentError,
    StorageError,
    TooLargeError,
    UnavailableError,
)

_UNAVAILABLE = {
    sqlite3.SQLITE_BUSY: "the database is locked by another process; try again",
    sqlite3.SQLITE_LOCKED: "the database is locked; try again",
    sqlite3.SQLITE_FULL: "the disk or quota is full; free some space and try again",
    sqlite3.SQLITE_IOERR: "the disk could not be read or written; check it and try again",
    sqlite3.SQLITE_NOMEM: "memory is used up; try again with less at once",
    sqlite3.SQLITE_READONLY: "the file is read-only; make it and its directory writable",
    sqlite3.SQLITE_PERM: "access to the file is denied; check its permissions",
    sqlite3.SQLITE_AUTH: "access to the file is denied; check its permissions",
    sqlite3.SQLITE_CANTOPEN: (
        "the file cannot be opened; check that its directory is there and both are writable"
    ),
    sqlite3.SQLITE_NOTADB: "the file is not a SQLite database, or its header is damaged; "
    "restore it from a backup, or choose another file",
    sqlite3.SQLITE_CORRUPT: "the database is damaged; restore it from a backup, "
    "or save what is left with the `.recover` command of the sqlite3 tool",
}
_PASSING = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_NOMEM,
}


def mapped(exc: Exception, path: Path) -> Exception:
    """The error a caller gets for `exc`, with it as the cause; what is no error of SQLite stays."""
    if isinstance(exc, UnicodeEncodeError):
        return InvalidArgumentError("a key or field holds text that is not valid Unicode")
    if not isinstance(exc, (sqlite3.Error, OverflowError, UnicodeDecodeError)):
        return exc
    # Extended codes carry the primary one in their lowest byte.
    code = getattr(exc, "sqlite_errorcode", 0) & 0xFF
    if isinstance(exc, UnicodeDecodeError):
        code = sqlite3.SQLITE_CORRUPT  # names in the file that are no text any more
    error: StorageError
    if code in _UNAVAILABLE:
        error = UnavailableError(
            f"{path}: {_UNAVAILABLE[code]} ({exc})", retryable=code in _PASSING
        )
    elif code == sqlite3.SQLITE_TOOBIG or isinstance(exc, (OverflowError, sqlite3.DataError)):
        error = TooLargeError(f"a value is larger than SQLite can hold ({exc})")
    else:
        error = StorageError(f"{path}: SQLite refused: {exc}")
    error.__cause__ = exc
    return error
