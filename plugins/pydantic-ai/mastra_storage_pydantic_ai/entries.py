"""Entries of a conversation, as messages of its thread."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from msgspec import Struct
from pydantic import ValidationError
from pydantic_ai.conversation_store import ConversationEntry
from pydantic_ai.messages import (
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelResponse,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_core import PydanticSerializationError, from_json, to_json

from mastra_storage import (
    MESSAGES,
    InvalidRecordError,
    Key,
    Message,
    Op,
    Put,
    Row,
    Storage,
    StorageError,
)
from mastra_storage_pydantic_ai.tables import ENTRIES, LARGE

MEMBER: Final = "pydantic_ai"
"""The member of `metadata` that says what a thread or a message is to Pydantic AI."""

# Messages are this large at most, in bytes of JSON, so that a copy fits on every backend.
_MESSAGE_BYTES: Final = 800_000
# How many entries are made or read before others may run.
_AT_ONCE: Final = 200


class Stored(Struct, frozen=True):
    """A message that keeps an entry, and what the entry's model message is in JSON.

    A large one is not the message's own content: it stays in `LARGE`.
    """

    message: Message
    content: Any

    @property
    def key(self) -> Key:
        return self.message.thread_id, self.message.id

    @property
    def id(self) -> str:
        return self.message.id

    @property
    def parent_id(self) -> str | None:
        parent: str | None = self.message.metadata[MEMBER]["parent_id"]
        return parent

    @property
    def is_large(self) -> bool:
        return is_large(self.message)


def is_entry(message: Message) -> bool:
    """Whether a message keeps an entry; others may have been added to the thread."""
    member = message.metadata.get(MEMBER)
    return isinstance(member, dict) and "parent_id" in member


def is_large(message: Message) -> bool:
    """Whether the content of an entry's message is in `LARGE`."""
    return bool(message.metadata[MEMBER].get("large"))


def stored_of(
    conversation_id: str, entry: ConversationEntry, at: datetime, limit: int | None
) -> Stored:
    """What keeps `entry`; `limit` is the backend's `max_record_bytes`."""
    try:
        dumped = ModelMessagesTypeAdapter.dump_json([entry.message])
    except PydanticSerializationError as exc:
        raise InvalidRecordError(
            f"the message of entry {entry.id!r} holds a value that JSON does not have",
            field="message",
        ) from exc
    [content] = from_json(dumped)
    large = len(dumped) > min(_MESSAGE_BYTES, limit * 8 // 10 if limit else _MESSAGE_BYTES)
    role, kind = _role(entry.message)
    message = Message(
        id=entry.id,
        thread_id=conversation_id,
        role=role,
        type=kind,
        content=f"({len(dumped):,} bytes, kept in {LARGE.name})" if large else content,
        metadata={MEMBER: {"parent_id": entry.parent_id} | ({"large": True} if large else {})},
        created_at=at,
    )
    return Stored(message, content)


async def puts(storage: Storage, stored: Sequence[Stored]) -> list[Op]:
    """What stores entries: large contents, messages, then where they are."""
    large: list[Op] = []
    messages: list[Op] = []
    places: list[Op] = []
    for position, one in enumerate(stored):
        await let_others_run(position)
        if one.is_large:
            large.append(Put(large_row(storage, one.key, one.content)))
        messages.append(Put(storage.new_row(MESSAGES, one.message)))
        place = {"id": one.id, "conversation_id": one.message.thread_id}
        places.append(Put(storage.new_row(ENTRIES, place)))
    return [*large, *messages, *places]


def large_row(storage: Storage, key: Key, content: Any) -> Row:
    """The row that keeps what is too large for a message or a thread."""
    conversation_id, name = key
    return storage.new_row(
        LARGE, {"conversation_id": conversation_id, "id": name, "content": content}
    )


async def large_contents(storage: Storage, keys: Sequence[Key]) -> dict[Key, Any]:
    """What is kept under these keys, of those that are there."""
    rows = await storage.get_rows(LARGE, keys) if keys else []
    return {row.key: LARGE.record_of(row)["content"] for row in rows if row is not None}


async def let_others_run(position: int) -> None:
    """Called at each item of a long list: between some of them other tasks get their turn."""
    if position % _AT_ONCE == _AT_ONCE - 1:
        await asyncio.sleep(0)


async def decoded(stored: Sequence[Stored]) -> list[ConversationEntry]:
    """The entries that messages keep."""
    entries: list[ConversationEntry] = []
    for start in range(0, len(stored), _AT_ONCE):
        if start:
            await asyncio.sleep(0)
        entries += _entries_of(stored[start : start + _AT_ONCE])
    return entries


def _entries_of(stored: Sequence[Stored]) -> list[ConversationEntry]:
    try:
        messages = ModelMessagesTypeAdapter.validate_json(to_json([one.content for one in stored]))
    except ValidationError as exc:
        [at, *_] = exc.errors(include_url=False, include_context=False, include_input=False)
        damaged = stored[int(at["loc"][0])].message
        raise StorageError(
            f"the message {damaged.id!r} of thread {damaged.thread_id!r} does not hold a message "
            "of Pydantic AI; it was changed by something else"
        ) from None  # the error shows what the message holds
    return [
        ConversationEntry(id=one.id, parent_id=one.parent_id, message=message)
        for one, message in zip(stored, messages, strict=True)
    ]


def _role(message: ModelMessage) -> tuple[str, str]:
    """The role and type by which a message is known in its thread."""
    if isinstance(message, ModelResponse):
        calls = any(isinstance(part, ToolCallPart) for part in message.parts)
        return "assistant", "tool-call" if calls else "text"
    if any(isinstance(part, UserPromptPart) for part in message.parts):
        return "user", "text"
    if any(isinstance(part, ToolReturnPart) for part in message.parts):
        return "tool", "tool-result"
    return "system" if message.parts else "user", "text"
