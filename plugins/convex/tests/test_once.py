"""Writes whose replies get lost, or that are repeated, happen once, and in their order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Coroutine
from typing import Any

import msgspec
import pytest
import tenacity
from convex_calls import WRITE, ids, message
from convex_server import ConvexServer
from convex_stores import convex_backend, convex_store
from mastra_storage_convex.client import Client, Settings
from mastra_storage_convex.wire import Outcomes

from mastra_storage import (
    MESSAGES,
    THREADS,
    Delete,
    DeletePrefix,
    Storage,
    StorageError,
    Thread,
    UnavailableError,
)
from mastra_storage.backends.memory import MemoryBackend
from mastra_storage.cli.transfer.copying import copy_rows

LOST = {"kind": "drop", "when": "after", "match": WRITE}
SLOW = {"kind": "delay", "ms": 300, "match": WRITE}
MINUTES = 60_000  # milliseconds


def thread(title: str = "", id: str = "t") -> Thread:
    return Thread(id=id, resource_id="r", title=title)


@pytest.fixture
async def store(convex: ConvexServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Storage]:
    """A store that repeats after 0.3 seconds."""
    monkeypatch.setattr("mastra_storage_convex.client._BACKOFF", tenacity.wait_fixed(0.3))
    async with convex_store(convex) as storage:
        yield storage


@pytest.fixture
async def other(convex: ConvexServer, store: Storage) -> AsyncIterator[Storage]:
    """Another store of the same rows."""
    async with convex_store(convex) as storage:
        yield storage


async def merged(convex: ConvexServer, store: Storage, *calls: Coroutine[Any, Any, Any]) -> None:
    """Make calls of which all writes go out as one mutation, whose reply gets lost."""
    await convex.control(reset=True, faults=[SLOW, LOST])
    tasks = [asyncio.ensure_future(store.save_thread(thread(id="first")))]
    for call in calls:
        await asyncio.sleep(0.02)
        tasks.append(asyncio.ensure_future(call))
    await asyncio.gather(*tasks)
    writes = [each for each in await convex.log() if each["label"] == WRITE]
    assert [each.get("fault") for each in writes] == ["delay", "drop", None]


async def title(store: Storage) -> str | None:
    found = await store.get_thread_by_id("t")
    return None if found is None else found.title


async def until(reached: Any) -> None:
    async with asyncio.timeout(5):
        while not await reached():
            pass


@pytest.mark.parametrize("when", ["before", "after"])
async def test_rows_that_bring_the_versions_of_their_source_are_copied(
    convex: ConvexServer, store: Storage, when: str
) -> None:
    async with Storage(MemoryBackend()) as source:
        await source.save_thread(thread(id="t1"))
        await copy_rows(source, store)
        await source.save_message(message("m", "t1"))
        await source.save_thread(thread(id="t2"))
        await convex.control(
            faults=[{"kind": "status", "status": 503, "match": WRITE, "when": when}]
        )
        await copy_rows(source, store)
        assert await store.get_thread_by_id("t1") == await source.get_thread_by_id("t1")
        assert await store.get_thread_by_id("t2") == await source.get_thread_by_id("t2")
        assert await store.get_messages("t1") == await source.get_messages("t1")


async def test_the_last_of_two_merged_saves_stays(convex: ConvexServer, store: Storage) -> None:
    await merged(convex, store, store.save_thread(thread("one")), store.save_thread(thread("two")))
    assert await title(store) == "two"


async def test_a_thread_that_was_deleted_and_made_anew_is_there(
    convex: ConvexServer, store: Storage
) -> None:
    await store.save_thread(thread("old"))
    delete = store.backend.write([DeletePrefix(MESSAGES, ("t",)), Delete(THREADS, ("t",))])
    await merged(convex, store, delete, store.save_thread(thread("new")))
    assert await title(store) == "new"


async def test_a_message_that_was_saved_and_deleted_is_gone(
    convex: ConvexServer, store: Storage
) -> None:
    await store.save_thread(thread())
    save = store.save_message(message("m"))
    await merged(convex, store, save, store.backend.write([Delete(MESSAGES, ("t", "m"))]))
    assert await store.get_messages("t") == []


async def lost(convex: ConvexServer, call: Awaitable[Any], reached: Any) -> asyncio.Future[Any]:
    """Make a call whose reply gets lost; it has happened, and is to be repeated soon."""
    await convex.control(faults=[LOST])
    task = asyncio.ensure_future(call)
    await until(reached)
    return task


async def test_what_another_store_changed_meanwhile_stays(
    convex: ConvexServer, store: Storage, other: Storage
) -> None:
    async def saved() -> bool:
        return await title(other) == "mine"

    saving = await lost(convex, store.save_thread(thread("mine")), saved)
    await other.update_thread("t", title="theirs")
    assert not saving.done()
    await saving
    assert await title(other) == "theirs"


async def test_what_another_store_deleted_meanwhile_stays_deleted(
    convex: ConvexServer, store: Storage, other: Storage
) -> None:
    async def saved() -> bool:
        return ids(await other.get_messages("t")) == ["m"]

    await store.save_thread(thread())
    saving = await lost(convex, store.save_message(message("m")), saved)
    await other.delete_messages("t", ["m"])
    assert not saving.done()
    await saving
    assert await other.get_messages("t") == []


async def test_an_attempt_that_was_given_up_cannot_happen_after_a_later_write(
    convex: ConvexServer, other: Storage
) -> None:
    async with convex_store(convex, timeout=1.0) as hasty:
        await convex.control(reset=True, faults=[SLOW | {"ms": 2_000, "times": 10}])
        with pytest.raises(UnavailableError):
            await hasty.save_thread(thread("one"))
        await convex.control(faults=[])
        await hasty.save_thread(thread("two"))

        assert await title(other) == "two"

        async def ran() -> bool:
            late = [each for each in await convex.log() if each.get("fault") == "delay"]
            assert len(late) > 1  # each attempt is given up, too
            return all("error" in each for each in late)

        await until(ran)
        assert await title(other) == "two"


async def test_a_receipt_lasts_while_its_store_writes(convex: ConvexServer, store: Storage) -> None:
    async def receipts_at(minutes: int) -> tuple[int, int]:
        await convex.control(clockAheadMs=minutes * MINUTES)
        state = await convex.control(settle=True)
        return state["documents"].get("receipts", 0), state["scheduled"]["pending"]

    await store.save_thread(thread("one"))
    assert await receipts_at(10) == (1, 1)
    await store.save_thread(thread("two"))
    assert await receipts_at(20) == (1, 1)
    assert await receipts_at(24) == (1, 1)
    assert await receipts_at(26) == (0, 0)
    await store.save_thread(thread("three"))
    assert await receipts_at(27) == (1, 1)


async def test_outcomes_are_as_many_as_a_receipt_holds(convex: ConvexServer) -> None:
    def arguments(number: int, count: int) -> bytes:
        op = {"op": "delete", "table": "threads", "key": ["x" * 4_000], "ifVersion": "v"}
        calls = [{"ops": [op]}] * count
        return msgspec.json.encode({"calls": calls, "store": "s", "number": number})

    client = Client(Settings(url=convex.url, key=convex.admin_key))
    await client.open()
    try:
        found = await client.mutate("system:write", arguments(7, 1_000), Outcomes)
        assert 10 < len(found.outcomes) < 100
        assert {each.status for each in found.outcomes} == {"conflict"}
        again = await client.mutate("system:write", arguments(7, 1_000), Outcomes)
        assert again == found
        with pytest.raises(StorageError):
            await client.mutate("system:write", arguments(6, 1), Outcomes)
    finally:
        await client.close()


async def test_a_store_that_was_closed_and_opened_goes_on(convex: ConvexServer) -> None:
    backend = convex_backend(convex)
    for name in ("one", "two"):
        async with Storage(backend) as storage:
            await storage.save_thread(thread(name))
    async with convex_store(convex) as storage:
        assert await title(storage) == "two"
