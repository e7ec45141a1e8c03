"""Listing checkpoints, newest first, a page of them at a time."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import get_checkpoint_id
from msgspec import structs

from mastra_storage import Key, Query, Row, Storage
from mastra_storage_langgraph._saved import Saved
from mastra_storage_langgraph.tables import CHECKPOINTS, Place, key_part, order_of

__all__ = ["checkpoint_pages", "pages"]

# How many checkpoints are read at once.
_PAGE: Final = 64


async def pages(
    storage: Storage, prefix: Key, *, until: int | None = None, size: int = _PAGE
) -> AsyncGenerator[list[Saved], None]:
    """The checkpoints under a prefix from the newest on, up to the place `until`."""
    query = Query(table=CHECKPOINTS, prefix=prefix, until=until, descending=True, limit=size)
    while rows := await storage.find_rows(query):
        yield [Saved.of(row) for row in rows]
        if len(rows) < size:
            return
        query = structs.replace(query, after=query.position(rows[-1]))


async def checkpoint_pages(
    storage: Storage,
    config: RunnableConfig | None,
    *,
    before: RunnableConfig | None,
    size: int | None,
) -> AsyncGenerator[list[Saved], None]:
    """The checkpoints that `alist` is about, as it describes them, `size` at a time."""
    least = get_checkpoint_id(before) if before else None
    prefix: Key = ()
    if config is not None:
        place = Place.of(config)
        everywhere = config["configurable"].get("checkpoint_ns") is None
        prefix = (place.thread,) if everywhere else place
        if checkpoint_id := get_checkpoint_id(config):
            rows = await storage.get_rows(CHECKPOINTS, [place.checkpoint(checkpoint_id)])
            if everywhere and rows == [None]:
                rows = await _of_id(storage, place, checkpoint_id)
            named = [Saved.of(row) for row in rows if row is not None]
            yield [saved for saved in named if not least or saved.id < least]
            return
    until = order_of(least) if least else None
    size = _PAGE if size is None else max(1, min(_PAGE, size))
    async with aclosing(pages(storage, prefix, until=until, size=size)) as found:
        async for page in found:
            yield [saved for saved in page if not least or saved.id < least]


async def _of_id(storage: Storage, place: Place, checkpoint_id: str) -> list[Row | None]:
    """The checkpoint of a thread, of whichever namespace, that has this id."""
    at = order_of(checkpoint_id)
    query = Query(table=CHECKPOINTS, prefix=(place.thread,), since=at, until=at)
    rows = await storage.find_rows(query)
    return [row for row in rows if row.key[2] == key_part(checkpoint_id)]
