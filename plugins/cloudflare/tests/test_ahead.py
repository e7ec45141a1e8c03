"""Reading a listing again, its records are read meanwhile; what comes out is what is there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mastra_storage_cloudflare import CloudflareBackend
from mastra_storage_cloudflare.kv import MAX_KEYS_OF_GET, Found, Listing
from mastra_storage_cloudflare.recall import Recall
from memory_kv import MemoryKV
from msgspec import structs
from test_queries import QUERIES, ROWS, rows, walk

from mastra_storage import (
    Delete,
    Key,
    Message,
    MessageUpdate,
    Put,
    Query,
    Row,
    Storage,
    Thread,
    select,
)


class HeldKV(MemoryKV):
    """A `MemoryKV` that, once held, lists only when it has been asked for records too."""

    _asked: asyncio.Event | None = None
    _meanwhile: Callable[[], Awaitable[object]] | None = None

    def hold(self, meanwhile: Callable[[], Awaitable[object]] | None = None) -> None:
        """`meanwhile` is called once, between reading records and listing them."""
        self._asked, self._meanwhile = asyncio.Event(), meanwhile
        self.calls.clear()

    async def get(self, namespace: str, keys: Sequence[str]) -> dict[str, Found]:
        found = await super().get(namespace, keys)
        if self._asked is not None:
            self._asked.set()
        return found

    async def keys(
        self, namespace: str, prefix: str, *, cursor: str | None = None, limit: int
    ) -> Listing:
        if self._asked is not None:
            await self._asked.wait()
            self._asked.clear()
            if self._meanwhile is not None:
                change, self._meanwhile, self._asked = self._meanwhile, None, None
                await change()
        return await super().keys(namespace, prefix, cursor=cursor, limit=limit)


def store_on(kv: MemoryKV) -> Storage:
    return Storage(CloudflareBackend(kv, key_interval=0))


def messages(*ids: str) -> list[Message]:
    return [Message(id=name, thread_id="t", role="user", content=name) for name in ids]


async def ids(storage: Storage, last: int | None = None) -> list[str]:
    return [message.id for message in await storage.get_messages("t", last=last)]


async def test_what_was_read_before_takes_one_round_trip() -> None:
    kv = HeldKV()
    async with store_on(kv) as writer, store_on(kv) as reader, asyncio.timeout(30):
        await writer.save_thread(Thread(id="t", resource_id="r"))
        await writer.save_messages(messages("a", "b", "c", "d"))
        assert await ids(reader, last=2) == ["c", "d"]
        assert await ids(writer) == ["a", "b", "c", "d"]
        await reader.save_messages(messages("e"))
        await writer.save_messages(messages("f"))
        await reader.get_messages("t", last=2)
        await writer.get_messages("t")
        kv.hold()
        assert await ids(reader, last=2) == ["e", "f"]
        assert await ids(writer) == ["a", "b", "c", "d", "e", "f"]
        assert sorted(call.split()[0] for call in kv.calls) == ["get", "get", "list", "list"]


async def test_one_s_own_messages_are_read_ahead_too() -> None:
    kv = HeldKV()
    async with store_on(kv) as storage, asyncio.timeout(30):
        await storage.save_thread(Thread(id="t", resource_id="r"))
        await storage.save_messages(messages("a", "b", "c"))
        assert await ids(storage) == ["a", "b", "c"]
        await storage.save_messages(messages("d", "e"))
        await storage.delete_messages("t", ["d"])
        kv.hold()
        assert await ids(storage) == ["a", "b", "c", "e"]
        assert await ids(storage, last=3) == ["b", "c", "e"]
        assert sorted(call.split()[0] for call in kv.calls) == ["get", "get", "list", "list"]


async def test_what_another_store_changed_is_read_anew() -> None:
    kv = MemoryKV()
    async with store_on(kv) as writer, store_on(kv) as reader:
        await writer.save_thread(Thread(id="t", resource_id="r"))
        await writer.save_messages(messages("a", "b", "c"))
        assert await ids(reader, last=2) == ["b", "c"]
        assert await ids(reader) == ["a", "b", "c"]
        await writer.delete_messages("t", ["c"])
        await writer.save_messages(messages("d"))
        assert await ids(reader, last=2) == ["b", "d"]
        assert await ids(reader) == ["a", "b", "d"]
        await writer.delete_thread("t")
        assert await ids(reader, last=2) == await ids(reader) == []


@pytest.mark.parametrize("last", [None, 2])
async def test_what_moves_between_the_two_is_read_once_more(last: int | None) -> None:
    kv = HeldKV()
    async with store_on(kv) as writer, store_on(kv) as reader, asyncio.timeout(30):
        await writer.save_thread(Thread(id="t", resource_id="r"))
        await writer.save_messages(messages("a", "b"))
        assert await ids(reader, last=last) == ["a", "b"]
        later = messages("a")[0]
        later.content = "new"
        kv.hold(lambda: writer.save_message(later))
        found = await reader.get_messages("t", last=last)
        assert [(message.id, message.content) for message in found] == [("b", "b"), ("a", "new")]


async def test_what_changes_between_the_two_is_read_once_more() -> None:
    kv = HeldKV()
    async with store_on(kv) as writer, store_on(kv) as reader, asyncio.timeout(30):
        await writer.save_thread(Thread(id="t", resource_id="r"))
        await writer.save_messages(messages("a", "b"))
        assert await ids(reader) == ["a", "b"]
        kv.hold(lambda: writer.update_messages("t", [MessageUpdate("a", content="new")]))
        assert [message.content for message in await reader.get_messages("t")] == ["new", "b"]


async def test_few_that_are_known_of_many_are_not_read_ahead() -> None:
    kv = MemoryKV()
    async with store_on(kv) as writer, store_on(kv) as reader:
        await writer.save_thread(Thread(id="t", resource_id="r"))
        await writer.save_messages(messages(*"abcdefgh"))
        assert await ids(reader, last=2) == ["g", "h"]
        kv.calls.clear()
        assert await ids(reader, last=5) == list("defgh")
        assert [call.split()[0] for call in kv.calls] == ["list", "get"]


STEPS = st.lists(
    st.tuples(
        st.booleans(),
        rows() | QUERIES.filter(lambda query: query.order_by != "any") | st.just("delete"),
    ),
    max_size=20,
)


@settings(deadline=None, max_examples=200)
@given(steps=STEPS)
def test_any_change_between_any_queries(steps: list[tuple[bool, Row | Query | str]]) -> None:
    async def check() -> None:
        kv = MemoryKV()
        # What is one's own is not laid over what the other deletes.
        ours, theirs = (
            CloudflareBackend(kv, key_interval=0, consistency_seconds=1e-9) for _ in range(2)
        )
        stored: dict[Key, Row] = {}
        for version, (own, step) in enumerate(steps):
            backend = ours if own else theirs
            if isinstance(step, Query):
                # What is listed by a field's value that it has lost is known once it is read.
                query = structs.replace(step, limit=None)
                if not query.prefix and "color" in query.fields:
                    query = structs.replace(query, offset=0)
                expected = select(stored.values(), query)
                assert await walk(ours, query) == (expected.rows, expected.total)
                query = structs.replace(query, limit=step.limit, count=False)
                assert (await walk(ours, query))[0] == expected.rows
            elif isinstance(step, Row):
                row = structs.replace(step, touched=None, version=f"v{version}")
                await backend.write([Put(row, keep_place=False)])
                stored[row.key] = row
            elif stored:
                key = next(iter(stored))
                await backend.write([Delete(ROWS, key)])
                del stored[key]

    asyncio.run(check())


def test_recall_is_of_the_first_keys_of_a_listing() -> None:
    recall = Recall()
    assert recall.first("s", 2) == recall.first("s", None) == []
    recall.put("s", "a")  # of a listing that was never read
    assert recall.first("s", 1) == []
    recall.listed("s", ["b", "d"], whole=False)
    assert recall.first("s", 2) == ["b", "d"]
    assert recall.first("s", 3) == recall.first("s", None) == []
    recall.put("s", "c")
    recall.put("s", "c")
    recall.put("s", "e")  # there may be others before it
    assert recall.first("s", 3) == ["b", "c", "d"]
    recall.listed("s", ["a", "c"], whole=False)
    assert recall.first("s", 3) == ["a", "c", "d"]
    recall.deleted("s", "c")
    recall.deleted("s", "nothing")
    assert recall.first("s", 2) == ["a", "d"]
    recall.listed("s", ["x"], whole=True)
    recall.put("s", "y")
    assert recall.first("s", 5) == recall.first("s", None) == ["x", "y"]
    assert recall.first("other", 1) == []


def test_recall_is_bounded() -> None:
    recall = Recall()
    keys = [f"{n:03}" for n in range(MAX_KEYS_OF_GET + 1)]
    recall.listed("s", keys, whole=True)
    assert recall.first("s", MAX_KEYS_OF_GET) == keys[:-1]
    assert recall.first("s", MAX_KEYS_OF_GET + 1) == recall.first("s", None) == []
    for n in range(200):
        recall.listed(f"s{n}", keys, whole=True)
    assert recall.first("s", 1) == []
    assert recall.first("s0", 1) == keys[:1]
    for n in range(20_001):
        recall.listed(f"empty {n}", [], whole=True)
    assert recall.first("s0", 1) == []
