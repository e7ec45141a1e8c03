"""Live queries, by the backend's own watch where it has one, and by the engine's polling."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import TypeVar

import pytest
import pytest_asyncio
from msgspec import structs

from mastra_storage.backend import Backend, Query
from mastra_storage.errors import InvalidArgumentError
from mastra_storage.records import Message, MessageUpdate, Thread
from mastra_storage.storage import Storage
from mastra_storage.testing._wrapper import Wrapper
from mastra_storage.testing.suite._base import Base, MakeBackend, full, require
from mastra_storage.testing.suite._build import (
    ROWS,
    at,
    contents,
    ids,
    messages,
    put,
    row,
    thread_with,
)

T = TypeVar("T")

_POLL_INTERVAL = 0.02


class _Polled(Wrapper):
    """A backend that the engine must poll, often."""

    def __init__(self, wrapped: Backend) -> None:
        super().__init__(wrapped)
        self.capabilities = structs.replace(
            wrapped.capabilities, watch=False, poll_interval=_POLL_INTERVAL
        )


class LiveTests(Base):
    @pytest_asyncio.fixture(loop_scope="function", params=["own", "polled"])
    async def watching(
        self, make_backend: MakeBackend, request: pytest.FixtureRequest
    ) -> AsyncIterator[Storage]:
        """A store that watches as the backend does, and one that polls."""
        backend = make_backend()
        if request.param == "polled":
            backend = _Polled(backend)
        else:
            require(backend, "watch")
        async with self.opened(backend) as storage:
            yield storage

    async def first(self, values: AsyncGenerator[T, None]) -> T:
        """The state at the beginning."""
        async with asyncio.timeout(self.watch_delay):
            return await anext(values)

    async def shows(self, values: AsyncGenerator[T, None], good: Callable[[T], bool]) -> T:
        """The first value that is `good`."""
        async with asyncio.timeout(self.watch_delay):
            async for value in values:
                if good(value):
                    return value
        pytest.fail("the live query ended")

    async def test_messages_are_watched(self, watching: Storage) -> None:
        await thread_with(watching, messages("t", "abc"))
        async with aclosing(watching.watch_messages("t", last=2)) as values:
            assert contents(await self.first(values)) == ["b", "c"]
            await watching.save_message(
                Message(id="new", thread_id="t", role="user", content="d", created_at=at(9))
            )
            await self.shows(values, lambda found: contents(found) == ["c", "d"])
            await watching.update_messages("t", [MessageUpdate("new", content="D")])
            await self.shows(values, lambda found: contents(found) == ["c", "D"])
            await watching.delete_messages("t", ["m2"])
            await self.shows(values, lambda found: contents(found) == ["b", "D"])
            await watching.delete_thread("t")
            await self.shows(values, lambda found: found == [])

    async def test_a_thread_is_watched_from_before_it_is_there(self, watching: Storage) -> None:
        async with aclosing(watching.watch_thread("t")) as values:
            assert await self.first(values) is None
            saved = await thread_with(watching)
            assert await self.shows(values, bool) == saved
            await watching.update_thread("t", title="new")
            await self.shows(values, lambda thread: thread is not None and thread.title == "new")
            before = await watching.get_thread_by_id("t")
            assert before is not None
            await watching.save_message(Message(thread_id="t", role="user", content="hi"))
            await self.shows(values, lambda t: t is not None and t.updated_at > before.updated_at)
            await watching.delete_thread("t")
            await self.shows(values, lambda thread: thread is None)

    async def test_threads_of_a_resource_are_watched(self, watching: Storage) -> None:
        async with aclosing(watching.watch_threads("r")) as values:
            assert await self.first(values) == []
            for number, owner in enumerate(["r", "other", "r"]):
                await watching.save_thread(
                    Thread(id=f"t{number}", resource_id=owner, created_at=at(number))
                )
            await self.shows(values, lambda found: ids(found) == ["t2", "t0"])
            await watching.delete_thread("t2")
            await self.shows(values, lambda found: ids(found) == ["t0"])

    async def test_a_workflow_run_is_watched(self, watching: Storage) -> None:
        named = watching.watch_workflow_run("1", workflow_name="w")
        async with aclosing(named), aclosing(watching.watch_workflow_run("1")) as values:
            assert await self.first(named) is None
            assert await self.first(values) is None
            for step in ("running", "done"):
                await watching.persist_workflow_snapshot("w", "1", {"status": step})
                await self.shows(values, lambda r: r is not None and r.status == step)  # noqa: B023
                await self.shows(named, lambda r: r is not None and r.status == step)  # noqa: B023

    async def test_a_slow_reader_gets_the_newest_and_no_queue(self, watching: Storage) -> None:
        await thread_with(watching)
        async with aclosing(watching.watch_messages("t")) as values:
            assert await self.first(values) == []
            for message in messages("t", range(4)):
                await watching.save_message(message)
            await asyncio.sleep(5 * _POLL_INTERVAL)
            async with asyncio.timeout(self.watch_delay):
                seen = [contents(await anext(values))]
                if seen[-1] != list(range(4)):  # one that was on its way
                    seen.append(contents(await anext(values)))
            assert seen[-1] == list(range(4))

    @full
    async def test_changes_elsewhere_are_not_given(self, watching: Storage) -> None:
        await thread_with(watching, messages("t", "a"))
        await thread_with(watching, id="u")
        async with aclosing(watching.watch_messages("t")) as values:
            await self.first(values)
            waiting = asyncio.ensure_future(anext(values))
            await watching.save_messages(messages("u", "b"))
            done, _ = await asyncio.wait([waiting], timeout=10 * _POLL_INTERVAL)
            assert not done
            await watching.delete_messages("t", ["m0"])
            async with asyncio.timeout(self.watch_delay):
                assert await waiting == []

    async def test_watching_ends_when_the_store_is_closed(self, watching: Storage) -> None:
        await thread_with(watching)
        values = watching.watch_thread("t")
        async with aclosing(values):
            await self.first(values)
            waiting = asyncio.ensure_future(anext(values, None))
            await asyncio.sleep(2 * _POLL_INTERVAL)
            await watching.close()
            async with asyncio.timeout(self.watch_delay):
                assert await waiting is None

    @full
    async def test_watchers_do_not_disturb_each_other(self, watching: Storage) -> None:
        await thread_with(watching)
        async with aclosing(watching.watch_messages("t")) as kept:
            await self.first(kept)
            async with aclosing(watching.watch_messages("t")) as dropped:
                await self.first(dropped)
            await watching.save_messages(messages("t", "a"))
            assert contents(await self.shows(kept, bool)) == ["a"]

    async def test_watch_arguments_are_checked(self, watching: Storage) -> None:
        for bad in (0, -1, 1.5, True):
            with pytest.raises(InvalidArgumentError):
                watching.watch_messages("t", last=bad)  # type: ignore[arg-type]
        for id in ("", None, 7):
            with pytest.raises(InvalidArgumentError):
                watching.watch_thread(id)  # type: ignore[arg-type]
            with pytest.raises(InvalidArgumentError):
                watching.watch_threads(id)  # type: ignore[arg-type]
        with pytest.raises(InvalidArgumentError):
            watching.watch_workflow_run("1", workflow_name="")

    async def test_a_declared_watch_sees_what_another_store_writes(
        self, make_backend: MakeBackend
    ) -> None:
        backend, other = make_backend(), make_backend()
        require(backend, "watch")
        await backend.open()
        await other.open()
        try:
            await put(backend, row(id="a"))
            query = Query(table=ROWS, prefix=("box",))
            values = backend.watch(query)
            async with asyncio.timeout(self.watch_delay):
                assert len((await anext(values)).rows) == 1
                for count, id in ((2, "b"), (3, "c")):
                    await put(other, row(id=id))
                    while len((await anext(values)).rows) != count:
                        pass
        finally:
            await values.aclose()  # type: ignore[attr-defined]
            await backend.close()
            await other.close()
