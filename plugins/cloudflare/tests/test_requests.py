"""What each call costs, counted at the server: the table of docs/cloudflare.md."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

import pytest
from kv_server import KVServer
from rest_stores import requests_of, rest_store

from mastra_storage import Message, Storage, Thread, Trace

GET, PUT, LIST, DELETE = "POST bulk/get", "PUT bulk", "GET keys", "POST bulk/delete"


pytestmark = pytest.mark.once  # what is counted is the same on every Python


def messages(thread_id: str, count: int, start: int = 0) -> list[Message]:
    return [
        Message(id=f"m{n}", thread_id=thread_id, role="user", content=f"Message {n}")
        for n in range(start, start + count)
    ]


def contents(found: Iterable[Message]) -> list[object]:
    return [message.content for message in found]


@pytest.fixture
async def writer(memory_kv: KVServer) -> AsyncIterator[Storage]:
    """A store that has written to every namespace, and so knows their ids."""
    async with rest_store(memory_kv) as storage:
        await storage.save_thread(Thread(id="first", resource_id="nobody"))
        await storage.save_messages(messages("first", 1))
        await storage.save_trace(Trace(id="first"))
        yield storage


@pytest.fixture
async def reader(memory_kv: KVServer, writer: Storage) -> AsyncIterator[Storage]:
    """A store that knows the namespaces and has seen nothing else."""
    async with rest_store(memory_kv) as storage:
        yield storage


async def test_saving_a_thread(memory_kv: KVServer, writer: Storage) -> None:
    async with requests_of(memory_kv) as requests:
        await writer.save_thread(Thread(id="t", resource_id="r"))
    assert requests == [PUT]


async def test_saving_messages(memory_kv: KVServer, writer: Storage, reader: Storage) -> None:
    await writer.save_thread(Thread(id="t", resource_id="r"))
    async with requests_of(memory_kv) as requests:
        await writer.save_messages(messages("t", 100))
    assert requests == [PUT]
    async with requests_of(memory_kv) as requests:
        await reader.save_messages(messages("t", 100, start=100))
    assert requests == [GET, PUT]
    async with requests_of(memory_kv) as requests:
        await reader.save_messages(messages("t", 100, start=200))
    assert requests == [PUT]
    assert len(await writer.get_messages("t")) == 300


@pytest.mark.parametrize("count", [100, 1_000, 50_000])
async def test_the_last_messages_of_a_thread(
    memory_kv: KVServer, writer: Storage, reader: Storage, count: int
) -> None:
    await writer.save_thread(Thread(id="t", resource_id="r"))
    await writer.save_messages(messages("t", count))
    async with requests_of(memory_kv) as requests:
        found = await reader.get_messages("t", last=10)
    assert contents(found) == [f"Message {n}" for n in range(count - 10, count)]
    assert requests == [LIST, GET]


async def test_all_messages_of_a_thread(
    memory_kv: KVServer, writer: Storage, reader: Storage
) -> None:
    await writer.save_thread(Thread(id="t", resource_id="r"))
    await writer.save_messages(messages("t", 1_000))
    async with requests_of(memory_kv) as requests:
        found = await reader.get_messages("t")
    assert contents(found) == [f"Message {n}" for n in range(1_000)]
    assert len(requests) <= 12
    assert requests.count(GET) == 10


async def test_updating_a_thread(memory_kv: KVServer, writer: Storage, reader: Storage) -> None:
    await writer.save_thread(Thread(id="t", resource_id="r"))
    async with requests_of(memory_kv) as requests:
        await reader.update_thread("t", title="new")
    assert requests == [GET, PUT]


async def test_threads_of_a_resource_among_many(
    memory_kv: KVServer, writer: Storage, reader: Storage
) -> None:
    threads = [Thread(id=f"t{n}", resource_id="r" if n % 500 == 0 else "s") for n in range(10_000)]
    await writer.batch_insert("threads", threads)
    async with requests_of(memory_kv) as requests:
        page = await reader.list_threads(resource_id="r", count=False)
    assert len(page) == 20
    assert requests == [LIST, GET]
    async with requests_of(memory_kv) as requests:
        assert len(await reader.get_threads_by_resource_id("r")) == 20
    assert len(requests) <= 4
    async with requests_of(memory_kv) as requests:
        page = await reader.list_threads(resource_id="s", per_page=20, count=False)
    assert (len(page), page.has_more) == (20, True)
    assert requests == [LIST, GET]


async def test_deleting_a_thread(memory_kv: KVServer, writer: Storage, reader: Storage) -> None:
    await writer.save_thread(Thread(id="t", resource_id="r"))
    await writer.save_messages(messages("t", 1_000))
    async with requests_of(memory_kv) as requests:
        await reader.delete_thread("t")
    assert len(requests) <= 6, requests
    assert requests.count(DELETE) == 2
    async with rest_store(memory_kv) as other:
        assert await other.get_messages("t") == []
        assert await other.get_messages("t", last=10) == []
        assert await other.get_thread_by_id("t") is None


async def test_pages_of_traces(memory_kv: KVServer, writer: Storage, reader: Storage) -> None:
    await writer.save_traces([Trace(id=f"x{n}", name="n") for n in range(10_000)])
    async with requests_of(memory_kv) as requests:
        page = await reader.get_traces(count=False)
    assert [trace.id for trace in page] == [f"x{n}" for n in range(9_999, 9_899, -1)]
    assert requests == [LIST, GET]
    async with requests_of(memory_kv) as requests:
        page = await reader.get_traces(count=False, cursor=page.next_cursor)
    assert [trace.id for trace in page] == [f"x{n}" for n in range(9_899, 9_799, -1)]
    assert requests == [LIST, GET]


async def test_concurrent_calls_share_requests(
    memory_kv: KVServer, writer: Storage, reader: Storage
) -> None:
    threads = [Thread(id=f"t{n}", resource_id="r") for n in range(300)]
    async with requests_of(memory_kv) as requests:
        await asyncio.gather(*[writer.save_thread(thread) for thread in threads])
    assert len(requests) <= 3
    async with requests_of(memory_kv) as requests:
        found = await asyncio.gather(*[reader.get_thread_by_id(thread.id) for thread in threads])
    assert found == threads
    assert requests == [GET] * 6  # of 100 keys: each thread and its touches
    async with requests_of(memory_kv) as requests:
        await asyncio.gather(*[reader.save_messages(messages(t.id, 2)) for t in threads])
    assert len(requests) <= 3
    async with requests_of(memory_kv) as requests:
        every = await asyncio.gather(*[writer.get_messages(t.id, last=2) for t in threads])
    assert all(len(of_one) == 2 for of_one in every)
    assert requests.count(LIST) == 300
    assert requests.count(GET) <= 300
    async with requests_of(memory_kv) as requests:
        every = await asyncio.gather(*[writer.get_messages("t1", last=2) for _ in threads])
    assert all(of_one == every[0] for of_one in every)
    assert requests == [LIST, GET]


async def test_a_long_listing_of_threads_has_their_order_and_touches(
    memory_kv: KVServer, writer: Storage
) -> None:
    threads = [Thread(id=f"t{n}", resource_id="r") for n in range(120)]
    await writer.batch_insert("threads", threads)
    moved = [thread.id for thread in threads[::7]]
    await writer.save_messages([messages(thread_id, 1)[0] for thread_id in moved])
    await asyncio.sleep(1.5)  # until their touches are stored
    async with rest_store(memory_kv) as reader, requests_of(memory_kv) as requests:
        found = await reader.get_threads_by_resource_id("r")
    assert requests == [LIST, *[GET] * 3]  # of 240 keys: each thread and its touches
    assert [thread.id for thread in found] == [thread.id for thread in reversed(threads)]
    later = {thread.id for thread in found if thread.updated_at > thread.created_at}
    assert later == set(moved)


async def test_touches_are_merged(memory_kv: KVServer, writer: Storage) -> None:
    await writer.save_thread(Thread(id="t", resource_id="r"))
    await memory_kv.control(reset=True, recordBodies=True)
    for message in messages("t", 20):
        await writer.save_message(message)
    await asyncio.sleep(1.5)
    bodies = [entry.get("body") or "" for entry in await memory_kv.log()]
    assert [body.count("threads.touched:t") for body in bodies if ".touched:" in body] == [1]
