"""Import: lines of a file become rows, unless they are there already."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from datetime import timedelta
from typing import Any, BinaryIO

import msgspec
from msgspec import Struct

from mastra_storage.arguments import id_argument
from mastra_storage.backend import Op, Put, Touch
from mastra_storage.cli.transfer.blocking import prefetched
from mastra_storage.cli.transfer.decoding import Draft, with_unknown
from mastra_storage.cli.transfer.reading import Batch, Chunk, Reader
from mastra_storage.cli.transfer.rows import Stamps, canonical, naming, same_place, same_row, stated
from mastra_storage.errors import InvalidRecordError
from mastra_storage.plugins import load_tables
from mastra_storage.records import Thread, from_microseconds, now, to_microseconds
from mastra_storage.schema import MESSAGES, THREADS, Key, Row, Table
from mastra_storage.storage import Storage
from mastra_storage.storage._merge import merge, updated

__all__ = ["Imported", "import_lines"]


class Imported(Struct):
    """What an import has read so far, and how many rows of it were `written` or `unchanged`."""

    threads: int = 0
    messages: int = 0
    rows: int = 0
    written: int = 0
    unchanged: int = 0
    bytes: int = 0


async def import_lines(
    storage: Storage,
    file: BinaryIO,
    *,
    name: str = "the file",
    resource: str = "imported",
    on_progress: Callable[[Imported], None] | None = None,
) -> Imported:
    """Store the threads, messages and rows of JSON lines: an export, or the chat format.

    A row that is there with the same content is left alone, so that a second import changes
    nothing. Threads of lines that do not say whose they are belong to `resource`. Rows are
    written in batches of about 1,000, each at once; the file is read in a thread.

    Raises `InvalidRecordError` naming the file and the line that cannot be stored: nothing of
    that line is written then, while the lines before it are.
    """
    stamps = Stamps()
    reader = Reader(
        file,
        name=name,
        tables=load_tables(),
        resource=id_argument(resource, "resource"),
        version=stamps.version(),
        max_bytes=storage.capabilities.max_record_bytes,
    )
    importer = _Importer(storage, stamps)
    try:
        async with aclosing(prefetched(reader.batches())) as batches:
            async for batch in batches:
                with naming(storage, "import"):
                    await importer.store(batch)
                if on_progress is not None:
                    on_progress(importer.done)
    except InvalidRecordError as exc:
        exc.message = (
            f"{exc.message} (stored before it: {_total(importer.done)}; repeating is safe)"
        )
        raise
    return importer.done


def _total(done: Imported) -> str:
    counts = {"thread": done.threads, "message": done.messages, "other row": done.rows}
    said = [f"{n:,} {noun}{'' if n == 1 else 's'}" for noun, n in counts.items() if n]
    return ", ".join(said) or "nothing"


class _Importer:
    """Compares batches with what is stored, and writes what differs."""

    def __init__(self, storage: Storage, stamps: Stamps) -> None:
        self._backend = storage.backend
        self._stamps = stamps
        self._version = ""
        self.done = Imported()

    async def store(self, batch: Batch) -> None:
        """Write what a batch changes, at once."""
        self._version = self._stamps.version()
        threads = await self._stored(
            THREADS, [(chunk.conversation.thread_id,) for chunk in batch.chunks]
        )
        messages = await self._stored(
            MESSAGES, [_key(draft) for chunk in batch.chunks for draft in chunk.drafts]
        )
        puts: list[Op] = []
        touches: list[Op] = []
        for chunk in batch.chunks:
            conversation = chunk.conversation
            old = threads.get((conversation.thread_id,))
            _date(chunk, messages)
            if chunk.first:
                puts += self._thread(chunk, old)
            changed = self._messages(chunk, messages)
            puts += changed
            if changed and conversation.thread is None and old and not conversation.is_new:
                touches.append(Touch(THREADS, old.key, to_microseconds(now())))
        for table, rows in _by_table(batch.rows).items():
            puts += await self._rows(table, rows)
        if puts:
            await self._backend.write([*puts, *touches])
        self._count(batch, len(puts))

    async def _stored(self, table: Table, keys: Sequence[Key]) -> Mapping[Key, Row]:
        """The rows of these keys that are there."""
        rows = await self._backend.get(table, list(dict.fromkeys(keys))) if keys else []
        return {row.key: row for row in rows if row is not None}

    def _thread(self, chunk: Chunk, old: Row | None) -> list[Op]:
        """What makes the thread of a line what the line says."""
        conversation = chunk.conversation
        if conversation.thread is not None:
            row = self._new_row(THREADS, conversation.thread, conversation.unknown)
            return [] if old is not None and _same_thread(old, row) else [Put(row)]
        time = now()
        if old is None:
            conversation.is_new = True
            created = chunk.drafts[0].message.created_at if chunk.drafts else time
            members = {"resource_id": conversation.resource, **conversation.changes}
            record = Thread(
                id=conversation.thread_id,
                created_at=created,
                updated_at=max(created, time),
                **members,
            )
            return [Put(self._new_row(THREADS, record, {}))]
        changes = conversation.changes
        if canonical(merge(THREADS, old.value, changes)) == canonical(old.value):
            return []
        return [Put(updated(old, changes, at=to_microseconds(time), version=self._version))]

    def _messages(self, chunk: Chunk, stored: Mapping[Key, Row]) -> list[Op]:
        """What makes the messages of a line what the line says, in its order.

        A message keeps the place it has, as long as that is behind the message before it.
        """
        conversation = chunk.conversation
        puts: list[Op] = []
        for draft in chunk.drafts:
            old = stored.get(_key(draft))
            order = to_microseconds(draft.message.created_at)
            last = conversation.last
            floor = last[1] if last is not None and last[0] == order else -1
            if old is not None and old.order == order and old.seq > floor:
                seq = old.seq
            else:
                seq = self._stamps.seq(floor)
            conversation.last = order, seq
            row = self._new_row(MESSAGES, draft.message, draft.unknown, seq)
            if old is None or old.seq != seq or not same_row(old, row):
                puts.append(Put(row, keep_place=False))
        return puts

    async def _rows(self, table: Table, rows: Sequence[Row]) -> list[Op]:
        """What makes rows of a table those of row lines."""
        stored = await self._stored(table, [row.key for row in rows])
        time = to_microseconds(now())
        return [
            Put(row, keep_place=False)
            for row in rows
            if (row.expires_at is None or row.expires_at > time)
            and not same_place(stored.get(row.key), row)
        ]

    def _new_row(
        self, table: Table, record: Any, unknown: Mapping[str, Any], seq: int | None = None
    ) -> Row:
        seq = self._stamps.seq() if seq is None else seq
        return with_unknown(table.row(record, seq=seq, version=self._version), unknown)

    def _count(self, batch: Batch, written: int) -> None:
        done = self.done
        done.threads += sum(chunk.first for chunk in batch.chunks)
        done.messages += sum(len(chunk.drafts) for chunk in batch.chunks)
        done.rows += len(batch.rows)
        done.written += written
        done.unchanged += batch.size - written
        done.bytes = batch.end


def _key(draft: Draft) -> Key:
    return draft.message.thread_id, draft.message.id


def _date(chunk: Chunk, stored: Mapping[Key, Row]) -> None:
    """Give the messages that have no time one: that of the first import, and their position."""
    conversation = chunk.conversation
    undated = [draft for draft in chunk.drafts if not draft.timed]
    if not undated:
        return
    if conversation.began is None:
        there = ((draft, stored.get(_key(draft))) for draft in undated)
        times = (
            from_microseconds(row.order - draft.position) for draft, row in there if row is not None
        )
        conversation.began = next(times, None) or now()
    for draft in undated:
        draft.message.created_at = conversation.began + timedelta(microseconds=draft.position)


def _same_thread(old: Row, new: Row) -> bool:
    """Whether a stored thread is the new one, perhaps moved on since."""
    return (
        old.order == new.order
        and old.recent >= new.updated
        and old.expires_at == new.expires_at
        and stated(old.fields) == stated(new.fields)
        and _without_update(old.value) == _without_update(new.value)
    )


def _without_update(value: bytes) -> dict[str, bytes]:
    members = msgspec.json.decode(value, type=dict[str, msgspec.Raw])
    return {name: canonical(bytes(raw)) for name, raw in members.items() if name != "updatedAt"}


def _by_table(rows: Sequence[Row]) -> dict[Table, list[Row]]:
    """Rows in groups of one table; the last of those with one key."""
    found: dict[Table, dict[Key, Row]] = {}
    for row in rows:
        found.setdefault(row.table, {})[row.key] = row
    return {table: list(group.values()) for table, group in found.items()}
