"""Calls that are cancelled: nothing is half done, and whoever cancelled learns of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from mastra_storage.backend import Put, Query
from mastra_storage.records import Message
from mastra_storage.schema import THREADS
from mastra_storage.storage import Storage
from mastra_storage.testing.suite._base import Base, full
from mastra_storage.testing.suite._build import contents, ids, messages, stored, thread_with
from mastra_storage.testing.suite.faults import READS, WRITES, Call

_STEPS = 8


class CancellationTests(Base):
    async def test_a_cancelled_verb_raises_the_cancellation(self, storage: Storage) -> None:
        """A verb that catches it and goes on cannot be ended by `asyncio.timeout`."""
        await thread_with(storage)
        backend = storage.backend
        row = await stored(backend, THREADS, "t")
        verbs: dict[str, Callable[[], Awaitable[Any]]] = {
            "get": lambda: backend.get(THREADS, [row.key]),
            "query": lambda: backend.query(Query(table=THREADS)),
            "write": lambda: backend.write([Put(row)]),
            "tables": backend.tables,
        }
        for verb, call in verbs.items():
            for steps in range(_STEPS):
                task = asyncio.ensure_future(call())
                for _ in range(steps):
                    await asyncio.sleep(0)
                if task.cancel():
                    ended = await asyncio.gather(task, return_exceptions=True)
                    assert task.cancelled(), f"`{verb}` was cancelled, and ended with {ended[0]!r}"

    async def cancelled_after(self, storage: Storage, call: Call, steps: int) -> bool:
        """Cancel a call after so many steps of the loop; whether it was still running."""
        task = asyncio.ensure_future(call(storage))
        for _ in range(steps):
            await asyncio.sleep(0)
        running = task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return running

    async def cancel_saves(self, storage: Storage, most: int) -> None:
        await thread_with(storage)
        for steps in range(most):
            batch = [
                Message(id=f"{steps}/{n}", thread_id="t", role="user", content=n) for n in range(3)
            ]
            running = await self.cancelled_after(storage, lambda s: s.save_messages(batch), steps)  # noqa: B023
            await storage.save_message(Message(id="last", thread_id="t", role="user", content=0))
            found = [id for id in ids(await storage.get_messages("t")) if id != "last"]
            stored = [id for id in found if id.startswith(f"{steps}/")]
            if storage.capabilities.atomic:
                assert stored in ([], ids(batch)), f"cancelled after {steps} steps"
            if not running:
                assert stored == ids(batch)
            assert len(set(found)) == len(found)

    async def test_a_cancelled_save_is_whole_or_nothing(self, storage: Storage) -> None:
        await self.cancel_saves(storage, 3)

    @full
    async def test_a_save_may_be_cancelled_at_any_await(self, storage: Storage) -> None:
        await self.cancel_saves(storage, 40)

    @full
    async def test_any_call_may_be_cancelled_at_any_await(self, storage: Storage) -> None:
        await thread_with(storage, messages("t", "ab"))
        for call in [*READS.values(), *WRITES.values()]:
            for steps in range(8):
                await self.cancelled_after(storage, call, steps)
            if await storage.get_thread_by_id("t") is None:
                assert await storage.get_messages("t") == []
            await thread_with(storage, messages("t", "ab"))
            assert contents(await storage.get_messages("t"))[:2] == ["a", "b"]

    async def test_a_cancelled_call_harms_no_other(self, storage: Storage) -> None:
        await thread_with(storage)
        batch = messages("t", range(4))
        tasks = [asyncio.ensure_future(storage.save_message(message)) for message in batch]
        await asyncio.sleep(0)
        tasks[1].cancel()
        tasks[2].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        kept = [m for n, m in enumerate(batch) if n not in (1, 2)]
        found = await storage.get_messages("t")
        assert [message for message in found if message in kept] == kept
