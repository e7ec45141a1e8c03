"""The store: items, searches with filters, namespaces, items that expire."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from backends import on_sqlite, on_sqlite_and_convex
from langgraph.store.base import (
    GetOp,
    InvalidNamespaceError,
    ListNamespacesOp,
    MatchCondition,
    PutOp,
    SearchOp,
)
from mastra_storage_langgraph import MastraStore
from mastra_storage_langgraph._filters import matches
from mastra_storage_langgraph.tables import ITEMS

from mastra_storage import InvalidRecordError, Query, Storage, UnsupportedError

NewStorage = Callable[[], Storage]


async def test_an_item_comes_back_as_it_was_put(new_storage: NewStorage) -> None:
    value = {"likes": ["espresso", None, {"a": 1.5}], "näme": "\U0001f600", "$key": True}
    async with new_storage() as storage:
        store = MastraStore(storage)
        await store.aput(("memories", "ada"), "coffee:1", value)
        first = await store.aget(("memories", "ada"), "coffee:1")
    async with new_storage() as storage:
        store = MastraStore(storage)
        item = await store.aget(("memories", "ada"), "coffee:1")
        assert item is not None
        assert item == first
        assert (item.namespace, item.key, item.value) == (("memories", "ada"), "coffee:1", value)
        assert abs(item.created_at - datetime.now(timezone.utc)) < timedelta(minutes=1)
        assert await store.aget(("memories",), "coffee:1") is None
        assert await store.aget(("memories", "ada", "x"), "coffee:1") is None
        await store.adelete(("memories", "ada"), "coffee:1")
        await store.adelete(("memories", "ada"), "never there")
        assert await store.aget(("memories", "ada"), "coffee:1") is None


@on_sqlite_and_convex
async def test_a_put_replaces_the_value_and_keeps_when_it_was_created(
    new_storage: NewStorage,
) -> None:
    async with new_storage() as storage:
        store = MastraStore(storage)
        await store.aput(("n",), "k", {"a": 1, "b": 2})
        first = await store.aget(("n",), "k")
        await store.aput(("n",), "k", {"c": 3})
        second = await store.aget(("n",), "k")
        assert first is not None
        assert second is not None
        assert second.value == {"c": 3}
        assert second.created_at == first.created_at
        assert second.updated_at > first.updated_at


async def test_search_within_a_namespace(new_storage: NewStorage) -> None:
    async with new_storage() as storage:
        store = MastraStore(storage)
        places = [("a",), ("a", "b"), ("a", "b", "c", "d", "e"), ("a", "bc"), ("ab",)]
        await store.abatch(
            [PutOp(place, str(n), {"place": list(place)}) for n, place in enumerate(places)]
        )

        async def found(*prefix: str, **more: Any) -> set[str]:
            return {item.key for item in await store.asearch(prefix, **more)}

        assert await found() == {"0", "1", "2", "3", "4"}
        assert await found("a") == {"0", "1", "2", "3"}
        assert await found("a", "b") == {"1", "2"}
        assert await found("a", "b", "c", "d", "e") == {"2"}
        assert await found("a", "b", "c", "d", "x") == set()
        assert await found("A") == set()


@on_sqlite_and_convex
async def test_search_gives_what_changed_last_first_and_pages(new_storage: NewStorage) -> None:
    async with new_storage() as storage:
        store = MastraStore(storage)
        for number in range(12):
            await store.aput(("n", str(number % 2)), str(number), {"number": number})
        assert [item.key for item in await store.asearch(("n",), limit=3)] == ["11", "10", "9"]
        page = await store.asearch(("n",), limit=3, offset=3)
        assert [item.key for item in page] == ["8", "7", "6"]
        assert len(await store.asearch(("n",))) == 10
        odd = await store.asearch(("n",), filter={"number": {"$gt": 4}}, limit=2, offset=1)
        assert [item.key for item in odd] == ["10", "9"]


@on_sqlite
async def test_a_filter_looks_beyond_the_first_page(
    new_storage: NewStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mastra_storage_langgraph.store._PAGE", 7)
    async with new_storage() as storage:
        store = MastraStore(storage)
        await store.abatch([PutOp(("n",), str(n), {"rare": n % 10 == 0}) for n in range(50)])
        found = await store.asearch(("n",), filter={"rare": True}, limit=10)
        assert {item.key for item in found} == {"0", "10", "20", "30", "40"}


@pytest.mark.parametrize(
    ("filter", "expected"),
    [
        ({}, "abcd"),
        ({"color": "red"}, "ab"),
        ({"color": {"$eq": "red"}}, "ab"),
        ({"color": {"$ne": "red"}}, "cd"),
        ({"score": {"$gt": 2}}, "bc"),
        ({"score": {"$gte": 2}}, "abc"),
        ({"score": {"$lt": 3}}, "a"),
        ({"score": {"$lte": 3, "$gt": 2}}, "b"),
        ({"score": {"$gt": 2}, "color": "red"}, "b"),
        ({"color": {"$gt": "blue"}}, "ab"),
        ({"color": None}, "d"),
        ({"nested": {"deep": {"x": 1}}}, "a"),
        ({"nested": {"deep": {"x": {"$gte": 2}}}}, "b"),
        ({"nested": {"deep": {"$eq": {"x": 2}}}}, ""),
        ({"nested": {"deep": {"$eq": {"x": 2, "y": 0}}}}, "b"),
        ({"nested": {"deep": {"$ne": {"x": 2}}}, "color": "red"}, "ab"),
        ({"flag": {"$eq": True}}, "c"),
        ({"tags": {"$eq": ["x", "y"]}}, "a"),
        ({"tags": ["x", "y"]}, "a"),
        ({"tags": ["x"]}, ""),
        ({"flag": True}, "c"),
        ({"flag": 1}, "d"),
    ],
)
def test_filters(filter: dict[str, Any], expected: str) -> None:
    values = {
        "a": {"color": "red", "score": 2, "nested": {"deep": {"x": 1}}, "tags": ["x", "y"]},
        "b": {"color": "red", "score": 3, "nested": {"deep": {"x": 2, "y": 0}}},
        "c": {"color": "blue", "score": 4.5, "flag": True},
        "d": {"score": "many", "flag": 1},
    }
    found = [
        name
        for name, value in values.items()
        if all(matches(value.get(member), wanted) for member, wanted in filter.items())
    ]
    assert "".join(found) == expected


def test_an_unknown_operator_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\$in.*\$gte"):
        matches(1, {"$in": [1]})


async def test_namespaces(new_storage: NewStorage) -> None:
    async with new_storage() as storage:
        store = MastraStore(storage)
        places = [("a", "b", "c"), ("a", "b", "d"), ("a", "x", "c"), ("b", "c"), ("a", "b", "c")]
        for number, place in enumerate(places):
            await store.aput(place, str(number), {})
        await store.aput(("gone",), "k", {})
        await store.adelete(("gone",), "k")
        every = await store.alist_namespaces()
        assert every == [("a", "b", "c"), ("a", "b", "d"), ("a", "x", "c"), ("b", "c")]
        assert await store.alist_namespaces(prefix=("a", "b")) == every[:2]
        assert await store.alist_namespaces(prefix=("a", "*", "c")) == [every[0], every[2]]
        assert await store.alist_namespaces(suffix=("c",)) == [every[0], every[2], every[3]]
        assert await store.alist_namespaces(suffix=("x", "*")) == [every[2]]
        both = await store.alist_namespaces(prefix=("a",), suffix=("d",))
        assert both == [("a", "b", "d")]
        cut = [("a", "b"), ("a", "x"), ("b", "c")]
        assert await store.alist_namespaces(max_depth=2) == cut
        assert await store.alist_namespaces(max_depth=2, limit=1, offset=1) == cut[1:2]


@on_sqlite_and_convex
async def test_a_batch_reads_what_was_there_before_it(new_storage: NewStorage) -> None:
    async with new_storage() as storage:
        store = MastraStore(storage)
        await store.aput(("n",), "k", {"v": 1})
        results = await store.abatch(
            [
                GetOp(("n",), "k"),
                PutOp(("n",), "k", {"v": 2}),
                PutOp(("n",), "k", {"v": 3}),
                PutOp(("n",), "new", {"v": 4}),
                SearchOp(("n",)),
                ListNamespacesOp(),
                GetOp(("n",), "missing"),
            ]
        )
        item, *nothing, found, namespaces, missing = results
        assert item.value == {"v": 1}  # type: ignore[union-attr]
        assert nothing == [None, None, None]
        assert [one.value for one in found] == [{"v": 1}]  # type: ignore[union-attr]
        assert (namespaces, missing) == ([("n",)], None)
        values = {one.key: one.value["v"] for one in await store.asearch(("n",))}
        assert values == {"k": 3, "new": 4}
        assert await store.abatch([]) == []


@on_sqlite
async def test_what_is_not_valid_is_refused_and_nothing_written(new_storage: NewStorage) -> None:
    async with new_storage() as storage:
        store = MastraStore(storage)
        with pytest.raises(InvalidNamespaceError):
            await store.abatch([PutOp(("a.b",), "k", {})])
        with pytest.raises(InvalidNamespaceError):
            await store.aput(("langgraph",), "k", {})
        with pytest.raises(InvalidRecordError, match="value"):
            await store.abatch([PutOp(("n",), "k", {}), PutOp(("n",), "l", {"a": {1, 2}})])
        with pytest.raises(UnsupportedError, match="vector"):
            await store.asearch(("n",), query="anything like it")
        assert await store.asearch(("n",), query="") == []
        with pytest.raises(ValueError, match="GetOp"):
            await store.abatch(["nothing"])  # type: ignore[list-item]
        await store.aput(("a",), "k", {})
        condition = MatchCondition("infix", ("a",))  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="infix"):
            await store.abatch([ListNamespacesOp((condition,))])
        assert len(await store.asearch(())) == 1


# -- items that expire -----------------------------------------------------------------------


async def expiry(storage: Storage, key: str) -> datetime | None:
    [row] = [r for r in await storage.find_rows(Query(table=ITEMS)) if r.key[1] == key]
    if row.expires_at is None:
        return None
    return datetime.fromtimestamp(row.expires_at / 1e6, timezone.utc)


def half_an_hour_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if it were: what lives for an hour from then on expires in an hour and a half."""

    def expiry_of(ttl: float) -> datetime:
        return datetime.now(timezone.utc) + timedelta(minutes=ttl + 30)

    monkeypatch.setattr("mastra_storage_langgraph.store._expiry", expiry_of)


