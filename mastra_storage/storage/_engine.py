"""What all domains of `Storage` stand on: its life, reading and writing."""

from __future__ import annotations

from mastra_storage.storage._lifecycle import operation, stream, together
from mastra_storage.storage._reading import Reading, holds
from mastra_storage.storage._writing import Writing, no_thread, unique

__all__ = ["Engine", "holds", "no_thread", "operation", "stream", "together", "unique"]


class Engine(Reading, Writing):
    """The part of `Storage` that is not about one kind of record."""
