"""Conversations of many kinds, the same in every process that makes them."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import msgspec
from msgspec import structs

from mastra_storage import Message, Storage, Thread

_START = datetime(2025, 1, 2, 3, 4, 5, 678901, tzinfo=timezone.utc)
_IDS = ("plain", "a:b", "a/b?#%20", "42", "__proto__", "..", "🧵 né", "x" * 256)
_CONTENTS: tuple[Any, ...] = (
    "Where is my bag? ✈",
    {"content": None, "tool_calls": [{"id": "c1", "function": {"arguments": '{"a": 1}'}}]},
    {"$at": "LIS", "weight": 12.5, "pieces": 2**53, "found": True, "by": None},
    [{"type": "text", "text": "Line one\nand two \u2028 \0"}, {"type": "image", "data": []}],
    "",
)

Conversation = tuple[Thread, list[Message]]


def conversation(number: int) -> Conversation:
    """A thread with 3 to 12 messages, some of them of the same moment."""
    start = _START + timedelta(hours=number)
    thread = Thread(
        id=f"{_IDS[number % len(_IDS)]}-{number}"[-256:],
        resource_id=f"user:{number % 5}",
        title=f"Conversation {number}",
        metadata={"number": number, "tags": ["a", "é"]},
        created_at=start,
        updated_at=start + timedelta(days=1),
    )
    messages = [
        Message(
            id=f"{number}:{turn}",
            thread_id=thread.id,
            role=("user", "assistant", "tool")[turn % 3],
            content=_CONTENTS[(number + turn) % len(_CONTENTS)],
            metadata={"turn": turn} if turn % 2 else {},
            created_at=start + timedelta(microseconds=turn // 2),
        )
        for turn in range(3 + number % 10)
    ]
    return thread, messages


async def save(storage: Storage, numbers: range) -> None:
    for thread, messages in map(conversation, numbers):
        await storage.save_thread(thread)
        await storage.save_messages(messages)


async def differing(storage: Storage, numbers: range) -> list[str]:
    """The threads that are not stored as they were made."""
    return [
        thread.id
        for thread, messages in map(conversation, numbers)
        if not _same_thread(await storage.get_thread_by_id(thread.id), thread)
        or not _same(await storage.get_messages(thread.id), messages)
    ]


def _same_thread(found: Thread | None, made: Thread) -> bool:
    # Its messages have moved it.
    return found is not None and _same(structs.replace(found, updated_at=made.updated_at), made)


def _same(found: Any, made: Any) -> bool:
    # As JSON, in which 1, 1.0 and True differ.
    return msgspec.json.encode(found) == msgspec.json.encode(made)