@on_sqlite
async def test_an_item_is_gone_when_it_has_expired(new_storage: NewStorage) -> None:
    async with new_storage() as storage:
        store = MastraStore(storage)
        await store.aput(("n",), "short", {}, ttl=1.5 / 60)
        await store.aput(("n",), "long", {}, ttl=60)
        assert len(await store.asearch(("n",), refresh_ttl=False)) == 2
        await asyncio.sleep(1.6)
        assert [item.key for item in await store.asearch(("n",))] == ["long"]
        assert await store.aget(("n",), "short") is None


@on_sqlite_and_convex
async def test_reading_an_item_lets_it_live_on(
    new_storage: NewStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with new_storage() as storage:
        store = MastraStore(storage, ttl={"default_ttl": 60})
        await store.aput(("n",), "k", {"v": 1})
        await store.aput(("n",), "forever", {}, ttl=None)
        put = await store.aget(("n",), "k", refresh_ttl=False)
        before = await expiry(storage, "k")
        assert before is not None
        assert await expiry(storage, "forever") is None
        half_an_hour_later(monkeypatch)
        await store.aget(("n",), "k", refresh_ttl=False)
        assert await expiry(storage, "k") == before
        read = await store.aget(("n",), "k")
        after = await expiry(storage, "k")
        assert after is not None
        assert timedelta(minutes=29) < after - before < timedelta(minutes=31)
        assert read == put
        assert (await store.asearch(("n",)))[-1].updated_at == put.updated_at  # type: ignore[union-attr]


@on_sqlite_and_convex
async def test_searching_lets_items_live_on_where_the_settings_say_so(
    new_storage: NewStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with new_storage() as storage:
        store = MastraStore(storage, ttl={"default_ttl": 60, "refresh_on_read": False})
        await store.aput(("n",), "k", {})
        before = await expiry(storage, "k")
        half_an_hour_later(monkeypatch)
        await store.asearch(("n",))
        assert await expiry(storage, "k") == before
        await store.asearch(("n",), refresh_ttl=True)
        assert await expiry(storage, "k") != before


@on_sqlite_and_convex
async def test_sync_calls_work_in_other_threads(new_storage: NewStorage) -> None:
    async with new_storage() as storage:
        store = MastraStore(storage)

        def work() -> Any:
            store.put(("n",), "k", {"v": 1})
            return store.get(("n",), "k"), store.search(("n",)), store.list_namespaces()

        item, [found], namespaces = await asyncio.to_thread(work)
        assert item.value == found.value == {"v": 1}
        assert namespaces == [("n",)]
        with pytest.raises(asyncio.InvalidStateError, match="aput"):
            store.get(("n",), "k")


@on_sqlite_and_convex
async def test_two_stores_at_once_lose_nothing(new_storage: NewStorage) -> None:
    async with new_storage() as one, new_storage() as two:
        stores = [MastraStore(one), MastraStore(two)]
        await asyncio.gather(
            *[
                stores[number % 2].aput(("n",), str(number), {"number": number})
                for number in range(40)
            ]
        )
        found = await MastraStore(one).asearch(("n",), limit=100)
        assert {item.value["number"] for item in found} == set(range(40))
