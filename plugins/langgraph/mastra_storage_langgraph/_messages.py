"""LangChain messages as messages of a thread: roles, text, parts, tool calls and their results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, TypeAlias

import msgspec
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from pydantic_core import PydanticSerializationError, to_json

from mastra_storage import Message
from mastra_storage_langgraph.tables import key_part

__all__ = ["MARK", "Messages", "message_of", "messages_by_id", "unshown"]

Messages: TypeAlias = dict[str, tuple[BaseMessage, bytes]]
"""Messages by their ids, each with the digest of its serialised form."""

MARK: Final = {"runtime": "langgraph"}
"""In the metadata of what the saver keeps for conversations."""

_ROLES: Final = {"human": "user", "ai": "assistant", "system": "system", "tool": "tool"}


def messages_by_id(value: Any, digests: Sequence[bytes]) -> Messages | None:
    """The messages of a channel, each with its digest; `None` when it holds something else."""
    if not isinstance(value, list) or not all(isinstance(one, BaseMessage) for one in value):
        return None
    found: Messages = {}
    for message, digest in zip(value, digests, strict=True):
        name = key_part(message.id) if message.id else f"{digest.hex()}-{len(found)}"
        found[name] = message, digest
    return found


def message_of(
    thread_id: str, message_id: str, message: BaseMessage, created_at: datetime
) -> Message:
    """A message as a thread has it."""
    role = getattr(message, "role", None) or _ROLES.get(message.type, message.type)
    metadata = {**MARK, **({"name": message.name} if message.name else {})}
    return Message(
        id=message_id,
        thread_id=thread_id,
        role=str(role),
        content=_content(message),
        metadata=metadata,
        created_at=created_at,
    )


def unshown(thread_id: str, message_id: str, reason: str, created_at: datetime) -> Message:
    """What stands for a message whose content the store cannot keep as a message's."""
    return Message(
        id=message_id,
        thread_id=thread_id,
        role="unknown",
        content=f"({reason}; the checkpoints have it)",
        metadata=dict(MARK),
        created_at=created_at,
    )


def _content(message: BaseMessage) -> Any:
    if isinstance(message, ToolMessage):
        result = {
            "type": "tool-result",
            "toolCallId": message.tool_call_id,
            "toolName": message.name or "",
            "result": _json(message.content),
        }
        return [{**result, "isError": True} if message.status == "error" else result]
    if not isinstance(message, AIMessage) or not message.tool_calls:
        return _json(message.content)
    calls = [
        {
            "type": "tool-call",
            "toolCallId": call["id"] or "",
            "toolName": call["name"],
            "args": _json(call["args"]),
        }
        for call in message.tool_calls
    ]
    return [*_parts(message.content), *calls]


def _parts(content: Any) -> list[Any]:
    """The content as parts, without the calls that some models leave in it as well."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return [
        part
        for part in _json(content)
        if not (isinstance(part, dict) and part.get("type") in ("tool_use", "tool_call"))
    ]


def _json(value: Any) -> Any:
    """The value as JSON has it: bytes as base64, and what is not a number as text."""
    try:
        text = to_json(value, bytes_mode="base64", inf_nan_mode="strings", serialize_unknown=True)
    except PydanticSerializationError:
        cleaned = _without_surrogates(value)
        text = to_json(cleaned, bytes_mode="base64", inf_nan_mode="strings", serialize_unknown=True)
    return msgspec.json.decode(text)


def _without_surrogates(value: Any) -> Any:
    """The value with a question mark for each half of a character, as in the checkpoint."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, Mapping):
        return {_without_surrogates(key): _without_surrogates(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_surrogates(one) for one in value]
    return value
