"""Sessions give back what they were given, to any number of agents, in any process."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from agents.memory import Session, SessionSettings
from backends import on_sqlite, on_sqlite_and_convex
from items import ITEMS, as_json
from mastra_storage_openai_agents import MastraSession

from mastra_storage import (
    MESSAGES,
    InvalidArgumentError,
    InvalidRecordError,
    Message,
    Query,
    Result,
    Row,
    Storage,
    Thread,
    open_storage,
)
from mastra_storage.backends.memory import MemoryBackend
from mastra_storage.testing import FaultyBackend

NewStorage = Callable[[], Storage]


def said(*texts: str) -> list[Any]:
    return [{"role": "user", "content": text} for text in texts]


def texts(items: list[Any]) -> list[str]:
    return [item["content"] for item in items]


async def test_items_come_back_exactly_as_given(new_storage: NewStorage) -> None:
    given: list[Any] = [item for _, item in ITEMS]
    async with new_storage() as storage:
        await MastraSession("trip", storage).add_items(given[:-2])
        await MastraSession("trip", storage).add_items(given[-2:])
    async with new_storage() as storage:
        session = MastraSession("trip", storage)
        assert as_json(await session.get_items()) == as_json(given)
        assert as_json(await session.get_items(3)) == as_json(given[-3:])
        messages = await storage.get_messages("trip")
        assert [message.role for message in messages] == [role for role, _ in ITEMS]
        assert [message.type for message in messages[:5]] == [*["message"] * 4, "reasoning"]
        popped = [await session.pop_item() for _ in given]
        assert as_json(reversed(popped)) == as_json(given)
        assert await session.pop_item() is None


async def test_sessions_are_listed_for_a_user(new_storage: NewStorage) -> None:
    async with new_storage() as storage:
        for name, user, topic in [("a", "ada", 1), ("b", "ada", 2), ("c", "bob", 1)]:
            metadata = {"topic": topic}
            session = MastraSession(name, storage, resource_id=user, title="T", metadata=metadata)
            await session.add_items(said("hello"))
        await MastraSession("own", storage).add_items(said("hello"))

        async def listed(**filters: Any) -> list[str]:
            return [thread.id for thread in await storage.list_threads(**filters)]

        assert await listed(resource_id="ada") == ["b", "a"]
        assert await listed(resource_id="ada", metadata={"topic": 1}) == ["a"]
        assert await listed(resource_id="own") == ["own"]
        thread = await storage.get_thread_by_id("a")
        assert thread is not None
        assert thread.title == "T"


@on_sqlite
async def test_a_thread_that_is_there_keeps_what_it_has(new_storage: NewStorage) -> None:
    async with new_storage() as storage:
        made = await storage.save_thread(
            Thread(id="trip", resource_id="ada", title="Mine", metadata={"a": 1})
        )
        session = MastraSession(
            "trip", storage, resource_id="bob", title="Yours", metadata={"b": 2}
        )
        await session.add_items(said("one"))
        thread = await storage.get_thread_by_id("trip")
        assert thread is not None
        assert (thread.resource_id, thread.title, thread.metadata) == ("ada", "Mine", {"a": 1})
        assert thread.created_at == made.created_at
        assert thread.updated_at > made.updated_at


@on_sqlite_and_convex
async def test_two_that_begin_a_session_at_once_leave_one_thread(
    new_storage: NewStorage,
) -> None:
    async with new_storage() as one, new_storage() as other:
        for name in map(str, range(5)):
            await asyncio.gather(
                MastraSession(name, one, metadata={"by": "one"}).add_items(said("a")),
                MastraSession(name, other, metadata={"by": "other"}).add_items(said("b")),
            )
            assert sorted(texts(await MastraSession(name, one).get_items())) == ["a", "b"]


async def test_agents_that_add_at_once_lose_nothing(new_storage: NewStorage) -> None:
    async def add(storage: Storage, name: str) -> None:
        session = MastraSession("trip", storage)
        for turn in range(8):
            await session.add_items(said(*[f"{name} {turn} {part}" for part in range(3)]))

    async with new_storage() as one, new_storage() as other:
        await MastraSession("trip", one).add_items(said("begin"))
        await asyncio.gather(add(one, "x"), add(one, "y"), add(other, "z"))
    async with new_storage() as storage:
        found = texts(await MastraSession("trip", storage).get_items())
    assert found[0] == "begin"
    for name in "xyz":
        own = [text for text in found if text.startswith(name)]
        assert own == [f"{name} {turn} {part}" for turn in range(8) for part in range(3)]
        # The items of one call stand together.
        assert all(found[found.index(f"{name} {t} 0") + 2] == f"{name} {t} 2" for t in range(8))


@on_sqlite
async def test_a_turn_is_one_write_and_a_read_one_query(
    new_storage: NewStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []

    def counted(storage: Storage, verb: str) -> None:
        call = getattr(storage.backend, verb)

        async def counting(*args: Any) -> Any:
            called.append(verb)
            return await call(*args)

        monkeypatch.setattr(storage.backend, verb, counting)

    async with new_storage() as storage:
        session = MastraSession("trip", storage)
        await session.add_items(said(*map(str, range(300))))
        for verb in ("get", "query", "write"):
            counted(storage, verb)
        assert len(await session.get_items()) == 300
        await session.add_items(said("a", "b"))
        assert texts(await session.get_items(2)) == ["a", "b"]
        assert called == ["query", "write", "query"]


# KV has no compare-and-set: there it is promised within one storage.
@pytest.mark.parametrize(
    ("backend", "stores"),
    [
        ("sqlite", 1),
        ("sqlite", 2),
        pytest.param("convex", 2, marks=pytest.mark.once),
        pytest.param("cloudflare", 1, marks=pytest.mark.once),
    ],
)
async def test_no_item_is_popped_twice(new_storage: NewStorage, stores: int) -> None:
    async with new_storage() as one, new_storage() as other:
        await MastraSession("trip", one).add_items(said(*map(str, range(12))))
        sessions = [MastraSession("trip", [one, other][n % stores]) for n in range(4)]

        async def drain(session: MastraSession) -> list[Any]:
            return [item async for item in popped(session)]

        drained = await asyncio.gather(*map(drain, sessions))
    assert sorted(int(text) for found in drained for text in texts(found)) == [*range(12)]


async def popped(session: MastraSession) -> Any:
    while (item := await session.pop_item()) is not None:
        yield item


# A process that adds, and one that adds and pops, on the session "trip".
WORK = """
import asyncio, json, sys
from mastra_storage import open_storage
from mastra_storage_openai_agents import MastraSession

