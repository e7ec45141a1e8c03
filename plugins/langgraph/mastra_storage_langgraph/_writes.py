"""Pending writes: what tasks wrote on top of a checkpoint.

Each call adds a row, so that calls of several processes lose nothing; a call that is repeated
adds another, and the first write of a task at an index counts. Errors, interrupts and resumes are
replaced instead: they have a row of their own, and the last one counts.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from langgraph.checkpoint.base import WRITES_IDX_MAP, PendingWrite, writes_sort_key
from msgspec import Struct

from mastra_storage import Key, Op, Put, Query, Row, Storage
from mastra_storage_langgraph._codec import Codec, Text
from mastra_storage_langgraph._saved import Saved
from mastra_storage_langgraph._tasks import together
from mastra_storage_langgraph.tables import (
    WRITES,
    Place,
    checkpoint_part,
    decoded,
    key_part,
    order_of,
)

__all__ = ["add_writes", "pending_writes", "read_writes", "writes_query"]


class _Call(Struct, frozen=True):
    """What a row holds of a call: its task, and the index, channel and value of each write."""

    task: str
    path: str
    writes: list[tuple[int, str, Text]]


_decode = msgspec.json.Decoder(_Call).decode


async def add_writes(
    storage: Storage,
    codec: Codec,
    place: Place,
    checkpoint_id: str,
    writes: Sequence[tuple[str, Any]],
    task_id: str,
    task_path: str,
) -> None:
    """Store the writes of one call."""
    replaced: dict[str, list[tuple[int, str, Text]]] = {}
    added: list[tuple[int, str, Text]] = []
    for place_in_call, (channel, value) in enumerate(writes):
        idx = WRITES_IDX_MAP.get(channel, place_in_call)
        entry = (idx, channel, codec.text(value))
        if idx < 0:
            replaced[key_part(f"{task_id}{idx}")] = [entry]
        else:
            added.append(entry)

    def row(call: str, entries: list[tuple[int, str, Text]]) -> Row:
        record = {
            "thread_id": place.thread,
            "checkpoint": checkpoint_part(place.ns, checkpoint_id),
            "call": call,
            **msgspec.to_builtins(_Call(task_id, task_path, entries)),
        }
        return storage.new_row(WRITES, record, order=order_of(checkpoint_id))

    puts: list[Op] = [Put(row(secrets.token_urlsafe(9), added))] if added else []
    specials = [row(call, entries) for call, entries in replaced.items()]
    if not specials:
        await storage.write_rows(*puts)
        return
    await storage.change_rows(
        [(WRITES, special.key) for special in specials],
        lambda _: [*puts, *map(Put, specials)],
    )


def writes_query(place: Place, checkpoint_id: str) -> Query:
    """All writes on top of a checkpoint."""
    prefix = (place.thread, checkpoint_part(place.ns, checkpoint_id))
    return Query(table=WRITES, prefix=prefix)


async def read_writes(storage: Storage, checkpoints: Sequence[Saved]) -> list[list[Row]]:
    """The rows of the writes on top of each checkpoint, read at once for each thread."""
    orders: dict[str, list[int]] = {}
    for saved in checkpoints:
        orders.setdefault(saved.thread_id, []).append(order_of(saved.id))
    queries = [
        Query(table=WRITES, prefix=(thread,), since=min(some), until=max(some))
        for thread, some in orders.items()
    ]
    if len(checkpoints) == 1:
        queries = [writes_query(checkpoints[0].place, checkpoints[0].id)]
    found: dict[Key, list[Row]] = {}
    for rows in await together(*map(storage.find_rows, queries)):
        for row in rows:
            found.setdefault(row.key[:2], []).append(row)
    return [found.get(writes_query(one.place, one.id).prefix, []) for one in checkpoints]


def pending_writes(codec: Codec, rows: Iterable[Row]) -> list[PendingWrite]:
    """The writes in rows of one checkpoint, in the order in which a graph applies them."""
    found: dict[tuple[str, int], tuple[str, str, Text]] = {}
    for row in rows:
        call = decoded(row, _decode)
        for idx, channel, text in call.writes:
            if idx < 0:
                found[call.task, idx] = (call.path, channel, text)
            else:
                found.setdefault((call.task, idx), (call.path, channel, text))
    ordered = sorted(found.items(), key=lambda one: writes_sort_key(one[1][0], *one[0]))
    return [(task, channel, codec.read(text)) for (task, _), (_, channel, text) in ordered]
