"""A listing goes on from the place it reached, though KV takes its cursor no longer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from kv_server import KVServer
from mastra_storage_cloudflare import binding
from mastra_storage_cloudflare.binding import BindingKV
from mastra_storage_cloudflare.kv import RefusedCursorError
from mastra_storage_cloudflare.overlay import OverlayKV
from rest_stores import requests_of, rest_store

from mastra_storage import MESSAGES, Message, Query, Storage, StorageError, Thread

REFUSED = {"kind": "status", "status": 400, "code": 10041, "match": "GET keys"}
IDS = [f"m{n:04}" for n in range(2_500)]


@pytest.fixture
async def reader(memory_kv: KVServer) -> AsyncIterator[Storage]:
    async with rest_store(memory_kv) as storage:
        await storage.save_thread(Thread(id="t", resource_id="r"))
        await storage.save_messages(
            [Message(id=each, thread_id="t", role="user", content=each) for each in IDS]
        )
    async with rest_store(memory_kv) as storage:
        yield storage


async def newest(storage: Storage) -> list[str]:
    """The newest first, each page by the cursor of the one before it."""
    page = await storage.get_messages_paginated("t", direction="desc", per_page=400, count=False)
    found = [message.id for message in page]
    while page.next_cursor is not None:
        page = await storage.get_messages_paginated(
            "t", direction="desc", per_page=400, count=False, cursor=page.next_cursor
        )
        found += [message.id for message in page]
    return found[::-1]


async def every(storage: Storage) -> list[str]:
    return [message.id for message in await storage.get_messages("t")]


async def in_any_order(storage: Storage) -> list[str]:
    query = Query(table=MESSAGES, order_by="any", limit=400)
    result = await storage.backend.query(query)
    found = [row.key[1] for row in result.rows]
    while result.cursor is not None:
        after = Query(table=MESSAGES, order_by="any", limit=400, after=result.cursor)
        result = await storage.backend.query(after)
        found += [row.key[1] for row in result.rows]
    return found


READS = [newest, every, in_any_order]


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("passed", [0, 1])
async def test_a_listing_goes_on_where_it_was(
    memory_kv: KVServer,
    reader: Storage,
    read: Callable[[Storage], Awaitable[list[str]]],
    passed: int,
) -> None:
    fault = REFUSED | {"path": "cursor=", "skip": passed}
    async with requests_of(memory_kv) as requests:
        await memory_kv.control(faults=[fault])
        assert await read(reader) == IDS
    assert requests.count("GET keys") <= 12


@pytest.mark.parametrize("read", READS)
async def test_a_cursor_that_is_always_refused_is_an_error(
    memory_kv: KVServer, reader: Storage, read: Callable[[Storage], Awaitable[list[str]]]
) -> None:
    async with requests_of(memory_kv) as requests:
        await memory_kv.control(faults=[REFUSED | {"path": "cursor=", "times": 1_000}])
        with pytest.raises(StorageError, match="10041"):
            await read(reader)
    assert requests.count("GET keys") <= 20


class Namespace:
    """A binding that lists two keys a page, and has forgotten its cursors."""

    def __init__(self) -> None:
        self.forgotten = True
        self.error = "KV GET failed: 400 Invalid cursor"

    async def list(self, options: dict[str, Any]) -> dict[str, Any]:
        cursor = options.get("cursor", "")
        if cursor and self.forgotten:
            self.forgotten = False
            raise RuntimeError(self.error)
        left = [key for key in "abcdef" if key > cursor]
        more = len(left) > 2
        keys = [{"name": key, "metadata": None} for key in left[:2]]
        return {"keys": keys, "list_complete": not more, "cursor": left[1] if more else None}


@pytest.fixture
def namespace(monkeypatch: pytest.MonkeyPatch) -> Namespace:
    monkeypatch.setattr(binding, "_js", lambda value: value)
    return Namespace()


async def test_a_binding_may_refuse_a_cursor_too(namespace: Namespace) -> None:
    kv = OverlayKV(BindingKV({"default": namespace}))
    first = await kv.keys("n", "", limit=2)
    second = await kv.keys("n", "", cursor=first.cursor, limit=2)
    assert [entry.key for entry in second.entries] == ["c", "d"]
    third = await kv.keys("n", "", cursor=second.cursor, limit=2)
    assert ([entry.key for entry in third.entries], third.cursor) == (["e", "f"], None)


async def test_other_errors_of_a_binding_say_nothing_of_its_cursor(namespace: Namespace) -> None:
    namespace.error = "KV GET failed: 503 Service Unavailable"
    kv = OverlayKV(BindingKV({"default": namespace}))
    first = await kv.keys("n", "", limit=2)
    with pytest.raises(StorageError) as caught:
        await kv.keys("n", "", cursor=first.cursor, limit=2)
    assert not isinstance(caught.value, RefusedCursorError)
