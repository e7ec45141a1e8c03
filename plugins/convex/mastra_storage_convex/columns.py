"""Columns of core tables: which there are, and what they hold of a record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec
from msgspec import Raw, Struct

from mastra_storage import Row, Table

_text = msgspec.json.Decoder(str).decode


class Column(Struct, frozen=True):
    """A column of a core table and the member of the record that it keeps.

    `default` is what it holds when the member is something that it cannot hold; `part` is the
    member's place in the key, if it has one there, and `field` its name as an indexed field.
    """

    name: str
    is_json: bool
    nullable: bool
    default: str | None
    starts: bytes = b""
    part: int | None = None
    field: str | None = None


def columns_of(table: Table) -> list[Column]:
    """The columns of a table, from the types of its record's members."""
    assert table.record is not None  # noqa: S101 - the tables of the contract have one
    found = []
    for member in msgspec.structs.fields(table.record):
        kind, nullable = _plain(member.type)
        is_json = kind in (Any, dict, list)
        empty = {dict: "{}", list: "[]"}.get(kind, "")
        found.append(
            Column(
                name=member.encode_name,
                is_json=is_json,
                nullable=nullable,
                default=None if nullable else empty,
                starts=(empty[:1] if is_json else '"').encode(),
                part=table.key.index(member.name) if member.name in table.key else None,
                field=member.name if member.name in table.fields else None,
            )
        )
    return found


def _plain(kind: Any) -> tuple[Any, bool]:
    """What a member's type is without what is said about it, and whether it may be null."""
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if get_origin(kind) in (Union, UnionType):
        [kind] = [part for part in get_args(kind) if part is not NoneType]
        return kind, True
    return get_origin(kind) or kind, kind is Any


def column_type(column: Column) -> Any:
    """What a column decodes to: text that is only handed on stays as it is in the JSON."""
    if column.is_json or column.part is not None or column.field is not None:
        return str | None if column.nullable else str
    return Raw


def strict_decoder(name: str, columns: Sequence[Column]) -> Callable[[bytes], Any]:
    """What decodes values that have just these members, with text where text belongs."""
    kinds = [
        (column.name, Raw if column.is_json else str | None if column.nullable else str)
        for column in columns
    ]
    record = msgspec.defstruct(f"{name}Record", kinds, gc=False, forbid_unknown_fields=True)
    return msgspec.json.Decoder(record).decode


def held(column: Column, raw: Raw, row: Row) -> tuple[Any, bool]:
    """What a column holds of a member, and whether that is all there is to the member."""
    json = bytes(raw)
    fits = json.startswith(column.starts) or (column.nullable and json == b"null")
    if column.part is None and column.field is None:
        if not fits:
            return column.default, False
        if not column.is_json:
            return raw, True
        return (None if column.nullable and json == b"null" else json.decode()), True
    # Keys and indexed fields are those of the row, whatever the record says.
    given = row.key[column.part] if column.part is not None else row.fields.get(str(column.field))
    said = None if not fits or json == b"null" else _text(json)
    if given or column.part is not None:
        return given, fits and said == given
    return (said, True) if fits and not said else (column.default, False)
