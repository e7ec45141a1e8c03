"""Conversations of Pydantic AI, on any backend of mastra-storage."""

from typing import TYPE_CHECKING

__all__ = ["MastraConversationStore"]

if TYPE_CHECKING:
    from mastra_storage_pydantic_ai.store import MastraConversationStore
else:
    _MODULES = {"MastraConversationStore": "store"}

    def __getattr__(name: str) -> object:
        """Import Pydantic AI when it is asked for: who copies the tables has no need of it."""
        from importlib import import_module

        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
