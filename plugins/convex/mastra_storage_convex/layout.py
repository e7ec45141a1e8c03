"""How rows lie in Convex: typed tables for the six of the contract, `documents` for all others.

A core table has one column for each member of its record, named as in the record's JSON, so
that it can be read in Convex's dashboard and by one's own functions. Free-form members are
kept as JSON text: JavaScript cannot keep numbers as they are given, nor Convex members named
`$ref`. `extra` is JSON text too, with what columns cannot hold; it is there only when needed.

The rows of all other tables are in `documents`, their values byte for byte. What a table is
listed by becomes a `group` of the document, for which there are indexes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from operator import attrgetter, itemgetter
from typing import Any, cast

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from mastra_storage import TABLES, InvalidRecordError, Key, Row, StorageError, Table
from mastra_storage_convex.columns import column_type, columns_of, held, strict_decoder
from mastra_storage_convex.wire import Place, place_of

CONVEX_NAMES = {name: name for name in TABLES} | {"workflow_snapshot": "workflowRuns"}
"""The names of the core tables in Convex, by their names here."""

SLOTS = 8
"""How many listings of an adapter's table have indexes."""

_WHOLE = "$value"
_NULL = Raw(b"null")

_members = msgspec.json.Decoder(dict[str, Raw]).decode
_valid = msgspec.json.Decoder(Raw).decode
_encode = msgspec.json.encode


