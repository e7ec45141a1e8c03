"""Failures, lost answers, closing and reopening."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import pytest
import pytest_asyncio

from mastra_storage.errors import (
    InvalidArgumentError,
    NotFoundError,
    RateLimitedError,
    StorageError,
    UnavailableError,
)
from mastra_storage.records import Eval, Include, MessageUpdate, Resource, Trace
from mastra_storage.storage import Storage
from mastra_storage.testing._waiting import until
from mastra_storage.testing.faults import FaultyBackend
from mastra_storage.testing.suite._base import Base, MakeBackend, OpenStore
from mastra_storage.testing.suite._build import contents, messages, thread_with

Call = Callable[[Storage], Awaitable[Any]]

READS: dict[str, Call] = {
    "get_thread_by_id": lambda s: s.get_thread_by_id("t"),
    "get_threads_by_resource_id": lambda s: s.get_threads_by_resource_id("r"),
    "list_threads": lambda s: s.list_threads(),
    "get_messages": lambda s: s.get_messages("t"),
    "get_messages with include": lambda s: s.get_messages("t", include=[Include("m0", next=1)]),
    "get_messages of a resource": lambda s: s.get_messages("t", resource_id="r"),
    "get_messages_paginated": lambda s: s.get_messages_paginated("t"),
    "get_messages_by_id": lambda s: s.get_messages_by_id("t", ["m0"]),
    "load_workflow_snapshot": lambda s: s.load_workflow_snapshot("w", "1"),
    "get_workflow_run": lambda s: s.get_workflow_run("1"),
    "get_workflow_runs": lambda s: s.get_workflow_runs(),
    "get_trace": lambda s: s.get_trace("x"),
    "get_traces": lambda s: s.get_traces(),
    "get_traces by attributes": lambda s: s.get_traces(attributes={"a": 1}),
    "get_eval": lambda s: s.get_eval("e"),
    "get_evals": lambda s: s.get_evals(),
    "get_resource": lambda s: s.get_resource("r"),
    "load": lambda s: s.load("threads", id="t"),
}

WRITES: dict[str, Call] = {
    "save_messages": lambda s: s.save_messages(messages("t", "xyz")),
    "update_thread": lambda s: s.update_thread("t", title="new"),
    "update_messages": lambda s: s.update_messages("t", [MessageUpdate("m0", content="new")]),
    "delete_messages": lambda s: s.delete_messages("t", ["m0", "m1"]),
    "delete_thread": lambda s: s.delete_thread("t"),
    "persist_workflow_snapshot": lambda s: s.persist_workflow_snapshot("w", "1", {}),
    "save_trace": lambda s: s.save_trace(Trace(id="x")),
    "save_eval": lambda s: s.save_eval(Eval(id="e", agent_name="a")),
    "save_resource": lambda s: s.save_resource(Resource(id="r")),
    "update_resource": lambda s: s.update_resource("r", working_memory="x"),
    "clear_table": lambda s: s.clear_table("messages"),
}


class FaultTests(Base):
    @pytest_asyncio.fixture(loop_scope="function")
    async def faulty(self, make_backend: MakeBackend) -> AsyncIterator[Storage]:
        """A store whose backend is a `FaultyBackend`."""
        async with self.opened(FaultyBackend(make_backend())) as storage:
            yield storage

    def faults(self, storage: Storage) -> FaultyBackend:
        assert isinstance(storage.backend, FaultyBackend)
        return storage.backend

    async def everything(self, storage: Storage) -> list[Any]:
        """All that these tests write, to tell whether anything has changed."""
        return [
            await storage.get_thread_by_id("t"),
            await storage.get_messages("t"),
            (await storage.get_workflow_runs()).items,
            (await storage.get_traces()).items,
            (await storage.get_evals()).items,
            await storage.get_resource("r"),
        ]

    async def test_a_failed_read_is_an_error_and_never_empty(self, faulty: Storage) -> None:
        await thread_with(faulty, messages("t", "ab"))
        faults = self.faults(faulty)
        for name, read in READS.items():
            error = RateLimitedError("a planted fault", retry_after=1)
            for verb in ("get", "query"):
                faults.fail(verb, error=error)
            with pytest.raises(RateLimitedError) as caught:
                await read(faulty)
            faults.heal()
            assert caught.value is error, name
            assert (error.backend, error.retryable) == (faults.name, True)
            assert error.operation == name.split()[0]
        assert contents(await faulty.get_messages("t")) == ["a", "b"]

    async def test_iterating_and_watching_raise_what_fails(self, faulty: Storage) -> None:
        await thread_with(faulty, messages("t", "abc"))
        faults = self.faults(faulty)
        faults.fail("query", nth=2)
        iterator = faulty.iter_messages("t", batch_size=2)
        assert [(await anext(iterator)).content for _ in range(2)] == ["a", "b"]
        with pytest.raises(UnavailableError):
            await anext(iterator)
        faults.fail("watch" if faulty.capabilities.watch else "query")
        async with aclosing(faulty.watch_messages("t")) as values:
            with pytest.raises(UnavailableError):
                async with asyncio.timeout(self.watch_delay):
                    await anext(values)

    async def test_without_count_nothing_is_counted(self, faulty: Storage) -> None:
        await thread_with(faulty, messages("t", "ab"))
        self.faults(faulty).fail("query", times=99, matching=lambda query: query.count)
        for listing in (
            faulty.list_threads(count=False),
            faulty.list_threads(metadata={}, per_page=1, count=False),
            faulty.get_messages_paginated("t", per_page=1, count=False),
            faulty.get_workflow_runs(count=False),
            faulty.get_traces(attributes={"a": 1}, count=False),
            faulty.get_evals(count=False),
        ):
            assert (await listing).total is None

    async def test_a_write_that_fails_changes_nothing(self, faulty: Storage) -> None:
        await thread_with(faulty, messages("t", "ab"))
        before = await self.everything(faulty)
        for name, write in WRITES.items():
            self.faults(faulty).fail("write")
            with pytest.raises(UnavailableError) as caught:
                await write(faulty)
            assert caught.value.operation == name
            assert await self.everything(faulty) == before

    async def test_a_write_whose_answer_was_lost_is_simply_repeated(self, faulty: Storage) -> None:
        await thread_with(faulty)
        batch = messages("t", "abc", step=0)
        for attempt in range(2):
            self.faults(faulty).fail("write", after=True)
            with pytest.raises(UnavailableError):
                await faulty.save_messages(batch[:2])
            assert contents(await faulty.get_messages("t")) == ["a", "b"], attempt
        await faulty.save_message(batch[2])
        await faulty.save_messages(batch[:2])
        assert await faulty.get_messages("t") == batch
        for _ in range(2):
            self.faults(faulty).fail("write", after=True)
            with pytest.raises(UnavailableError):
                await faulty.delete_messages("t", ["m0"])
        await faulty.delete_messages("t", ["m0"])
        assert contents(await faulty.get_messages("t")) == ["b", "c"]

    async def test_a_delete_whose_answer_was_lost_has_happened(self, faulty: Storage) -> None:
        await thread_with(faulty, messages("t", "ab"))
        self.faults(faulty).fail("write", after=True)
        with pytest.raises(UnavailableError):
            await faulty.delete_thread("t")
        with pytest.raises(NotFoundError):
            await faulty.delete_thread("t")
        assert await faulty.get_messages("t") == []

    async def test_cancellation_reaches_the_caller(self, faulty: Storage) -> None:
        await thread_with(faulty)
        for after in (False, True):
            self.faults(faulty).cancel("write", after=after)
            task = asyncio.ensure_future(faulty.save_messages(messages("t", "ab")))
            await asyncio.wait([task])
            assert task.cancelled()
            stored = contents(await faulty.get_messages("t"))
            assert stored == (["a", "b"] if after else [])

    async def test_a_call_that_takes_too_long_can_be_given_up(self, faulty: Storage) -> None:
        await thread_with(faulty)
        self.faults(faulty).delay("write", seconds=30)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await faulty.update_thread("t", title="new")
        assert (await faulty.update_thread("t", title="newer")).title == "newer"

    async def test_what_was_acknowledged_is_there_for_others(self, open_store: OpenStore) -> None:
        one, other = await open_store(), await open_store()
        await thread_with(one)
        batch = messages("t", "abc")
        await one.save_messages(batch)
        within = self.settling(one.backend)
        found = await until(lambda: other.get_messages("t"), lambda f: len(f) == 3, within)
        assert found == batch
        await other.update_messages("t", [MessageUpdate("m1", content="B")])
        found = await until(
            lambda: one.get_messages("t"), lambda f: contents(f) == ["a", "B", "c"], within
        )
        assert contents(found) == ["a", "B", "c"]
        await one.delete_messages("t", ["m0"])
        found = await until(lambda: other.get_messages("t"), lambda f: len(f) == 2, within)
        assert contents(found) == ["B", "c"]

    async def test_what_was_acknowledged_is_there_after_reopening(
        self, make_backend: MakeBackend
    ) -> None:
        batch = messages("t", range(6))
        async with Storage(make_backend()) as storage:
            thread = await thread_with(storage, batch[:2])
            await asyncio.gather(*[storage.save_message(message) for message in batch[2:5]])
            await storage.persist_workflow_snapshot("w", "1", {"step": 1})
            await storage.save_trace(Trace(id="x"))
            await storage.save_eval(Eval(id="e", agent_name="a"))
            await storage.update_resource("r", working_memory="memory")
            written = await self.everything(storage)
            await storage.save_message(batch[5])  # nothing is read between this and the end
        async with Storage(make_backend()) as storage:
            expected = [batch, *written[2:]]
            found = await until(
                lambda: self.everything(storage),
                lambda found: (
                    found[1:] == expected
                    and found[0] is not None
                    and found[0].updated_at > thread.updated_at
                ),
                self.settling(storage.backend),
            )
            assert found[1:] == expected
            assert found[0].created_at == thread.created_at
            assert found[0].updated_at > thread.updated_at

    async def test_a_store_that_is_not_open_says_so(self, make_backend: MakeBackend) -> None:
        storage = Storage(make_backend())
        for call in [*READS.values(), *WRITES.values()]:
            with pytest.raises(UnavailableError):
                await call(storage)
        async with storage:
            with pytest.raises(InvalidArgumentError):
                await storage.open()
        await storage.close()
        for call in [*READS.values(), *WRITES.values()]:
            with pytest.raises(UnavailableError):
                await call(storage)

    async def test_a_store_that_cannot_be_opened_is_closed_again(
        self, make_backend: MakeBackend
    ) -> None:
        faulty = FaultyBackend(make_backend())
        faulty.fail("open", after=True)
        with pytest.raises(StorageError) as caught:
            await Storage(faulty).open()
        assert (caught.value.backend, caught.value.operation) == (faulty.name, "open")
        assert faulty.calls["close"] == 1
