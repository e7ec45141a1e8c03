"""Conversations to be saved, and what of them can be compared."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic_ai import Conversation
from pydantic_ai.conversation_store import ConversationEntry
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    TextPart,
    UserPromptPart,
)


def turn(text: str) -> list[ModelMessage]:
    """A question and its answer."""
    return [
        ModelRequest(parts=[UserPromptPart(text)]),
        ModelResponse(parts=[TextPart(f"{text}!")]),
    ]


def talk(conversation_id: str, *texts: str) -> Conversation:
    """A conversation of these turns, not stored yet."""
    messages = [message for text in texts for message in turn(text)]
    return Conversation(conversation_id=conversation_id, messages=messages)


def said(messages: Sequence[ModelMessage] | Conversation | None) -> list[str] | None:
    """What is said in messages, in order."""
    if messages is None:
        return None
    if isinstance(messages, Conversation):
        messages = messages.messages
    return [str(getattr(message.parts[0], "content", "")) for message in messages]


def entries_said(entries: Sequence[ConversationEntry] | None) -> list[str] | None:
    return None if entries is None else said([entry.message for entry in entries])
