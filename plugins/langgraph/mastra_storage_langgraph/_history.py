"""The history of delta channels: what their values are rebuilt from."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from langgraph.checkpoint.base import DeltaChannelHistory

from mastra_storage import Storage
from mastra_storage_langgraph._codec import Codec
from mastra_storage_langgraph._listing import pages
from mastra_storage_langgraph._saved import Saved
from mastra_storage_langgraph._tasks import together
from mastra_storage_langgraph._values import Values
from mastra_storage_langgraph._writes import pending_writes, read_writes
from mastra_storage_langgraph.tables import CHECKPOINTS, order_of

__all__ = ["ancestors", "delta_history"]


async def delta_history(
    storage: Storage, codec: Codec, values: Values, target: Saved, channels: Sequence[str]
) -> dict[str, DeltaChannelHistory]:
    """For each channel, the value of the nearest ancestor that has one, and the writes since."""
    path: list[Saved] = []
    reach: dict[str, int] = {}  # how many ancestors belong to a channel's history
    async with aclosing(ancestors(storage, target)) as found_ancestors:
        async for saved in found_ancestors:
            path.append(saved)
            reached = [one for one in channels if one not in reach and one in saved.values]
            reach |= dict.fromkeys(reached, len(path))
            if len(reach) == len(set(channels)):
                break
    seeded = {channel: path[count - 1] for channel, count in reach.items()}
    seeds, rows = await together(
        together(*[values.read([saved], [channel]) for channel, saved in seeded.items()]),
        read_writes(storage, path),
    )
    writes = [pending_writes(codec, some) for some in rows]
    found: dict[str, DeltaChannelHistory] = {}
    for channel in channels:
        since = writes[: reach.get(channel, len(path))]
        own = [one for some in reversed(since) for one in some if one[1] == channel]
        found[channel] = {"writes": own}
    for (channel, _), [seed] in zip(seeded.items(), seeds, strict=True):
        found[channel]["seed"] = seed[channel]
    return found


async def ancestors(storage: Storage, target: Saved) -> AsyncGenerator[Saved, None]:
    """The ancestors of a checkpoint, nearest first; read in pages, which mostly hold them."""
    known: dict[str, Saved] = {}
    oldest = order_of(target.id)  # no checkpoint of this place or a later one is still unread
    passed = {target.id}
    parent = target.parent
    async with aclosing(pages(storage, target.place, until=oldest)) as unread:
        while parent is not None and parent not in passed:
            while parent not in known and order_of(parent) <= oldest:
                page = await anext(unread, None)
                if page is None:
                    break
                known |= {saved.id: saved for saved in page}
                oldest = order_of(page[-1].id)
            if parent not in known:  # its id sorts above its child's, or it is not there
                [row] = await storage.get_rows(CHECKPOINTS, [target.place.checkpoint(parent)])
                if row is None:
                    return
                known[parent] = Saved.of(row)
            passed.add(parent)
            yield known[parent]
            parent = known[parent].parent
