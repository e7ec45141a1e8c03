"""Replacing the latest items of a session at once, for the compaction of the SDK.

Nothing that is appended meanwhile is lost: what takes the place of the items has the time of the
last of them, so a newer item stays behind it. An item that was removed or changed meanwhile stops
the replacement.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from agents.items import TResponseInputItem

from mastra_storage import MESSAGES, Delete, Message, Op, Put, Query, Row, Storage
from mastra_storage_openai_agents._finishing import finished


@dataclass(frozen=True)
class Snapshot:
    """What compaction reads of a session; the members are those that the SDK looks at.

    `complete` says whether `items` are all there are. `replace_suffix` puts others in place of
    those from an index on, and gives whether it did.
    """

    items: list[TResponseInputItem]
    complete: bool
    replace_suffix: Callable[[int, list[TResponseInputItem]], Awaitable[bool]]


class Messages(Protocol):
    """Makes the messages of items."""

    def __call__(self, items: list[TResponseInputItem], *, at: datetime) -> list[Message]: ...


async def compaction_snapshot(
    storage: Storage,
    session_id: str,
    limit: int,
    messages: Messages,
    prune_prefix: Callable[[TResponseInputItem], bool] | None,
) -> Snapshot:
    """The latest `limit` items of a session, whether these are all, and how to replace the last."""
    newest = Query(table=MESSAGES, prefix=(session_id,), descending=True, limit=limit + 1)
    found = await storage.find_rows(newest)
    rows = found[:limit][::-1]

    async def replace_suffix(start: int, output: list[TResponseInputItem]) -> bool:
        expected = rows[start:]
        if not expected:
            return False
        last: Message = MESSAGES.record_of(expected[-1])
        puts = [
            Put(storage.new_row(MESSAGES, message))
            for message in messages(output, at=last.created_at)
        ]
        if not await _replace(storage, expected, puts):
            return False
        if prune_prefix is not None:
            await _prune(storage, expected[0], prune_prefix, limit)
        return True

    items = [MESSAGES.record_of(row).content for row in rows]
    return Snapshot(items, len(found) <= limit, replace_suffix)


async def _replace(storage: Storage, expected: list[Row], puts: list[Put]) -> bool:
    """Put rows in place of others, unless one of those is not there any more as it was read."""
    most = storage.capabilities.max_atomic_rows
    if most is not None and len(expected) + len(puts) > most:
        return False
    versions = [row.version for row in expected]

    def change(rows: list[Row | None]) -> list[Op]:
        if [row and row.version for row in rows] != versions:
            return []
        return [*puts, *[Delete(MESSAGES, row.key) for row in expected]]

    keys = [(MESSAGES, row.key) for row in expected]
    return bool(await finished(storage.change_rows(keys, change)))


async def _prune(
    storage: Storage, before: Row, prune: Callable[[TResponseInputItem], bool], batch: int
) -> None:
    """Remove the oldest items for which `prune` holds, up to the place of `before`."""
    oldest = Query(table=MESSAGES, prefix=before.key[:1], until=before.order, limit=max(batch, 1))
    while True:
        rows = await storage.find_rows(oldest)
        expired = []
        for row in rows:
            at = (row.order, row.seq, row.key)
            if at >= (before.order, before.seq, before.key):
                break
            if not prune(MESSAGES.record_of(row).content):
                break
            expired.append(row)
        if not expired:
            return
        await finished(storage.write_rows(*[Delete(MESSAGES, row.key) for row in expired]))
        if len(expired) < len(rows) or len(rows) < max(batch, 1):
            return
