"""Deleting checkpoints whose neighbours stay, and copying threads.

Values are shared, so those of a deleted checkpoint go when no other needs them. What is read in
which order matters, for the thread may go on meanwhile: first the checkpoints are deleted, so
that no new one can follow them; then the values are read, and last the checkpoints that are left,
with those that were added.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Final

import msgspec
from msgspec import Struct, structs

from mastra_storage import (
    Delete,
    InvalidArgumentError,
    Key,
    Op,
    Put,
    Query,
    Row,
    Storage,
    Table,
)
from mastra_storage_langgraph._chains import FIRST
from mastra_storage_langgraph._codec import Codec
from mastra_storage_langgraph._history import ancestors
from mastra_storage_langgraph._saved import Inline, Saved, Whole
from mastra_storage_langgraph._writes import writes_query
from mastra_storage_langgraph.tables import CHECKPOINTS, VALUES, WRITES, decoded, key_part

__all__ = ["Retention"]

# How many rows are deleted or copied by one write.
_ROWS: Final = 200
# How old values are that no checkpoint refers to, in microseconds, before they are deleted from a
# store that shows a checkpoint some time after its values.
_YOUNG: Final = 60_000_000
# The member of the metadata that names the delta channels that have no value in a checkpoint.
_COUNTERS: Final = "counters_since_delta_snapshot"


class _Based(Struct, frozen=True):
    """The part of a value's row that says which row it follows."""

    base: str | None = None


_based = msgspec.json.Decoder(_Based).decode


class Retention:
    """Deletes and copies, for one saver."""

    def __init__(self, storage: Storage, codec: Codec) -> None:
        self._storage = storage
        self._codec = codec

    async def delete_runs(self, run_ids: Iterable[str]) -> set[str]:
        """Delete the checkpoints of runs; gives the threads that they were in."""
        wanted = tuple({key_part(str(run_id)) for run_id in run_ids if run_id})
        if not wanted:
            return set()
        rows = await self._storage.find_rows(Query(table=CHECKPOINTS, fields={"run_id": wanted}))
        gone: dict[str, list[Saved]] = {}
        for saved in map(Saved.of, rows):
            gone.setdefault(saved.thread_id, []).append(saved)
        for thread, checkpoints in gone.items():
            await self._delete(thread, checkpoints)
        return set(gone)

    async def keep_latest(self, thread: str) -> None:
        """Delete the checkpoints of a thread that the newest of its namespace does not need."""
        rows = await self._storage.find_rows(Query(table=CHECKPOINTS, prefix=(thread,)))
        checkpoints = list(map(Saved.of, rows))
        needed: set[Key] = set()
        for saved in {saved.place: saved for saved in checkpoints}.values():
            needed |= {saved.key, *await self._needed(saved)}
        await self._delete(thread, [saved for saved in checkpoints if saved.key not in needed])

    async def _needed(self, saved: Saved) -> list[Key]:
        """The ancestors that the delta channels of a checkpoint are rebuilt from."""
        counters = self._codec.read(saved.metadata).get(_COUNTERS) or {}
        versions = saved.versions(self._codec)
        missing = {name for name in counters if name in versions and name not in saved.values}
        needed: list[Key] = []
        if not missing:
            return needed
        async with aclosing(ancestors(self._storage, saved)) as found:
            async for ancestor in found:
                needed.append(ancestor.key)
                missing -= ancestor.values.keys()
                if not missing:
                    break
        return needed

    async def _delete(self, thread: str, gone: Collection[Saved]) -> None:
        """Delete checkpoints of a thread, with the writes and values that nothing else needs."""
        if not gone:
            return
        await self._delete_rows(CHECKPOINTS, [saved.key for saved in gone])
        dead = {writes_query(saved.place, saved.id).prefix for saved in gone}
        async for rows in self._pages(Query(table=WRITES, prefix=(thread,), order_by="any")):
            await self._delete_rows(WRITES, [row.key for row in rows if row.key[:2] in dead])
        found = Query(table=VALUES, prefix=(thread,), order_by="any")
        values = {row.key: row for row in await self._storage.find_rows(found)}
        left = await self._storage.find_rows(Query(table=CHECKPOINTS, prefix=(thread,)))
        needed = _needed_values(values, map(Saved.of, left))
        oldest = time.time_ns() // 1000 - (0 if self._storage.capabilities.atomic else _YOUNG)
        unneeded = [row for row in values.values() if row.key not in needed]
        await self._delete_rows(VALUES, [row.key for row in unneeded if row.order <= oldest])

    async def _delete_rows(self, table: Table, keys: Collection[Key]) -> None:
        def deletes(rows: list[Row | None]) -> list[Op]:
            return [Delete(table, row.key) for row in rows if row is not None]

        for some in _batches(list(keys)):
            await self._storage.change_rows([(table, key) for key in some], deletes)

    async def copy(self, source: str, target: str) -> Saved | None:
        """Copy a thread; gives the newest checkpoint of the copy's own namespace, if any."""
        from_, to = key_part(source), key_part(target)
        if from_ == to:
            raise InvalidArgumentError("a thread cannot be copied onto itself")
        checkpoints = Query(table=CHECKPOINTS, prefix=(from_,))
        # Only what is there now and at the end had its values there all the time between.
        there = {row.key async for rows in self._pages(checkpoints) for row in rows}
        for query in (
            Query(table=VALUES, prefix=(from_,), order_by="any"),
            Query(table=WRITES, prefix=(from_,)),
        ):
            table = query.table
            async for rows in self._pages(query):
                records = [{**table.record_of(row), "thread_id": to} for row in rows]
                copies = [
                    self._storage.new_row(table, record, order=row.order)
                    for row, record in zip(rows, records, strict=True)
                ]
                await self._storage.write_rows(*map(Put, copies))
        newest = None
        async for rows in self._pages(checkpoints):
            copied = [Saved.of(row).renamed(to, target) for row in rows if row.key in there]
            await self._storage.write_rows(*[Put(one.row(self._storage)) for one in copied])
            newest = next((one for one in reversed(copied) if not one.checkpoint_ns), newest)
        return newest

    async def _pages(self, query: Query) -> AsyncIterator[list[Row]]:
        query = structs.replace(query, limit=_ROWS)
        while rows := await self._storage.find_rows(query):
            yield rows
            if len(rows) < _ROWS:
                return
            query = structs.replace(query, after=query.position(rows[-1]))


def _needed_values(values: Mapping[Key, Row], checkpoints: Iterable[Saved]) -> set[Key]:
    """The keys of the values that checkpoints refer to, and of what those follow."""
    needed: set[Key] = set()
    for saved in checkpoints:
        for ref in (*saved.values.values(), *saved.snapshots.values()):
            if isinstance(ref, Inline):
                continue
            link: str | None = FIRST if isinstance(ref, Whole) else ref.link
            while link is not None and (key := (saved.thread_id, ref.chain, link)) not in needed:
                needed.add(key)
                row = values.get(key)
                link = None if row is None else decoded(row, _based).base
    return needed


def _batches(keys: Sequence[Key]) -> list[Sequence[Key]]:
    return [keys[at : at + _ROWS] for at in range(0, len(keys), _ROWS)]
