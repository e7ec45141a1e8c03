"""A store sees its own writes, however late KV shows them."""

from __future__ import annotations

import asyncio
import gc
import time

import pytest
from kv_server import KVServer
from mastra_storage_cloudflare.batching import BatchingKV
from mastra_storage_cloudflare.overlay import OverlayKV
from memory_kv import MemoryKV, pair
from rest_stores import rest_store

from mastra_storage import Message, Thread, UnavailableError


class FrozenKV(MemoryKV):
    """Takes writes, and shows them only when asked to."""

    def __init__(self) -> None:
        super().__init__()
        self.written = MemoryKV()

    async def write(self, namespace: str, pairs: object, deletes: object) -> None:
        await self.written.write(namespace, pairs, deletes)  # type: ignore[arg-type]

    def show(self) -> None:
        self.pairs = dict(self.written.pairs)


def now() -> int:
    return time.time_ns() // 1000


async def listed(kv: OverlayKV, prefix: str = "", limit: int = 1000) -> list[str]:
    found: list[str] = []
    cursor: str | None = None
    while True:
        listing = await kv.keys("n", prefix, cursor=cursor, limit=limit)
        found += [entry.key for entry in listing.entries]
        cursor = listing.cursor
        if cursor is None:
            return found


async def test_gets_and_listings_show_own_puts_and_deletes() -> None:
    inner = FrozenKV()
    inner.pairs = {key: pair(key, "old") for key in "bd"}
    kv = OverlayKV(inner)
    await kv.write("n", [pair("a", written=now()), pair("b", "new", now())], ["d"])
    found = await kv.get("n", ["a", "b", "c", "d"])
    assert {key: each.value for key, each in found.items()} == {"a": b"value", "b": b"new"}
    assert await listed(kv) == ["a", "b"]
    assert await listed(kv, "b") == ["b"]
    assert (await kv.keys("n", "b", limit=10)).entries[0].metadata == found["b"].metadata
    assert list(await kv.get("other", ["a"])) == []


@pytest.mark.parametrize("empty_pages", [False, True])
@pytest.mark.parametrize("limit", [1, 2, 3, 7])
async def test_every_page_of_a_listing_is_complete(limit: int, empty_pages: bool) -> None:
    inner = FrozenKV()
    inner.empty_pages = empty_pages
    inner.pairs = {f"p{n:02}": pair(f"p{n:02}") for n in range(0, 20, 2)}
    kv = OverlayKV(inner)
    odd = [pair(f"p{n:02}", written=now()) for n in range(-1, 25, 2)]
    await kv.write("n", [*odd, pair("o"), pair("q")], ["p00", "p08", "p18"])
    expected = {*inner.pairs, *[each.key for each in odd]} - {"p00", "p08", "p18"}
    assert await listed(kv, "p", limit) == sorted(expected)


async def test_what_others_write_later_is_shown() -> None:
    inner = MemoryKV()
    kv = OverlayKV(inner)
    await kv.write("n", [pair("a", "mine", now())], [])
    await inner.write("n", [pair("a", "earlier", now() - 10**6)], [])
    assert (await kv.get("n", ["a"]))["a"].value == b"mine"
    await inner.write("n", [pair("a", "theirs", now())], [])
    assert (await kv.get("n", ["a"]))["a"].value == b"theirs"
    await kv.write("n", [], ["a"])
    assert await kv.get("n", ["a"]) == {}
    await inner.write("n", [pair("a", "again", now() + 1)], [])
    assert (await kv.get("n", ["a"]))["a"].value == b"again"
    assert await listed(kv) == ["a"]


async def test_a_miss_is_not_remembered() -> None:
    inner = MemoryKV()
    kv = OverlayKV(inner)
    assert await kv.get("n", ["a"]) == {}
    await inner.write("n", [pair("a")], [])
    assert list(await kv.get("n", ["a"])) == ["a"]


async def test_own_writes_count_for_a_while() -> None:
    kv = OverlayKV(FrozenKV(), seconds=0.05)
    await kv.write("n", [pair("a", written=now())], [])
    assert await listed(kv) == ["a"]
    await asyncio.sleep(0.06)
    assert await listed(kv) == []
    assert await kv.get("n", ["a"]) == {}


async def test_the_oldest_are_forgotten_beyond_the_limit() -> None:
    kv = OverlayKV(FrozenKV(), max_bytes=3_000)
    for n in range(10):
        await kv.write("n", [pair(str(n), "x" * 500, now())], [])
    assert await listed(kv) == ["6", "7", "8", "9"]


async def test_what_was_not_stored_is_not_shown() -> None:
    inner = MemoryKV()
    kv = OverlayKV(inner)
    inner.errors = [UnavailableError("no")]
    with pytest.raises(UnavailableError):
        await kv.write("n", [pair("a", written=now())], [])
    assert await listed(kv) == []


async def test_a_cancelled_write_that_is_stored_is_ones_own() -> None:
    inner = FrozenKV()
    inner.written.delay = 0.02
    overlay = OverlayKV(inner)
    kv = BatchingKV(overlay)
    writing = asyncio.ensure_future(kv.write("n", [pair("a", written=now())], []))
    await asyncio.sleep(0.01)
    writing.cancel()
    async with asyncio.timeout(10):
        while await listed(overlay) != ["a"]:  # noqa: ASYNC110 - the overlay tells nobody
            await asyncio.sleep(0.01)
    assert writing.cancelled()
    await kv.close()


async def test_a_store_over_rest_needs_it(memory_kv: KVServer) -> None:
    late = {"staleReadsMs": 60_000, "staleListsMs": 60_000, "cachedMissesMs": 60_000}
    for seconds, seen in ((120, ["m0", "m1"]), (0, [])):
        await memory_kv.reset()
        await memory_kv.control(consistency=late)
        async with rest_store(memory_kv, consistency_seconds=seconds) as storage:
            await storage.save_thread(Thread(id="t", resource_id="r"))
            batch = [Message(id=f"m{n}", thread_id="t", role="user", content=n) for n in range(2)]
            await storage.save_messages(batch)
            assert [message.id for message in await storage.get_messages("t")] == seen
            assert [message.id for message in await storage.get_messages("t", last=5)] == seen


async def test_a_failure_that_nobody_waits_for_is_not_reported_to_the_event_loop() -> None:
    stray: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: stray.append(context))
    inner = MemoryKV()
    inner.delay = 0.02
    inner.errors = [UnavailableError("the service is away")]
    kv = BatchingKV(OverlayKV(inner))
    writing = asyncio.create_task(kv.write("n", [pair("a")], ()))
    await asyncio.sleep(0.01)
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    await kv.close()
    del writing
    gc.collect()
    await asyncio.sleep(0)
    assert stray == []
    assert inner.errors == []
