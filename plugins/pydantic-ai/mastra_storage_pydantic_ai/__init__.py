"""Conversations of Pydantic AI, on any backend of mastra-storage."""

from mastra_storage_pydantic_ai.store import MastraConversationStore

__all__ = ["MastraConversationStore"]
