"""A walk through a table meets each record once, whatever its own store writes meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from kv_server import KVServer
from msgspec import structs

from interop.typescript import RawKV, interop_store, thread
from mastra_storage import THREADS, Query, Storage, StorageError, Thread

TITLE, OLD_TITLE = "myapp__mastra_threads", "myapp_mastra_threads"
IDS = [f"t{n:02}" for n in range(40)]
WALK = Query(table=THREADS, order_by="any", limit=12)


@pytest.fixture
async def written(raw: RawKV) -> None:
    await raw.put_many(TITLE, {f"myapp_:mastra_threads:{each}": thread(id=each) for each in IDS})


async def walked(
    store: Storage, between: Callable[[], Awaitable[object]] = lambda: asyncio.sleep(0)
) -> list[str]:
    """The ids that a walk meets, sorted; something else happens between its parts."""
    result = await store.backend.query(WALK)
    found = [row.key[0] for row in result.rows]
    while result.cursor is not None:
        await between()
        assert len(result.cursor.hint) <= 1024
        result = await store.backend.query(structs.replace(WALK, after=result.cursor))
        found += [row.key[0] for row in result.rows]
    return sorted(found)


@pytest.mark.usefixtures("written")
async def test_what_is_saved_meanwhile_is_met_where_its_place_is(store: Storage) -> None:
    async def save() -> None:
        await store.update_thread("t30", title="changed")
        await store.save_thread(Thread(id="t35x", resource_id="user-1"))
        await store.save_thread(Thread(id="a", resource_id="user-1"))

    assert await walked(store, save) == [*IDS[:36], "t35x", *IDS[36:]]


@pytest.mark.usefixtures("written")
async def test_what_was_saved_just_before_is_met_once(kv: KVServer) -> None:
    async with interop_store(kv, consistency_seconds=0.3) as store:
        await store.update_thread("t39", title="changed")
        await store.save_thread(Thread(id="t99", resource_id="user-1"))
        assert await walked(store, lambda: asyncio.sleep(0.2)) == [*IDS, "t99"]


@pytest.mark.usefixtures("written")
async def test_what_kv_does_not_list_yet_is_met(kv: KVServer, store: Storage) -> None:
    await kv.control(consistency={"staleListsMs": 600_000})
    await store.save_thread(Thread(id="t20x", resource_id="user-1"))
    assert await walked(store) == [*IDS[:21], "t20x", *IDS[21:]]


async def test_what_moves_out_of_an_early_namespace_meanwhile_is_met(
    kv: KVServer, raw: RawKV
) -> None:
    await raw.put_many(OLD_TITLE, {f"mastra_threads:{each}": thread(id=each) for each in IDS})
    async with interop_store(kv, prefix="myapp") as store:
        met = await walked(store, lambda: store.update_thread("t30", title="changed"))
        assert met == IDS
        met = await walked(store, lambda: store.update_thread("t01", title="changed"))
        assert sorted(set(met)) == IDS


@pytest.mark.usefixtures("written")
async def test_a_cursor_that_kv_refuses_is_not_needed(kv: KVServer, store: Storage) -> None:
    refused = {"kind": "status", "status": 400, "code": 10041, "match": "GET keys"}
    await kv.control(faults=[refused | {"path": "cursor=", "times": 2}])
    assert await walked(store) == IDS
    await kv.control(faults=[refused | {"times": 1_000}])
    with pytest.raises(StorageError, match="10041"):
        await walked(store)


@pytest.mark.parametrize("size", [190, 250])
async def test_ids_of_which_a_cursor_leaves_no_room(raw: RawKV, store: Storage, size: int) -> None:
    ids = [f"{n:02}{'x' * size}" for n in range(30)]
    await raw.put_many(TITLE, {f"myapp_:mastra_threads:{each}": thread(id=each) for each in ids})
    assert await walked(store) == ids
