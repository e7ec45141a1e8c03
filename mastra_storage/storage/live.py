"""Live queries: the current value, then the newest after each change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from typing import Any, TypeVar, cast

from mastra_storage.arguments import count_argument, filter_argument, id_argument
from mastra_storage.backend import Query, Result
from mastra_storage.errors import UnavailableError
from mastra_storage.records import Message, Thread, WorkflowRun
from mastra_storage.schema import MESSAGES, THREADS, WORKFLOW_SNAPSHOT, Row
from mastra_storage.storage._engine import Engine, stream
from mastra_storage.storage.workflows import workflow_run_query

__all__ = ["Live"]

T = TypeVar("T")


class Live(Engine):
    """The live methods of `Storage`.

    Each gives the current value at once and the newest value after each change, by whatever
    store or process, until the storage is closed or the caller stops: a loop over one does not
    end by itself. A slow reader skips values, it never queues them. Leave one by `aclosing`:

        async with aclosing(storage.watch_messages("t1")) as states:
            async for messages in states: ...

    Where the backend cannot watch (`capabilities.watch`), it is read anew every
    `capabilities.poll_interval` seconds.
    """

    @stream
    def watch_messages(
        self, thread_id: str, *, last: int = 100
    ) -> AsyncGenerator[list[Message], None]:
        """The newest `last` messages of a thread, oldest first; live, whole after each change."""
        query = Query(
            table=MESSAGES,
            prefix=(id_argument(thread_id, "thread_id"),),
            descending=True,
            limit=count_argument(last, "last", least=1),
        )
        return self._live(query, lambda rows: MESSAGES.records_of(rows[::-1]))

    @stream
    def watch_thread(self, thread_id: str) -> AsyncGenerator[Thread | None, None]:
        """A thread, live; `None` while it is not there."""
        query = Query(table=THREADS, prefix=(id_argument(thread_id, "thread_id"),), limit=1)
        return self._live(query, lambda rows: THREADS.record_of(rows[0]) if rows else None)

    @stream
    def watch_threads(self, resource_id: str) -> AsyncGenerator[list[Thread], None]:
        """All threads of a resource, newest first; live, whole after each change."""
        owner = id_argument(resource_id, "resource_id")
        query = Query(table=THREADS, fields={"resource_id": (owner,)}, descending=True)
        return self._live(query, THREADS.records_of)

    @stream
    def watch_workflow_run(
        self, run_id: str, *, workflow_name: str | None = None
    ) -> AsyncGenerator[WorkflowRun | None, None]:
        """A workflow run, live, found as by `get_workflow_run`; `None` while it is not there."""
        query = workflow_run_query(id_argument(run_id, "run_id"))
        name = filter_argument(workflow_name, "workflow_name")
        if name is not None:
            query = Query(table=WORKFLOW_SNAPSHOT, prefix=(name, run_id), limit=1)
        return self._live(
            query, lambda rows: WORKFLOW_SNAPSHOT.record_of(rows[0]) if rows else None
        )

    async def _live(self, query: Query, build: Callable[[list[Row]], T]) -> AsyncGenerator[T, None]:
        seen: Any = None
        source = self.backend.watch(query) if self.capabilities.watch else self._poll(query)
        async with aclosing(cast(AsyncGenerator[Result, None], source)) as results:
            async for result in results:
                state = [(row.key, row.version, row.touched) for row in result.rows]
                if state != seen:
                    seen = state
                    yield build(result.rows)

    async def _poll(self, query: Query) -> AsyncGenerator[Result, None]:
        """Look again and again, where the backend cannot watch."""
        while self._opened:
            try:
                result = Result(rows=await self._all(query))
            except UnavailableError:
                if self._opened:
                    raise
                return  # closed while it looked
            yield result
            with suppress(TimeoutError):
                async with asyncio.timeout(self.capabilities.poll_interval):
                    await self._closed.wait()
