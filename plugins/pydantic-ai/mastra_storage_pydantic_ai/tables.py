"""The tables of the conversations, besides threads and messages."""

from __future__ import annotations

from typing import Final

from mastra_storage import Table

__all__ = ["ENTRIES", "LARGE"]

ENTRIES: Final = Table(name="pydantic_ai_entries", key=("id", "conversation_id"), ordered=())
"""In which conversations an entry is."""

LARGE: Final = Table(
    name="pydantic_ai_large", key=("conversation_id", "id"), ordered=(), large=True
)
"""What is too large for a message or a thread: of an entry, or (by revision) deferred calls."""
