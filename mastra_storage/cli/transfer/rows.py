"""What import, export and copy share: which tables there are, and when two rows are the same."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import msgspec
from msgspec import structs

from mastra_storage.backend import Backend, Query
from mastra_storage.errors import PluginNotFoundError, StorageError, TooLargeError
from mastra_storage.plugins import broken_tables, load_tables
from mastra_storage.schema import Row, Table
from mastra_storage.storage import Storage
from mastra_storage.storage._lifecycle import name_of
from mastra_storage.testing.isolation import is_of_check

__all__ = [
    "Stamps",
    "batches_of",
    "canonical",
    "check_size",
    "known_tables",
    "naming",
    "same_place",
    "same_row",
    "stated",
]

_SEQ_BITS = 10
_canonical_encode = msgspec.json.Encoder(order="sorted").encode


async def known_tables(storage: Storage) -> dict[str, Table]:
    """All tables by name, those of adapters too; not those that a killed `check` has left.

    Raises `PluginNotFoundError` when the store holds rows of a table that nobody here knows:
    moving the others alone would lose them without a word. `UnsupportedError` when the backend
    cannot tell.
    """
    tables = load_tables()
    listing = getattr(storage.backend, "tables", partial(Backend.tables, storage.backend))
    unknown = sorted(name for name in set(await listing()) - set(tables) if not is_of_check(name))
    if unknown:
        broken = "".join(f"; broken here: {error}" for error in broken_tables())
        raise PluginNotFoundError(
            f"the store holds rows of tables that are not known here: {', '.join(unknown)}; "
            "install the adapter that registered them (the distribution that names them in the "
            f"entry-point group mastra_storage.tables), and repeat the command{broken}",
            backend=name_of(storage.backend),
        )
    return tables


async def batches_of(storage: Storage, query: Query) -> AsyncIterator[list[Row]]:
    """The rows of a query, in batches of at most its limit, to the very end."""
    while True:
        result = await storage.backend.query(query)
        if result.rows:
            yield result.rows
        if result.cursor is None:
            return
        query = structs.replace(query, after=result.cursor)


def canonical(value: bytes) -> bytes:
    """A JSON value, with members in one order and without space; what is not JSON stays as is.

    Backends may keep a value in another form than its bytes, as long as it is the same JSON.
    """
    try:
        return _canonical_encode(msgspec.json.decode(value))
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return value


def same_row(one: Row, other: Row) -> bool:
    """Whether two rows of one key are the same but for `seq`, `touched` and `version`."""
    return (
        one.order == other.order
        and one.updated == other.updated
        and one.expires_at == other.expires_at
        and stated(one.fields) == stated(other.fields)
        and (one.value == other.value or canonical(one.value) == canonical(other.value))
    )


def same_place(old: Row | None, new: Row) -> bool:
    """Whether `new`, put on `old`, would change nothing: not what it holds, not its place."""
    if old is None or old.seq != new.seq or not same_row(old, new):
        return False
    return new.touched is None or (old.touched is not None and old.touched >= new.touched)


def stated(fields: Mapping[str, str]) -> dict[str, str]:
    """Indexed fields without the empty ones, which count as not there."""
    return {name: value for name, value in fields.items() if value}


def check_size(storage: Storage, row: Row) -> None:
    """Raise `TooLargeError` for a row that the backend cannot hold."""
    limit = storage.capabilities.max_record_bytes
    if limit is not None and len(row.value) > limit:
        raise TooLargeError(
            f"the record {row.key!r} of table {row.table.name!r} is {len(row.value):,} bytes of "
            f"JSON, more than the {limit:,} that this backend holds",
            backend=name_of(storage.backend),
        )


@contextmanager
def naming(storage: Storage, operation: str) -> Iterator[None]:
    """Give errors of the backend the names of it and of the operation."""
    try:
        yield
    except StorageError as exc:
        exc.backend = exc.backend or name_of(storage.backend)
        exc.operation = exc.operation or operation
        raise


class Stamps:
    """Versions and places for rows that are written now."""

    def __init__(self) -> None:
        self._token = secrets.token_hex(6)
        self._writes = 0
        self._seq = 0

    def version(self) -> str:
        """A token for one write, of which there is never a second."""
        self._writes += 1
        return f"{self._token}{self._writes:x}"

    def seq(self, floor: int = 0) -> int:
        """A place behind all given so far, and behind `floor`."""
        self._seq = max(time.time_ns() // 1000 << _SEQ_BITS, self._seq + 1, floor + 1)
        return self._seq
