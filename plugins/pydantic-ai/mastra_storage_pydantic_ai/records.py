"""Records of conversations, as threads."""

from __future__ import annotations

import hashlib
from typing import Any, Final

import pydantic
from msgspec import structs
from pydantic_ai.conversation_store import ConversationRecord
from pydantic_core import PydanticSerializationError, from_json, to_json

from mastra_storage import InvalidRecordError, Key, Row, Storage, StorageError, Thread
from mastra_storage_pydantic_ai.entries import MEMBER, large_row

# As the messages of Pydantic AI: bytes anywhere inside become base64.
_RECORDS: Final = pydantic.TypeAdapter(
    list[ConversationRecord],
    config=pydantic.ConfigDict(defer_build=True, ser_json_bytes="base64", val_json_bytes="base64"),
)
# Deferred calls of more bytes of JSON are kept beside the thread, which listings read.
_DEFERRED_BYTES: Final = 50_000
_MAX_ID_BYTES: Final = 256


def member_of(thread: Thread | None) -> dict[str, Any] | None:
    """What a thread tells of its conversation; `None` when it is none of Pydantic AI."""
    member = None if thread is None else thread.metadata.get(MEMBER)
    return member if isinstance(member, dict) and "revision" in member else None


def resource_of(scope: str) -> str:
    """The resource id that stands for a scope: the scope itself, where it can be one."""
    encoded = scope.encode("utf-8", "surrogatepass")
    if 0 < len(encoded) <= _MAX_ID_BYTES:
        return scope
    return f"sha256:{hashlib.sha256(encoded).hexdigest()}"


def thread_of(
    storage: Storage, record: ConversationRecord, old: Thread | None
) -> tuple[Thread, Row | None]:
    """The thread that keeps a record, and the row that keeps its deferred calls if they are large.

    What `old`, the thread that it replaces, has besides stays.
    """
    try:
        [member] = from_json(_RECORDS.dump_json([record]))
    except PydanticSerializationError as exc:
        raise InvalidRecordError(
            f"the record of conversation {record.conversation_id!r} holds a value that JSON does "
            "not have",
            field="deferred_tool_requests",
        ) from exc
    del member["conversation_id"]
    deferred = member["deferred_tool_requests"]
    beside = None
    if deferred is not None and len(to_json(deferred)) > _DEFERRED_BYTES:
        member |= {"deferred_tool_requests": None, "deferred_beside": True}
        beside = large_row(storage, (record.conversation_id, record.revision), deferred)
    if old is None:
        owner = record.conversation_id if record.scope is None else resource_of(record.scope)
        old = Thread(id=record.conversation_id, resource_id=owner, created_at=record.updated_at)
    elif record.scope is not None:
        old = structs.replace(old, resource_id=resource_of(record.scope))
    metadata = old.metadata | {MEMBER: member}
    return structs.replace(old, metadata=metadata, updated_at=record.updated_at), beside


def deferred_key(thread: Thread) -> Key | None:
    """Where in `LARGE` the deferred calls of a conversation are, if not in its thread."""
    member = member_of(thread)
    if member is None or not member.get("deferred_beside"):
        return None
    return thread.id, member["revision"]


def record_of(thread: Thread, deferred: Any = None) -> ConversationRecord:
    """The record that a conversation's thread keeps; `deferred` are the calls kept beside it."""
    member = (member_of(thread) or {}) | {"conversation_id": thread.id}
    if deferred is not None:
        member["deferred_tool_requests"] = deferred
    try:
        [record] = _RECORDS.validate_json(to_json([member]))
    except pydantic.ValidationError:
        raise StorageError(
            f"the thread {thread.id!r} does not hold a conversation of Pydantic AI that this "
            "version reads; it was changed by something else, or by a newer version"
        ) from None  # the error shows what the thread holds
    return record
