"""The order of rows in an answer: by time, then by saving, then by key."""

from __future__ import annotations

from typing import TypeAlias

from mastra_storage import Position, Query
from mastra_storage_cloudflare.layout import Layout

Rank: TypeAlias = tuple[int, int, tuple[str, ...]]


def rank_key(layout: Layout, name: str) -> tuple[str, ...]:
    """What rows of one place are sorted by: their keys, or the name of one that is hashed."""
    return layout.key_of(name) or (name,)


def after_rank(layout: Layout, after: Position) -> Rank:
    """The rank of a position that a query goes on from."""
    return after.order, after.seq, rank_key(layout, layout.record_key(after.key))


def is_behind(rank: Rank, after: Rank, query: Query) -> bool:
    """Whether a rank comes later than another in the direction of a query."""
    return rank < after if query.descending else rank > after
