"""What keys, orders and indexes each kind of record. The only place that knows.

A `Table` is data: the six of the contract are defined at the end of this module, adapters
define their own. `Table.row` turns a checked record into the `Row` that backends keep,
`Table.record_of` turns a row back.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Any, Final, TypeAlias, TypeVar, cast

import msgspec
from msgspec import Struct

from mastra_storage.errors import InvalidArgumentError, InvalidRecordError, StorageError
from mastra_storage.records import (
    Eval,
    Message,
    Record,
    Resource,
    Thread,
    Trace,
    WorkflowRun,
    from_microseconds,
    now,
    to_microseconds,
)
from mastra_storage.validation import check_mapping, check_record, check_records, encode_all

__all__ = [
    "EVALS",
    "MESSAGES",
    "RESOURCES",
    "TABLES",
    "THREADS",
    "TRACES",
    "WORKFLOW_SNAPSHOT",
    "Key",
    "Row",
    "Table",
]

Key: TypeAlias = tuple[str, ...]

T = TypeVar("T")

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")

# What is wrong with a value that holds no record.
_NOT_DECODED = (msgspec.MsgspecError, UnicodeDecodeError, OverflowError, RecursionError)

# The one member of a value that is kept in parts; see storage/_parts.py.
PARTS_MEMBER: Final = "$parts"


class Table(Struct, frozen=True, kw_only=True, cache_hash=True):
    """A kind of row: how it is keyed, ordered and indexed.

    - `name`: lower-case letters, digits and `_`, at most 63 characters; `key` and `fields`
      likewise.
    - `key`: the names of the parts of a row's key, outermost first. The order of parts
      matters: a query can ask for all rows whose key starts with given parts.
    - `fields`: the names of the indexed fields, which queries can filter by.
    - `ordered`: for which lengths of key prefix rows are listed by time: `(1,)` says "the rows
      of one first part, in order", `(0,)` the whole table. Backends keep an index for each.
    - `listings`: which listings grow with the table, as prefix lengths and field names. Backends
      that cannot search keep an ordered index for these, and read the whole table for others.
    - `recent`: whether rows are also listed by the time of their last update.
    - `record`: the Struct the value decodes to; `None` gives plain mappings.
    - `large`: values of any size. Those past what a backend holds are kept in parts, rows of the
      table `{name}_parts`; read such a table by `get_rows`, `find_rows` and `load`.

    A later definition of a table that has rows may have more `fields`, behind those it had. Rows
    are in the listings that were defined when they were stored, so that whatever else changes
    about `fields`, `ordered` or `listings` asks for all of them to be put again.

    An adapter for an agent runtime defines its own, and registers it:

        CHECKPOINTS = Table(name="my_checkpoints", key=("thread_id", "id"), ordered=(1,))
        storage.register(CHECKPOINTS)
    """

    name: str
    key: tuple[str, ...]
    fields: tuple[str, ...] = ()
    ordered: tuple[int, ...] = (0,)
    listings: tuple[int | str, ...] = ()
    recent: bool = False
    record: type[Record] | None = None
    large: bool = False

    def __post_init__(self) -> None:
        names = [self.name, *self.key, *self.fields]
        if not self.key or not all(_NAME.fullmatch(name) for name in names):
            raise InvalidArgumentError(
                f"table {self.name!r}: a table needs a key, and its name, key parts and fields "
                f"must match {_NAME.pattern}"
            )
        if "table" in self.key:
            raise InvalidArgumentError(f"table {self.name!r}: no key part can be called 'table'")
        if len(set(self.key)) < len(self.key) or len(set(self.fields)) < len(self.fields):
            raise InvalidArgumentError(f"table {self.name!r}: a key part or field is named twice")
        if not {*self.listings} <= {*self.ordered, *self.fields}:
            raise InvalidArgumentError(
                f"table {self.name!r}: `listings` takes what is in `ordered` and `fields`"
            )
        if not all(0 <= length < len(self.key) for length in self.ordered):
            raise InvalidArgumentError(
                f"table {self.name!r}: `ordered` takes prefix lengths, 0 to {len(self.key) - 1}"
            )
        if self.large:
            _parts(self)  # raises where its name would be too long

    @property
    def parts(self) -> Table:
        """The table of the parts of a `large` table's values."""
        return _parts(self)

    def check(self, record: T) -> T:
        """The record as it can be stored, its times in UTC.

        Raises `InvalidRecordError` naming the field; the record given is not changed.
        """
        if self.record is None:
            if not isinstance(record, Mapping):
                raise self._not_kept("mappings", record)
            if self.large and PARTS_MEMBER in record:
                raise InvalidRecordError(
                    f"{PARTS_MEMBER}: no record of a large table can have this member",
                    field=PARTS_MEMBER,
                )
            return cast(T, check_mapping(record, key=self.key, fields=self.fields))
        if not isinstance(record, self.record):
            raise self._not_kept(f"{self.record.__name__} objects", record)
        return cast(T, check_record(record))

    def check_all(self, records: Sequence[T]) -> list[T]:
        """Several records, each as `check` gives it."""
        if self.record is None or {*map(type, records)} != {self.record}:
            return [self.check(record) for record in records]
        return cast(list[T], check_records(cast(Any, records)))

    def _not_kept(self, kinds: str, record: Any) -> InvalidRecordError:
        given = type(record).__name__
        return InvalidRecordError(f"table {self.name!r} takes {kinds}, not {given}")

    def row(self, record: Any, *, seq: int, version: str) -> Row:
        """The row that keeps a checked record."""
        [row] = self.rows([record], [seq], version=version)
        return row

    def rows(self, records: Sequence[Any], seqs: Sequence[int], *, version: str) -> list[Row]:
        """The rows that keep checked records."""
        member = getattr if self.record is not None else Mapping.get
        parts = [[member(record, part) for record in records] for part in self.key]
        fields: list[dict[str, str]] = [{} for _ in records]
        for name in self.fields:
            for some, record in zip(fields, records, strict=True):
                if value := member(record, name):
                    some[name] = value
        if self.record is None:
            orders = updated = [to_microseconds(now())] * len(records)
        else:
            orders = updated = [to_microseconds(record.created_at) for record in records]
            if hasattr(self.record, "updated_at"):
                updated = [to_microseconds(record.updated_at) for record in records]
        keys = zip(*parts, strict=True)
        values = encode_all(records)
        return [
            Row(self, key, value, order, seq, some, changed, None, version)
            for key, value, order, seq, some, changed in zip(
                keys, values, orders, seqs, fields, updated, strict=True
            )
        ]

    def record_of(self, row: Row) -> Any:
        """The record (or mapping) that `row` keeps, its `updated_at` as touched since."""
        try:
            [record] = self._decoded([row])
        except _NOT_DECODED as exc:
            raise StorageError(
                f"the row {row.key!r} of table {self.name!r} does not hold a record of that table "
                f"({exc}); it was written by something else, or damaged"
            ) from exc
        return record

    def records_of(self, rows: Sequence[Row]) -> list[Any]:
        """The records of several rows."""
        with suppress(*_NOT_DECODED):  # the row will be named below
            return self._decoded(rows)
        return [self.record_of(row) for row in rows]

    def _decoded(self, rows: Sequence[Row]) -> list[Any]:
        decode = _decoder(self.record)
        records = [decode(row.value) for row in rows]
        if self.recent and self.record:
            for record, row in zip(records, rows, strict=True):
                if row.touched is not None and row.touched > row.updated:
                    record.updated_at = max(record.updated_at, from_microseconds(row.touched))
        return records


