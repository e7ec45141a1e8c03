"""Changing some members of a stored record, leaving all others byte for byte as they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw, structs

from mastra_storage.errors import StorageError
from mastra_storage.records import Record, from_microseconds
from mastra_storage.schema import Row, Table
from mastra_storage.validation import encode

__all__ = ["merge", "updated"]

_decode = msgspec.json.Decoder(dict[str, Raw]).decode


def merge(table: Table, value: bytes, changes: Mapping[str, Any]) -> bytes:
    """The stored JSON `value` with checked `changes`, by their Python names.

    `metadata` merges shallowly. Members that this version does not know stay.
    """
    kind = table.record or Record
    names = dict(zip(kind.__struct_fields__, kind.__struct_encode_fields__, strict=True))
    try:
        members: dict[str, Any] = _decode(value)
        for name, changed in changes.items():
            if name == "metadata":
                changed = _decode(members.get(name, b"{}")) | changed
            members[names[name]] = changed
    except msgspec.MsgspecError as exc:
        raise StorageError(
            f"a row of table {table.name!r} does not hold such a record ({exc}); "
            "it was written by something else, or damaged"
        ) from exc
    return encode(members)


def updated(row: Row, changes: Mapping[str, Any], *, at: int, version: str) -> Row:
    """The row with checked `changes` of its record, and `updated_at` moved forward to `at`.

    `at` is in microseconds; a clock that is behind does not move `updated_at` back.
    """
    at = max(at, row.recent)
    indexed = {name: changes[name] for name in row.table.fields if name in changes}
    return structs.replace(
        row,
        value=merge(row.table, row.value, {**changes, "updated_at": from_microseconds(at)}),
        fields={**row.fields, **indexed},
        updated=at,
        version=version,
    )
