"""Threads: conversations of a resource."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from mastra_storage.arguments import (
    Direction,
    choice_argument,
    descending_argument,
    filter_argument,
    id_argument,
    object_argument,
)
from mastra_storage.backend import Delete, DeletePrefix, Query, Touch
from mastra_storage.records import Page, Thread
from mastra_storage.schema import MESSAGES, THREADS, Row
from mastra_storage.storage._engine import Engine, holds, no_thread, operation
from mastra_storage.storage._merge import updated
from mastra_storage.validation import check_members

__all__ = ["Threads"]


class Threads(Engine):
    """The thread methods of `Storage`."""

    @operation
    async def save_thread(self, thread: Thread) -> Thread:
        """Store a thread, in place of the one with its id if there is one.

        Gives the thread as written. What messages saved before have made of its `updated_at`
        stays, where that is later. Raises `InvalidRecordError`.
        """
        [saved] = await self._save(THREADS, [thread])
        return saved

    @operation
    async def get_thread_by_id(
        self, thread_id: str, *, resource_id: str | None = None
    ) -> Thread | None:
        """The thread, or `None`. With `resource_id`, a thread of another resource is `None` too."""
        thread_id = id_argument(thread_id, "thread_id")
        owner = filter_argument(resource_id, "resource_id")
        row = await self._get(THREADS, thread_id)
        if row is None:
            return None
        thread: Thread = THREADS.record_of(row)
        return thread if owner is None or thread.resource_id == owner else None

    @operation
    async def get_threads_by_resource_id(self, resource_id: str) -> list[Thread]:
        """All threads of a resource, newest first."""
        owner = id_argument(resource_id, "resource_id")
        rows = await self._all(
            Query(table=THREADS, fields={"resource_id": (owner,)}, descending=True)
        )
        return THREADS.records_of(rows)

    @operation
    async def list_threads(
        self,
        *,
        resource_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        order_by: Literal["created_at", "updated_at"] = "created_at",
        direction: Direction = "desc",
        page: int = 0,
        per_page: int | None = 100,
        cursor: str | None = None,
        count: bool = True,
    ) -> Page[Thread]:
        """A page of threads, newest first.

        `metadata` keeps the threads whose metadata has these members with these values; it is
        not indexed, so every candidate is read. `order_by` is "created_at" or "updated_at",
        `direction` "asc" or "desc". The rest as in `get_messages_paginated`.
        """
        owner = filter_argument(resource_id, "resource_id")
        wanted = object_argument(metadata, "metadata")
        ordered = choice_argument(order_by, "order_by", ("created_at", "updated_at"))
        query = Query(
            table=THREADS,
            fields={} if owner is None else {"resource_id": (owner,)},
            order_by="recent" if ordered == "updated_at" else "created",
            descending=descending_argument(direction),
        )
        return await self._page(
            query,
            page=page,
            per_page=per_page,
            cursor=cursor,
            count=count,
            accept=(lambda thread: holds(thread.metadata, wanted)) if wanted else None,
            accept_id=wanted,
        )

    @operation
    async def update_thread(
        self,
        thread_id: str,
        *,
        title: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Thread:
        """Change a thread's title, and merge members into its metadata; `None` changes nothing.

        Gives the thread as it is now. Raises `NotFoundError` when there is no such thread.
        """
        thread_id = id_argument(thread_id, "thread_id")
        given = {"title": title, "metadata": metadata}
        changes = check_members(Thread, {k: v for k, v in given.items() if v is not None})

        def change(old: Row | None) -> Row:
            if old is None:
                raise no_thread(thread_id)
            return updated(old, changes, at=self._now(), version=self._version())

        return THREADS.record_of(await self._change(THREADS, (thread_id,), change))  # type: ignore[no-any-return]

    @operation
    async def delete_thread(self, thread_id: str) -> None:
        """Delete a thread and all its messages. Raises `NotFoundError` when it is not there."""
        thread_id = id_argument(thread_id, "thread_id")
        key = (thread_id,)
        # A thread that is not there cannot be touched: no read is needed to tell.
        touch = Touch(THREADS, key, self._now())
        await self._write(touch, DeletePrefix(MESSAGES, key), Delete(THREADS, key))