class Row(Struct, frozen=True, gc=False):
    """What a backend keeps: a value it never looks into, and what it needs to find it.

    - `value`: the record as JSON, in UTF-8 bytes.
    - `order`, `seq`: the place of the row among others; microseconds since 1970, and a 63-bit
      number given at the first save. The full order is `(order, seq, key)`.
    - `fields`: the indexed fields; one that is not there counts as the empty string.
    - `updated`: when the record itself says it was last changed, in microseconds.
    - `touched`: the latest `Touch`, in microseconds; `None` when there was none.
    - `version`: a token of the write that made this row, unique to that write.
    - `expires_at`: microseconds since 1970 from which on the row is gone; `None` keeps it.
    """

    table: Table
    key: Key
    value: bytes
    order: int
    seq: int
    fields: Mapping[str, str]
    updated: int = 0
    touched: int | None = None
    version: str = ""
    expires_at: int | None = None

    @property
    def recent(self) -> int:
        """When the row last changed: the later of `updated` and `touched`."""
        return self.updated if self.touched is None else max(self.updated, self.touched)

    def __repr__(self) -> str:
        return (
            f"Row({self.table.name}, {self.key!r}, order={self.order}, seq={self.seq}, "
            f"version={self.version!r}, {len(self.value)} bytes)"
        )


@cache
def _parts(table: Table) -> Table:
    # One more key part, not two: some backends have little room in a key.
    return Table(name=f"{table.name}_parts", key=(*table.key, "value_part"), ordered=())


@cache
def _decoder(record: type[Record] | None) -> Any:
    return msgspec.json.Decoder(cast(Any, record or dict[str, Any])).decode


THREADS = Table(
    name="threads",
    key=("id",),
    fields=("resource_id",),
    listings=("resource_id",),
    recent=True,
    record=Thread,
)
MESSAGES = Table(
    name="messages",
    key=("thread_id", "id"),
    fields=("resource_id",),
    ordered=(1,),
    listings=(1,),
    record=Message,
)
WORKFLOW_SNAPSHOT = Table(
    name="workflow_snapshot",
    key=("workflow_name", "run_id"),
    fields=("run_id", "resource_id", "status"),
    ordered=(0, 1),
    record=WorkflowRun,
)
TRACES = Table(
    name="traces",
    key=("id",),
    fields=("trace_id", "name", "scope", "thread_id", "run_id"),
    listings=(0,),
    record=Trace,
)
EVALS = Table(
    name="evals",
    key=("id",),
    fields=("agent_name", "type", "thread_id", "run_id"),
    listings=(0,),
    record=Eval,
)
RESOURCES = Table(name="resources", key=("id",), record=Resource)

TABLES: Mapping[str, Table] = {
    table.name: table for table in (THREADS, MESSAGES, WORKFLOW_SNAPSHOT, TRACES, EVALS, RESOURCES)
}
