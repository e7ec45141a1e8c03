"""What an import makes of a line: a thread, its messages, or a row. docs/cli.md has the forms."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from hashlib import blake2b
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

from mastra_storage.errors import InvalidRecordError
from mastra_storage.records import Message, Thread, to_microseconds
from mastra_storage.schema import MESSAGES, THREADS, Row, Table
from mastra_storage.validation import MAX_ID_BYTES, check_id, check_mapping, encode, record_from

__all__ = [
    "MESSAGE_MEMBERS",
    "MESSAGE_NAMES",
    "UNKNOWN",
    "Conversation",
    "Draft",
    "chat_type",
    "check_row",
    "conversation_of",
    "draft_of",
    "row_of",
    "with_unknown",
]

UNKNOWN = "$record"  # holds members of a stored message that this version does not know
MESSAGE_MEMBERS = frozenset(Message.__struct_encode_fields__)
_SNAKE_CASE = {"thread_id": "threadId", "resource_id": "resourceId", "created_at": "createdAt"}
MESSAGE_NAMES = MESSAGE_MEMBERS | _SNAKE_CASE.keys()  # of a message object; the rest is content
_THREAD_MEMBERS = frozenset(Thread.__struct_encode_fields__)

_members = msgspec.json.Decoder(dict[str, Raw]).decode


class Conversation(Struct, kw_only=True):
    """The thread that a line is about.

    `thread` is the whole record where the line holds one (a line of an export); otherwise
    `changes` are the members that the line states, and `resource` whose thread a new one is.
    """

    number: int
    thread_id: str
    thread: Thread | None = None
    unknown: dict[str, Any] = {}
    changes: dict[str, Any] = {}
    resource: str = ""
    # What is found out while it is written:
    is_new: bool = False
    began: datetime | None = None  # the time of its first message, for messages without one
    last: tuple[int, int] | None = None  # `order` and `seq` of the message before


class Draft(Struct):
    """A message of a line. Without `timed`, its time is still to be given, by `position`."""

    message: Message
    position: int
    timed: bool
    unknown: dict[str, Any]


def conversation_of(members: dict[str, Any], *, number: int, resource: str) -> Conversation:
    """The thread of a line, from all its members but the messages."""
    if "thread_id" not in members:
        raise InvalidRecordError("thread_id is missing", field="thread_id")
    thread_id = check_id(members.pop("thread_id"), "thread_id")
    record = members.get("thread")
    if isinstance(record, dict) and record.get("id") == thread_id:
        unknown = {name: record[name] for name in record.keys() - _THREAD_MEMBERS}
        thread = record_from(
            Thread, {name: record[name] for name in record.keys() & _THREAD_MEMBERS}
        )
        return Conversation(
            number=number,
            thread_id=thread_id,
            thread=THREADS.check(thread),
            unknown=check_mapping(unknown, key=(), fields=()),
        )
    changes: dict[str, Any] = {}
    for member, name in (
        ("title", "title"),
        ("resource_id", "resource_id"),
        ("resourceId", "resource_id"),
    ):
        if isinstance(members.get(member), str):
            changes[name] = members.pop(member)
    if members:
        changes["metadata"] = members
    THREADS.check(Thread(**{"id": thread_id, "resource_id": resource, **changes}))
    return Conversation(number=number, thread_id=thread_id, changes=changes, resource=resource)


def draft_of(thread_id: str, position: int, members: Any) -> Draft:
    """A message of a line. Raises `InvalidRecordError` naming its position and field."""
    try:
        if not isinstance(members, dict):
            raise InvalidRecordError(f"must be an object, not {type(members).__name__}")
        return _draft(thread_id, position, members)
    except InvalidRecordError as exc:
        raise InvalidRecordError(f"messages[{position}]: {exc.message}", field=exc.field) from exc


def _draft(thread_id: str, position: int, members: dict[str, Any]) -> Draft:
    _name_in_camel_case(members)
    if members.pop("threadId", thread_id) != thread_id:
        raise InvalidRecordError("threadId is of another thread than its line", field="threadId")
    unknown = members.pop(UNKNOWN, {})
    if not isinstance(unknown, dict) or unknown.keys() & MESSAGE_MEMBERS:
        raise InvalidRecordError(f"{UNKNOWN} must be an object of members that are not its own")
    record: dict[str, Any] = {
        name: value
        for name in ("id", "role", "type", "resourceId", "metadata", "createdAt")
        if (value := members.pop(name, None)) is not None
    }
    if "role" not in record:
        raise InvalidRecordError("role is missing", field="role")
    timed = "createdAt" in record
    content = members["content"] if members.keys() == {"content"} else members
    role = record["role"]
    message = Message(
        id=record.get("id", _id_at(thread_id, position)),
        thread_id=thread_id,
        role=role,
        content=content,
        type=record.get("type", chat_type(role, bool(members.get("tool_calls")))),
        resource_id=record.get("resourceId"),
        metadata=record.get("metadata", {}),
    )
    if timed:
        message.created_at = _time(record["createdAt"])
    return Draft(
        MESSAGES.check(message), position, timed, check_mapping(unknown, key=(), fields=())
    )


def chat_type(role: str | None, has_calls: bool) -> str:
    """The type of a message that does not state one."""
    if has_calls:
        return "tool-call"
    return "tool-result" if role == "tool" else "text"


def _name_in_camel_case(members: dict[str, Any]) -> None:
    """Give the members of the record that are named in snake_case the names that exports use."""
    for name in _SNAKE_CASE.keys() & members.keys():
        if _SNAKE_CASE[name] in members:
            raise InvalidRecordError(f"states both {name} and {_SNAKE_CASE[name]}", field=name)
        members[_SNAKE_CASE[name]] = members.pop(name)


def _time(value: Any) -> datetime:
    try:
        time = msgspec.convert(value, datetime)
    except msgspec.ValidationError:
        raise InvalidRecordError("createdAt is not an ISO-8601 time", field="createdAt") from None
    if time.tzinfo is None:
        raise InvalidRecordError(
            "createdAt needs a zone, as in 2026-01-01T00:00:00Z", field="createdAt"
        )
    return time


def _id_at(thread_id: str, position: int) -> str:
    """The id of a message that has none: the same at every import."""
    made = f"{thread_id}-{position:06d}"
    if len(made.encode()) <= MAX_ID_BYTES:
        return made
    return f"{blake2b(thread_id.encode(), digest_size=16).hexdigest()}-{position:06d}"


_Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
_Moment = Annotated[
    int,
    Meta(
        ge=to_microseconds(datetime.min.replace(tzinfo=timezone.utc)),
        le=to_microseconds(datetime.max.replace(tzinfo=timezone.utc)),
    ),
]


class _RowMembers(Struct, rename="camel"):
    key: tuple[str, ...]
    value: Raw
    order: _Int64
    seq: _Int64
    updated: _Moment
    fields: dict[str, str] = {}
    touched: _Moment | None = None
    expires_at: _Int64 | None = None


def row_of(table: Table, members: Raw, *, version: str) -> Row:
    """The row in a row line. Raises `InvalidRecordError` when it cannot be one of `table`."""
    found = msgspec.json.decode(members, type=_RowMembers)
    row = Row(
        table=table,
        key=found.key,
        value=bytes(found.value),
        order=found.order,
        seq=found.seq,
        fields=found.fields,
        updated=found.updated,
        touched=found.touched,
        version=version,
        expires_at=found.expires_at,
    )
    check_row(row)
    return row


def check_row(row: Row) -> None:
    """Raise `StorageError` for a row that does not hold what rows of its table do."""
    table = row.table
    if len(row.key) != len(table.key):
        raise InvalidRecordError(f"the key of table {table.name!r} is {', '.join(table.key)}")
    if not row.fields.keys() <= set(table.fields):
        raise InvalidRecordError(f"table {table.name!r} indexes {', '.join(table.fields)} only")
    for name, part in zip(table.key, row.key, strict=True):
        check_id(part, name, empty=table.record is None)
    if table.record is None:
        msgspec.json.decode(row.value)
    else:
        table.check(table.record_of(msgspec.structs.replace(row, touched=None)))


def with_unknown(row: Row, unknown: Mapping[str, Any]) -> Row:
    """The row with members that its record does not know beside those that it does."""
    if not unknown:
        return row
    return msgspec.structs.replace(row, value=encode({**_members(row.value), **unknown}))
