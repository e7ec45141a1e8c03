"""The lines of an export. docs/cli.md describes them.

A message stands in its line so that readers of the chat format understand it: the members of
its content at top level, where they cannot be mistaken for members of the record. `decoding`
reverses that exactly, for any content.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw

from mastra_storage.cli.transfer.decoding import (
    MESSAGE_MEMBERS,
    MESSAGE_NAMES,
    UNKNOWN,
    chat_type,
    check_row,
)
from mastra_storage.cli.transfer.rows import stated
from mastra_storage.errors import InvalidRecordError, StorageError
from mastra_storage.records import from_microseconds
from mastra_storage.schema import MESSAGES, THREADS, Row, Table
from mastra_storage.validation import MAX_ID_BYTES

__all__ = ["BEGINNING", "BEGINNING_BYTES", "message_object", "row_line", "thread_object"]

# How a line begins, of a thread or of another row, and how many bytes of it say so at most. A chat
# that was made by hand may have a `thread_id`, too.
BEGINNING = re.compile(
    rb'\{"thread_id":"(?:[^"\\]|\\.)*","thread":\{|\{"table":"[a-z0-9_]+","row":\{'
)
BEGINNING_BYTES = 6 * MAX_ID_BYTES + 100  # of an id that is escaped

_RESERVED = (MESSAGE_NAMES - {"content"}) | {UNKNOWN}

_members = msgspec.json.Decoder(dict[str, Raw]).decode
_encode = msgspec.json.Encoder().encode


def thread_object(row: Row) -> bytes | None:
    """A thread as an export shows it; `None` for a row that only a row line can hold."""
    members = _regular(THREADS, row)
    if members is None:
        return None
    members["updatedAt"] = Raw(_encode(from_microseconds(row.recent)))
    return one_line(_encode(members))


def message_object(row: Row) -> bytes | None:
    """A message as an export shows it; `None` for a row that only a row line can hold."""
    members = _regular(MESSAGES, row)
    if members is None or row.touched is not None:
        return None
    shown: dict[str, Any] = {"id": members["id"], "role": members["role"]}
    content = _flattened(members["content"])
    shown |= content
    if msgspec.json.decode(members["type"]) != chat_type(
        msgspec.json.decode(members["role"]), _has_calls(content)
    ):
        shown["type"] = members["type"]
    if bytes(members["resourceId"]) != b"null":
        shown["resourceId"] = members["resourceId"]
    if bytes(members["metadata"]) != b"{}":
        shown["metadata"] = members["metadata"]
    shown["createdAt"] = members["createdAt"]
    unknown = {name: value for name, value in members.items() if name not in MESSAGE_MEMBERS}
    if unknown:
        shown[UNKNOWN] = unknown
    return one_line(_encode(shown))


def row_line(row: Row) -> bytes:
    """A line that holds a row of any table, exactly.

    Raises `StorageError` for a damaged row, which no import would take.
    """
    members = {
        "key": row.key,
        "value": Raw(row.value),
        "order": row.order,
        "seq": row.seq,
        "fields": dict(row.fields),
        "updated": row.updated,
        "touched": row.touched,
        "expiresAt": row.expires_at,
    }
    try:
        check_row(row)
    except (StorageError, msgspec.MsgspecError, UnicodeError, RecursionError) as exc:
        reason = exc.message if isinstance(exc, StorageError) else f"does not hold JSON: {exc}"
        raise StorageError(
            f"the row {row.key!r} of table {row.table.name!r} is damaged ({reason}), and no import "
            "would take it; delete it to export the others"
        ) from exc
    return one_line(_encode({"table": row.table.name, "row": members})) + b"\n"


def one_line(text: bytes) -> bytes:
    """JSON without line breaks, which only a value of another writer can have."""
    return msgspec.json.format(text, indent=-1) if b"\n" in text or b"\r" in text else text


def _regular(table: Table, row: Row) -> dict[str, Raw] | None:
    """The members of a record from which the very same row can be made again, or `None`."""
    try:
        record = msgspec.json.decode(row.value, type=table.record)
        made = table.row(table.check(record), seq=row.seq, version=row.version)
        members = _members(made.value) | _members(row.value)
    except (msgspec.MsgspecError, UnicodeError, InvalidRecordError):
        return None
    same = (
        made.key == row.key
        and made.order == row.order
        and made.updated == row.updated
        and stated(made.fields) == stated(row.fields)
        and row.expires_at is None
    )
    return members if same else None


def _flattened(content: Raw) -> dict[str, Raw]:
    """The members that stand for a content in a message object."""
    if memoryview(content)[0] == ord("{"):
        members = _members(content)
        if members and members.keys() != {"content"} and not members.keys() & _RESERVED:
            return members
    return {"content": content}


def _has_calls(content: Mapping[str, Raw]) -> bool:
    return bool("tool_calls" in content and msgspec.json.decode(content["tool_calls"]))
