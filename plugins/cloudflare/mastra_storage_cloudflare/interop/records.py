"""Rows of the values that the TypeScript store wrote, and the values it would write for rows.

Members that we do not know go through both ways unchanged.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from hashlib import blake2b

import msgspec
from msgspec import structs

from mastra_storage import InvalidRecordError, Row, StorageError, Table
from mastra_storage_cloudflare.interop import conversations, runs
from mastra_storage_cloudflare.interop.values import (
    FormError,
    Members,
    compact,
    is_empty,
    iso_milliseconds,
    members_of,
    milliseconds,
    plain,
    time_text,
)


def row_of(table: Table, name: str, value: bytes) -> Row:
    """The row of a value stored under the key `name`; its `seq` is left to the caller.

    The values bear no version: a digest stands for it, so that live queries see changes.
    """
    try:
        members = _READ[table.name](members_of(value), name)
        row = Row(table, (), msgspec.json.encode(members), 0, 0, {}, 0)
        version = blake2b(value, digest_size=16).hexdigest()
        placed = table.row(table.record_of(row), seq=0, version=version)
    except (FormError, StorageError, KeyError, msgspec.MsgspecError, RecursionError) as exc:
        raise StorageError(
            f"the value under key {name!r} is not a record that the TypeScript store writes in "
            f"table {table.name!r}: it {_reason(exc)}; repair or delete it"
        ) from exc
    return structs.replace(placed, value=row.value)


def is_resource(value: bytes, name: str) -> bool:
    """Whether the value under a bare key is a resource: scores and tasks have bare keys too."""
    try:
        members = members_of(value)
    except FormError:
        return False
    return plain(members.get("id")) == name and (
        "workingMemory" in members or members.keys() <= {"id", "metadata", "createdAt", "updatedAt"}
    )


def value_of(row: Row, *, owner: str | None = None) -> bytes:
    """The value that the TypeScript store would write for a row.

    `owner` is the resource id of a message that has none of its own.
    """
    members = members_of(row.value)
    if owner is not None and is_empty(members.get("resourceId")):
        members["resourceId"] = owner
    written = _WRITE[row.table.name](members)
    if "value" in written:
        raise InvalidRecordError(
            f"the record {row.key!r} of table {row.table.name!r} has a member 'value', which the "
            "TypeScript store would take for an envelope; rename it",
            field="value",
        )
    return compact(written)


def touched(at: datetime, old: bytes | None, value: bytes | None) -> bytes | None:
    """A thread's value updated at a time, unless it was later; `old` where it has no value."""
    value = value or old
    if value is None:
        return None
    members = members_of(value)
    before = time_text(members.get("updatedAt"), "updatedAt")
    after = time_text(at.isoformat(), "updatedAt")
    if before is None or milliseconds(before) < milliseconds(after):
        members["updatedAt"] = iso_milliseconds(after)
    return compact(members)


def _reason(exc: Exception) -> str:
    if isinstance(exc, KeyError):
        return f"has no {exc.args[0]}"
    if isinstance(exc, RecursionError):
        return "is nested too deep"
    return str(exc) if isinstance(exc, FormError) else f"has other members ({exc.__cause__ or exc})"


_READ: dict[str, Callable[[Members, str], Members]] = {
    "threads": conversations.read_thread,
    "messages": conversations.read_message,
    "workflow_snapshot": runs.read_run,
    "traces": runs.read_trace,
    "evals": runs.read_eval,
    "resources": conversations.read_resource,
}
_WRITE: dict[str, Callable[[Members], Members]] = {
    "threads": conversations.write_thread,
    "messages": conversations.write_message,
    "workflow_snapshot": runs.write_run,
    "traces": runs.write_trace,
    "evals": runs.write_eval,
    "resources": conversations.write_resource,
}