async def main(url, name):
    async with open_storage(url) as storage:
        session = MastraSession("trip", storage)
        popped = []
        print("ready", flush=True)
        sys.stdin.readline()
        for turn in range(20):
            texts = [f"{name} {turn} {part}" for part in range(2)]
            await session.add_items([{"role": "user", "content": text} for text in texts])
            popped.append((await session.pop_item())["content"])
    print(json.dumps(popped))

asyncio.run(main(*sys.argv[1:]))
"""


@on_sqlite
async def test_two_processes_lose_nothing_and_pop_nothing_twice(
    new_storage: NewStorage, storage_url: str
) -> None:
    processes = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error", "-c", WORK, storage_url, name),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        for name in "xy"
    ]
    for process in processes:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
    outputs = await asyncio.gather(*[process.communicate(b"go\n") for process in processes])
    popped = [text for out, _ in outputs for text in json.loads(out)]
    async with new_storage() as storage:
        left = texts(await MastraSession("trip", storage).get_items())
    added = [f"{name} {turn} {part}" for name in "xy" for turn in range(20) for part in range(2)]
    assert len(popped) == 40
    assert sorted(popped + left) == sorted(added)
    for name in "xy":
        own = [text for text in left if text.startswith(name)]
        assert own == [text for text in added if text in own]


async def test_an_item_that_is_listed_after_its_end_is_passed_over() -> None:
    class Late(MemoryBackend):
        """Lists the newest message for ever, as Workers KV may for a minute."""

        newest: Row | None = None

        async def query(self, query: Query) -> Result:
            result = await super().query(query)
            if self.newest is None or query.after is not None:
                return result
            return Result(rows=[self.newest, *result.rows][: query.limit])

    backend = Late()
    async with Storage(backend) as storage:
        session = MastraSession("trip", storage)
        await session.add_items(said("a", "b"))
        newest = Query(table=MESSAGES, prefix=("trip",), descending=True, limit=1)
        [backend.newest] = await storage.find_rows(newest)
        assert await session.pop_item() == said("b")[0]
        async with asyncio.timeout(10):
            assert await session.pop_item() == said("a")[0]
            assert await session.pop_item() is None


async def test_a_cleared_session_is_empty_and_goes_on(new_storage: NewStorage) -> None:
    async with new_storage() as storage:
        session = MastraSession("trip", storage, metadata={"a": 1})
        await session.clear_session()
        assert await session.get_items() == []
        await session.add_items(said("one", "two"))
        await MastraSession("trip:2", storage).add_items(said("not mine"))
        await session.clear_session()
        assert await session.get_items() == []
        await session.add_items(said("three"))
        assert await session.get_items() == said("three")
        assert await MastraSession("trip:2", storage).get_items() == said("not mine")
        thread = await storage.get_thread_by_id("trip")
        assert thread is not None
        assert thread.metadata == {"a": 1}


@on_sqlite
async def test_a_deleted_session_begins_anew(new_storage: NewStorage) -> None:
    async with new_storage() as storage:
        session = MastraSession("trip", storage)
        await session.add_items(said("one"))
        await storage.delete_thread("trip")
        assert await session.pop_item() is None
        await session.add_items(said("two"))
        assert await session.get_items() == said("two")


@on_sqlite
async def test_limits(new_storage: NewStorage) -> None:
    async with new_storage() as storage:
        session = MastraSession("trip", storage, session_settings=SessionSettings(limit=2))
        await session.add_items([])
        assert await storage.get_thread_by_id("trip") is None
        await session.add_items(said("a", "b", "c"))
        assert texts(await session.get_items()) == ["b", "c"]
        assert texts(await session.get_items(1)) == ["c"]
        assert texts(await session.get_items(9)) == ["a", "b", "c"]
        assert await session.get_items(0) == []
        assert await session.get_items(-1) == []
        assert MastraSession("x", storage, session_settings={"limit": 5}).session_settings == (
            SessionSettings(limit=5)
        )


async def test_it_is_a_session() -> None:
    session = MastraSession("trip", open_storage("memory://"))
    assert isinstance(session, Session)
    assert "trip" in repr(session)


@on_sqlite
async def test_what_json_cannot_hold_is_refused_whole(new_storage: NewStorage) -> None:
    async with new_storage() as storage:
        session = MastraSession("trip", storage)
        bad: list[Any] = [*said("fine"), {"role": "user", "content": float("nan")}]
        with pytest.raises(InvalidRecordError, match=r"content\.content is nan"):
            await session.add_items(bad)
        assert await session.get_items() == []


@on_sqlite
async def test_order_holds_while_clocks_differ(new_storage: NewStorage) -> None:
    async with new_storage() as storage:
        await MastraSession("trip", storage).add_items(said("a"))
        ahead = datetime.now(timezone.utc) + timedelta(minutes=5)
        await storage.save_message(
            Message(thread_id="trip", role="user", content=said("b")[0], created_at=ahead)
        )
        session = MastraSession("trip", storage)
        await session.get_items(1)
        await session.add_items(said("c", "d"))
        await session.add_items(said("e"))
        assert texts(await session.get_items()) == ["a", "b", "c", "d", "e"]


async def test_order_holds_when_an_earlier_call_ends_later() -> None:
    backend = FaultyBackend(MemoryBackend())
    async with Storage(backend) as storage:
        session = MastraSession("trip", storage)
        await session.add_items(said("a"))
        backend.delay("write", seconds=0.05)
        slow = asyncio.create_task(session.add_items(said("b")))
        await asyncio.sleep(0.01)
        ahead = datetime.now(timezone.utc) + timedelta(minutes=5)
        await storage.save_message(
            Message(thread_id="trip", role="user", content=said("c")[0], created_at=ahead)
        )
        assert texts(await session.get_items(1)) == ["c"]
        await slow
        await session.add_items(said("d"))
        assert texts(await session.get_items())[-2:] == ["c", "d"]


def test_a_url_is_no_storage() -> None:
    url: Any = "sqlite:///agent.db"
    with pytest.raises(InvalidArgumentError, match="open_storage"):
        MastraSession("trip", url)


@pytest.mark.parametrize("change", ["add_items", "pop_item", "clear_session"])
@pytest.mark.parametrize("times", [1, 2])
async def test_what_a_cancelled_call_does_is_done_when_it_ends(change: str, times: int) -> None:
    backend = FaultyBackend(MemoryBackend())
    async with Storage(backend) as storage:
        session = MastraSession("trip", storage)
        await session.add_items(said("old"))
        backend.delay("write", seconds=0.2)
        calls = {
            "add_items": lambda: session.add_items(said("new")),
            "pop_item": session.pop_item,
            "clear_session": session.clear_session,
        }
        call = asyncio.ensure_future(calls[change]())
        for _ in range(times):
            await asyncio.sleep(0.05)
            call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        at_once = texts(await session.get_items())
        await asyncio.sleep(0.3)
        assert at_once == texts(await session.get_items())
        assert at_once == (["old", "new"] if change == "add_items" else [])


async def test_a_change_that_fails_behind_a_cancellation_is_a_cancellation() -> None:
    backend = FaultyBackend(MemoryBackend())
    async with Storage(backend) as storage:
        session = MastraSession("trip", storage)
        await session.add_items(said("old"))
        backend.delay("write", seconds=0.1)
        backend.fail("write", after=True)
        adding = asyncio.create_task(session.add_items(said("new")))
        await asyncio.sleep(0.02)
        adding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await adding
