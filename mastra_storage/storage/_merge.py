"""Changing some members of a stored record, leaving all others byte for byte as they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw

from mastra_storage.errors import StorageError
from mastra_storage.records import Record
from mastra_storage.schema import Table
from mastra_storage.validation import encode

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
