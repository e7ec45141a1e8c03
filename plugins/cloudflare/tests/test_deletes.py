"""Deleting leaves nothing behind, also when it fails at first or another store moved a row."""

from __future__ import annotations

from typing import Any

import pytest
from interop.typescript import RawKV, raw_kv
from kv_server import KVServer
from rest_stores import requests_of, rest_store

from mastra_storage import Message, PartialWriteError, Storage, StorageError, Thread

LISTED = "mastra_threads.by_resource_id:"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mastra_storage_cloudflare.rest._SECONDS_BETWEEN_WRITES", 0.0)


async def keys(raw: RawKV) -> list[str]:
    return [*await raw.keys("mastra_threads"), *await raw.keys("mastra_messages")]


async def converse(storage: Storage) -> None:
    await storage.save_thread(Thread(id="t", resource_id="r"))
    await storage.save_messages(
        [Message(id=f"m{n}", thread_id="t", role="user", content=n) for n in range(3)]
    )


async def test_what_another_store_moved_leaves_nothing_in_a_listing(kv: KVServer) -> None:
    async with rest_store(kv, key_interval=0) as ours, rest_store(kv, key_interval=0) as theirs:
        await converse(ours)
        thread = await theirs.get_thread_by_id("t")
        assert thread is not None
        thread.resource_id = "elsewhere"
        await theirs.save_thread(thread)
        await ours.delete_thread("t")
    async with rest_store(kv) as other, raw_kv(kv) as raw:
        page = await other.list_threads(resource_id="elsewhere", per_page=0)
        assert page.total == 0
        assert await keys(raw) == []


@pytest.mark.parametrize("left", ["mastra_threads:t", LISTED, "mastra_threads.touched:t"])
async def test_deleting_again_deletes_what_kv_left_out(kv: KVServer, left: str) -> None:
    async with rest_store(kv, key_interval=0) as storage, raw_kv(kv) as raw:
        await converse(storage)
        [name] = [key for key in [*await keys(raw), "mastra_threads.touched:t"] if left in key][:1]
        for _ in range(2):
            await kv.control(consistency={"bulkFailures": {"keys": [name]}})
            with pytest.raises(PartialWriteError) as caught:
                await storage.delete_thread("t")
            assert caught.value.failed == [("threads", ("t",))]
        await kv.control(consistency={})
        await storage.delete_thread("t")
        assert await keys(raw) == []
        await storage.save_thread(Thread(id="t", resource_id="r"))
        assert await storage.get_messages("t") == []


async def test_messages_are_deleted_again_with_the_places_they_had(kv: KVServer) -> None:
    async with rest_store(kv, key_interval=0) as storage, raw_kv(kv) as raw:
        await converse(storage)
        [name] = [key for key in await keys(raw) if ".newest" in key and key.endswith(":m1")]
        await kv.control(consistency={"bulkFailures": {"keys": [name]}})
        with pytest.raises(PartialWriteError) as caught:
            await storage.delete_messages("t", ["m1"])
        assert caught.value.failed == [("messages", ("t", "m1"))]
        await kv.control(consistency={})
        await storage.delete_messages("t", ["m1"])
        assert not [key for key in await keys(raw) if "m1" in key]


@pytest.mark.parametrize("refused", ["messages", "threads"])
async def test_a_delete_that_is_refused_loses_nothing(kv: KVServer, refused: str) -> None:
    fault: dict[str, Any] = {"kind": "status", "status": 400, "code": 10029, "match": "bulk/delete"}
    async with rest_store(kv, key_interval=0) as storage:
        await converse(storage)
        await kv.control(faults=[fault | {"skip": 0 if refused == "messages" else 1, "times": 100}])
        with pytest.raises(StorageError, match="10029"):
            await storage.delete_thread("t")
        await kv.control(faults=[])
    async with rest_store(kv) as other:
        found = await other.get_thread_by_id("t")
        assert found is not None
        assert found.updated_at > found.created_at  # the touch that waited is written


@pytest.mark.once
async def test_what_deletes_cost(memory_kv: KVServer) -> None:
    async with rest_store(memory_kv, key_interval=0) as storage:
        await converse(storage)
        await storage.persist_workflow_snapshot("w", "r1", {"n": 1})
        async with requests_of(memory_kv) as requests:
            await storage.delete_messages("t", ["m0"])
        assert requests == ["POST bulk/delete"]
        async with requests_of(memory_kv) as requests:
            await storage.delete_thread("t")
        assert sorted(requests) == [
            *["GET keys"] * 2,
            *["POST bulk/delete"] * 2,
            "POST bulk/get",
        ]
    async with rest_store(memory_kv) as other:
        async with requests_of(memory_kv) as requests:
            await other.delete_workflow_run("w", "r1")
        assert requests == ["POST bulk/delete"]
