"""A tiny agent without a language model: it answers by rules, from the conversation alone."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mastra_storage import Message

_NAME = re.compile(r"my name is (\w+)", re.IGNORECASE)
_SUM = re.compile(r"(-?\d+)\s*\+\s*(-?\d+)")


def reply(conversation: Sequence[Message]) -> str:
    """The agent's next words; the last message is the user's."""
    said = [str(message.content) for message in conversation if message.role == "user"]
    text = said[-1]
    if found := _SUM.search(text):
        return f"That makes {int(found[1]) + int(found[2])}."
    if found := _NAME.search(text):
        return f"Nice to meet you, {found[1]}."
    if "my name" in text.lower():
        names = [found[1] for earlier in said if (found := _NAME.search(earlier))]
        return f"You are {names[-1]}." if names else "You have not told me yet."
    return f"That is number {len(said)} of the things you told me."
