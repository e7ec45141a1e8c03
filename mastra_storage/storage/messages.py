"""Messages of a thread, in order."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from datetime import datetime

from msgspec import structs

from mastra_storage.arguments import (
    Direction,
    count_argument,
    descending_argument,
    filter_argument,
    id_argument,
    list_argument,
)
from mastra_storage.backend import Delete, Op, Put, Query, Touch
from mastra_storage.errors import InvalidArgumentError, NotFoundError, StorageError
from mastra_storage.records import Include, Message, MessageUpdate, Page
from mastra_storage.schema import MESSAGES, THREADS, Key, Row
from mastra_storage.storage._engine import operation, stream, together, unique
from mastra_storage.storage._message_updates import MessageUpdates

__all__ = ["Messages"]


class Messages(MessageUpdates):
    """The message methods of `Storage`."""

    @operation
    async def save_message(self, message: Message) -> Message:
        """Store a message, in place of the one with its id in its thread if there is one.

        Gives the message as stored. Raises `InvalidRecordError`, and `NotFoundError` when its
        thread is not there.
        """
        [saved] = await self._save_messages([message])
        return saved

    @operation
    async def save_messages(self, messages: Iterable[Message]) -> list[Message]:
        """Store messages in the order given, all of them or (where the backend is atomic) none.

        They may belong to several threads. Messages of equal `created_at` keep the order of the
        batch. Raises `InvalidRecordError` before anything is written, and `NotFoundError`
        when a thread is not there.
        """
        return await self._save_messages(messages)

    async def _save_messages(self, messages: Iterable[Message]) -> list[Message]:
        saved, rows = await self._rows(MESSAGES, messages, "messages")
        if rows:
            await self._write_touching(
                {row.key[0] for row in rows}, [Put(row) for row in unique(rows)]
            )
        return saved

    @operation
    async def get_messages(
        self,
        thread_id: str,
        *,
        last: int | None = None,
        include: Iterable[Include] = (),
        resource_id: str | None = None,
        from_date: datetime | None = None,
        to_date: datetime | None = None,
    ) -> list[Message]:
        """Messages of a thread, oldest first.

        `last=N` gives the newest N, `from_date` and `to_date` (both included) limit them in time.
        The first of the newest N may be the answer of a tool whose call was left out.
        `include` adds single messages with their neighbours, also of other threads, whatever
        `last` and the dates say; `last=0` with `include` gives those alone. With `resource_id`
        nothing of another resource is given.
        """
        query = self._messages_query(thread_id, resource_id, from_date, to_date)
        if last is not None:
            query = structs.replace(query, limit=count_argument(last, "last"), descending=True)
        windows = [_checked_include(item, thread_id) for item in list_argument(include, "include")]
        if resource_id is None and not windows:
            return await self._plainly(query)
        rows, found, allowed = await together(
            self._all(query),
            self._windows(windows, query),
            self._owned(query, windows, resource_id),
        )
        kept = {row.key: row for row in [*rows, *found] if row.key[0] in allowed}
        ordered = sorted(kept.values(), key=lambda row: (row.order, row.seq, row.key))
        return MESSAGES.records_of(ordered)

    async def _plainly(self, query: Query) -> list[Message]:
        """The messages of a query, oldest first, by their values alone."""
        rows = await self._all(structs.replace(query, bare=True))
        try:
            return _oldest_first(rows, query)
        except StorageError:  # which row it is, their keys say
            return _oldest_first(await self._all(query), query)

    @operation
    async def get_messages_paginated(
        self,
        thread_id: str,
        *,
        direction: Direction = "asc",
        resource_id: str | None = None,
        from_date: datetime | None = None,
        to_date: datetime | None = None,
        page: int = 0,
        per_page: int | None = 40,
        cursor: str | None = None,
        count: bool = True,
    ) -> Page[Message]:
        """A page of a thread's messages, oldest first ("asc") or newest first ("desc").

        `page` counts from 0 and has `per_page` messages; `per_page=None` puts all on page 0.
        `cursor` is an earlier page's `next_cursor`, and stands in place of `page`. With
        `count=False` the page has no `total`, and nothing is read for it. The rest as in
        `get_messages`.
        """
        query = self._messages_query(thread_id, resource_id, from_date, to_date)
        query = structs.replace(query, descending=descending_argument(direction))
        found, allowed = await together(
            self._page(query, page=page, per_page=per_page, cursor=cursor, count=count),
            self._owned(query, [], resource_id),
        )
        if thread_id in allowed:
            return found  # type: ignore[no-any-return]
        return Page(items=[], total=0 if count else None, page=found.page, per_page=per_page)

    @stream
    async def iter_messages(
        self, thread_id: str, *, direction: Direction = "asc", batch_size: int = 100
    ) -> AsyncGenerator[Message, None]:
        """The messages of a thread one by one, read `batch_size` at a time.

        Messages added behind the reader's place are given too, until its last batch is read.
        """
        query = Query(
            table=MESSAGES,
            prefix=(id_argument(thread_id, "thread_id"),),
            descending=descending_argument(direction),
        )
        size = count_argument(batch_size, "batch_size", least=1)
        while True:
            rows, _, end = await self._find(query, size)
            for row in rows:
                yield MESSAGES.record_of(row)
            if end is None:
                return
            query = structs.replace(query, after=end)

    @operation
    async def get_messages_by_id(self, thread_id: str, ids: Sequence[str]) -> list[Message]:
        """The messages of a thread with these ids, in the order asked, without those not there."""
        keys = _keys(thread_id, ids)
        rows = await self.backend.get(MESSAGES, keys) if keys else []
        return MESSAGES.records_of([row for row in rows if row is not None])

    @operation
    async def update_messages(
        self, thread_id: str, updates: Iterable[MessageUpdate]
    ) -> list[Message]:
        """Change messages of a thread; gives those that were found, as they are now.

        What an update does not give stays, and so does the message's place. A new `thread_id`
        moves the message: `NotFoundError` when that thread is not there, `ConflictError` when
        it has a message of that id already. All updates happen, or none (where the backend is
        atomic).
        """
        rows = await self._update(id_argument(thread_id, "thread_id"), updates)
        return MESSAGES.records_of(rows)

    @operation
    async def delete_messages(self, thread_id: str, ids: Sequence[str]) -> None:
        """Delete messages of a thread; ids that are not there are passed over."""
        keys = _keys(thread_id, ids)
        if not keys:
            return
        deletes = [Delete(MESSAGES, key) for key in keys]
        try:
            await self._write_touching({thread_id}, deletes)
        except NotFoundError:
            await self._write(*deletes)  # rows that `insert` put there without a thread

    # -- parts -------------------------------------------------------------------------------

    def _messages_query(
        self,
        thread_id: str,
        resource_id: str | None,
        from_date: datetime | None,
        to_date: datetime | None,
    ) -> Query:
        owner = filter_argument(resource_id, "resource_id")
        query = self._listing(
            MESSAGES, {}, from_date, to_date, prefix=(id_argument(thread_id, "thread_id"),)
        )
        # A message without a resource id belongs to whoever its thread belongs to.
        fields = {} if owner is None else {"resource_id": ("", owner)}
        return structs.replace(query, fields=fields, descending=False)

    async def _owned(
        self, query: Query, windows: Sequence[Include], resource_id: str | None
    ) -> set[str]:
        """Those of the threads asked for that may be read as `resource_id`."""
        threads = list(dict.fromkeys([query.prefix[0], *[str(item.thread_id) for item in windows]]))
        if resource_id is None:
            return set(threads)
        rows = await self.backend.get(THREADS, [(thread,) for thread in threads])
        return {row.key[0] for row in rows if row and row.fields.get("resource_id") == resource_id}

    async def _windows(self, windows: Sequence[Include], query: Query) -> list[Row]:
        """The included messages with their neighbours, as far as the query's filter allows."""
        if not windows:
            return []
        keys = [(str(item.thread_id), item.id) for item in windows]
        targets = await self.backend.get(MESSAGES, keys)
        found: list[Row] = []
        sides = []
        for item, target in zip(windows, targets, strict=True):
            if target is None or not all(
                target.fields.get(name, "") in values for name, values in query.fields.items()
            ):
                continue
            found.append(target)
            for limit, descending in ((item.previous, True), (item.next, False)):
                if limit:
                    side = Query(
                        table=MESSAGES,
                        prefix=target.key[:1],
                        fields=query.fields,
                        descending=descending,
                        limit=limit,
                    )
                    side = structs.replace(side, after=side.position(target))
                    sides.append(self._all(side))
        for rows in await together(*sides):
            found += rows
        return found

    async def _write_touching(self, threads: Iterable[str], ops: Sequence[Op]) -> None:
        """Write, and move `updated_at` of the threads forward; `NotFoundError` without a thread."""
        at = self._now()
        await self._write(*ops, *[Touch(THREADS, (thread,), at) for thread in threads])


def _oldest_first(rows: Sequence[Row], query: Query) -> list[Message]:
    return MESSAGES.records_of(rows[::-1] if query.descending else rows)


def _checked_include(item: Include, thread_id: str) -> Include:
    if not isinstance(item, Include):
        raise InvalidArgumentError(f"include takes Include objects, not {type(item).__name__}")
    return Include(
        id=id_argument(item.id, "Include.id"),
        thread_id=id_argument(
            thread_id if item.thread_id is None else item.thread_id, "Include.thread_id"
        ),
        previous=count_argument(item.previous, "Include.previous"),
        next=count_argument(item.next, "Include.next"),
    )


def _keys(thread_id: str, ids: Sequence[str]) -> list[Key]:
    thread_id = id_argument(thread_id, "thread_id")
    return [(thread_id, id_argument(message_id, "ids")) for message_id in list_argument(ids, "ids")]