class CoreLayout:
    """How a table with a record lies in a table of its own."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.module = CONVEX_NAMES[table.name]
        self.columns = columns_of(table)
        self.names = {column.field: column.name for column in self.columns if column.field}
        """The columns of indexed fields, by the names of the fields."""
        columns = [(column.name, column_type(column)) for column in self.columns]
        self.document: type[Struct] = msgspec.defstruct(
            f"{self.module}Document",
            [*columns, ("row", Place), ("extra", str | UnsetType, UNSET)],
            gc=False,
        )
        """What a document decodes to."""
        self._value = msgspec.defstruct(
            f"{self.module}Value", [(column.name, Any) for column in self.columns], gc=False
        )
        self._record = strict_decoder(self.module, self.columns)
        jsons_of = [column for column in self.columns if column.is_json]
        starts = [(number, column.starts.decode()) for number, column in enumerate(jsons_of)]
        self._containers = [(number, start) for number, start in starts if start]
        texts = [column.name for column in self.columns if not column.is_json]
        jsons = [column.name for column in self.columns if column.is_json]
        names = [column.name for column in self.columns]
        self._texts, self._jsons = attrgetter(*texts), _getter(jsons)
        self._arranged = itemgetter(*[[*texts, *jsons].index(name) for name in names])
        parts = {column.part: column.name for column in self.columns}
        self._key = _getter([parts[n] for n in range(len(table.key))])

    def key(self, key: Key) -> Key:
        """A key, or the first parts of one, as the functions take it."""
        return key

    def write(self, row: Row) -> Any:
        """The document that keeps a row, ready for JSON."""
        return self._regular(row) or self._odd(row)

    def _regular(self, row: Row) -> Struct | None:
        """The document of a row that the columns hold whole, as nearly all do."""
        try:
            record = self._record(row.value)
            jsons = [str(raw, "utf-8") for raw in self._jsons(record)]
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None
        fields = {
            name: text for name, column in self.names.items() if (text := getattr(record, column))
        }
        if (
            self._key(record) != row.key
            or fields != row.fields
            or not all(jsons[number][0] == start for number, start in self._containers)
        ):
            return None
        texts = [None if json == "null" else json for json in jsons]
        columns = self._arranged((*self._texts(record), *texts))
        return self.document(*columns, place_of(row))

    def _odd(self, row: Row) -> dict[str, Any]:
        """The document of any other row, with what the columns do not hold in `extra`."""
        members = _members_of(row)
        whole = _WHOLE in members or not all(column.name in members for column in self.columns)
        if whole:  # what is free-form is then in `extra` alone
            members = {c.name: members[c.name] for c in self.columns if c.name in members}
            members |= {c.name: _NULL for c in self.columns if c.is_json}
        document: dict[str, Any] = {}
        for column in self.columns:
            document[column.name], kept = held(column, members.get(column.name, _NULL), row)
            if kept:
                members.pop(column.name, None)
        document["row"] = place_of(row)
        if whole:
            members = {_WHOLE: Raw(row.value)}
        if members:
            document["extra"] = _encode(members).decode()
        return document

    def read(self, documents: Iterable[Any]) -> list[Row]:
        """The rows that documents keep."""
        table, key, fields, value = self.table, self._key, self.names.items(), self._value
        texts, jsons, arranged = self._texts, self._jsons, self._arranged
        return [
            Row(
                table,
                key(document),
                _encode(value(*arranged((*texts(document), *map(_raw, jsons(document))))))
                if document.extra is UNSET
                else self._joined(document),
                int(place.order),
                int(place.seq),
                {name: text for name, column in fields if (text := getattr(document, column))},
                int(place.updated),
                None if place.touched is UNSET else int(place.touched),
                place.version,
                None if place.expires_at is UNSET else int(place.expires_at),
            )
            for document in documents
            for place in (document.row,)
        ]

    def _joined(self, document: Any) -> bytes:
        """The value of a document of which the columns hold only a part."""
        try:
            extra = _members(document.extra)
            if _WHOLE in extra:
                return bytes(extra[_WHOLE])
            columns = (*self._texts(document), *map(_raw, self._jsons(document)))
            value = _encode(self._value(*self._arranged(columns)))
            return _encode(_members(value) | extra)
        except msgspec.MsgspecError as exc:
            raise StorageError(
                f"the document {self._key(document)!r} of table {self.table.name!r} holds what is "
                f"no JSON ({exc}); it was written by something else, or damaged"
            ) from exc


class _Document(Struct, gc=False):
    """A document of `documents` as it is read."""

    table: str
    key: Key
    value: str
    fields: dict[str, str]
    row: Place


class DocumentLayout:
    """How any other table lies in `documents`."""

    module = "documents"
    document: type[Struct] = _Document

    def __init__(self, table: Table) -> None:
        self.table = table
        lengths = [length for length in table.ordered if length > 0][:SLOTS]
        fields = table.fields[: SLOTS - len(lengths)]
        self.slots: dict[int | str, int] = {name: number for number, name in enumerate(fields)}
        """Which group of a document stands for a length of key prefixes, or an indexed field.

        Lengths count from the last group down, so that a table may gain of both. The whole table
        in order needs no group.
        """
        for number, length in enumerate(lengths, 1):
            self.slots[length] = SLOTS - number

    def key(self, key: Key) -> Key:
        """A key, or the first parts of one, as ops take it."""
        return (self.table.name, *key)

    def write(self, row: Row) -> dict[str, Any]:
        """The document that keeps a row, ready for JSON."""
        try:
            value = row.value.decode()
        except UnicodeDecodeError as exc:
            raise _not_text(row, "UTF-8") from exc
        document = {
            "table": self.table.name,
            "key": row.key,
            "value": value,
            "fields": row.fields,
            "row": place_of(row),
        }
        for slot, number in self.slots.items():
            if isinstance(slot, int):
                document[f"group{number}"] = row.key[:slot]
            elif text := row.fields.get(slot):
                document[f"group{number}"] = (text,)
        return document

    def read(self, documents: Iterable[Any]) -> list[Row]:
        """The rows that documents keep."""
        table = self.table
        return [
            Row(
                table,
                document.key,
                document.value.encode(),
                int(place.order),
                int(place.seq),
                document.fields,
                int(place.updated),
                None if place.touched is UNSET else int(place.touched),
                place.version,
                None if place.expires_at is UNSET else int(place.expires_at),
            )
            for document in documents
            for place in (document.row,)
        ]


Layout = CoreLayout | DocumentLayout


@lru_cache(maxsize=256)
def layout_of(table: Table) -> Layout:
    """How a table lies in Convex."""
    return CoreLayout(table) if TABLES.get(table.name) == table else DocumentLayout(table)


def read(table: Table, documents: Iterable[Any]) -> list[Row]:
    """The rows of `table` that documents keep, decoded as `layout_of(table).document`."""
    return layout_of(table).read(documents)


def _members_of(row: Row) -> dict[str, Raw]:
    """The members of a row's value; none when it is JSON but no object."""
    try:
        text = row.value.decode()
        try:
            return _members(text)
        except msgspec.ValidationError:
            _valid(text)
            return {}
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise _not_text(row, "JSON") from exc


def _raw(json: str | None) -> Raw:
    return _NULL if json is None else Raw(json)


def _getter(names: Sequence[str]) -> Callable[[Any], tuple[Any, ...]]:
    """What gives the attributes of these names, also when it is one."""
    if len(names) == 1:
        get = attrgetter(names[0])
        return lambda document: (get(document),)
    return cast(Callable[[Any], tuple[Any, ...]], attrgetter(*names))


def _not_text(row: Row, kind: str) -> InvalidRecordError:
    return InvalidRecordError(
        f"the value of row {row.key!r} of table {row.table.name!r} is no {kind}"
    )
