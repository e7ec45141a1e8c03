"""Whom a change wakes of those who watch, and whom it leaves alone."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, ExitStack, aclosing
from functools import reduce
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from mastra_storage import (
    MESSAGES,
    THREADS,
    Delete,
    DeletePrefix,
    Key,
    Message,
    Op,
    Put,
    Query,
    Result,
    Row,
    Storage,
    Table,
    Thread,
    Touch,
)
from mastra_storage.backend import select
from mastra_storage.backends._sqlite_transaction import Fit
from mastra_storage.backends._sqlite_watchers import Watchers
from mastra_storage.backends._sqlite_writer import Writer
from mastra_storage.backends.sqlite import SqliteBackend

NOTES = Table(name="notes", key=("a", "b"), fields=("f", "g"))
WATCHED = [(), ("a",), ("a", "1"), ("b",)]


def put(*key: str) -> Put:
    made = Storage(SqliteBackend("x.db")).new_row(NOTES, dict(zip(NOTES.key, key, strict=True)))
    return Put(made)


@pytest.mark.parametrize(
    ("op", "woken"),
    [
        (put("a", "1"), [(), ("a",), ("a", "1")]),
        (put("a", "2"), [(), ("a",)]),
        (Delete(NOTES, ("b", "1")), [(), ("b",)]),
        (Touch(NOTES, ("c", "1"), 5), [()]),
        (DeletePrefix(NOTES, ("a",)), [(), ("a",), ("a", "1")]),
        (DeletePrefix(NOTES, ()), WATCHED),
        (DeletePrefix(THREADS, ()), []),
        (Delete(THREADS, ("a",)), []),
        (Fit(NOTES), []),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_op_wakes_those_whom_it_may_concern(op: Op | Fit, woken: list[Key]) -> None:
    watchers = Watchers()
    with ExitStack() as stack:
        added = {
            prefix: stack.enter_context(watchers.added(Query(table=NOTES, prefix=prefix)))
            for prefix in WATCHED
        }
        watchers.wake_at([op])
        assert [prefix for prefix, each in added.items() if each.changed.is_set()] == woken
        watchers.wake()
        assert all(each.changed.is_set() for each in added.values())
    assert not watchers
    watchers.wake_at([op])  # nobody is there any more


few = st.sampled_from
keys = st.tuples(few("ab"), few("xy"))
rows = st.builds(
    Row,
    table=st.just(NOTES),
    key=keys,
    value=st.just(b"{}"),
    order=few([1, 2, 3]),
    seq=few([1, 2]),
    fields=st.dictionaries(few(NOTES.fields), few(["", "1", "2"])),
    updated=few([1, 5]),
    touched=few([None, 3]),
    version=few("pqr"),
)
queries = st.builds(
    Query,
    table=st.just(NOTES),
    prefix=keys.flatmap(lambda key: few([key[:0], key[:1], key])),
    fields=st.dictionaries(few(NOTES.fields), st.lists(few(["", "1", "2"])).map(tuple)),
    since=few([None, None, 2]),
    order_by=few(["created", "recent"]),
    descending=st.booleans(),
    limit=few([None, None, 1, 2]),
    offset=few([0, 0, 1]),
)
ops = st.one_of(
    st.builds(Put, rows),
    st.builds(Touch, st.just(NOTES), keys, few([2, 9])),
    st.builds(Delete, st.just(NOTES), keys),
    st.builds(DeletePrefix, st.just(NOTES), keys.flatmap(lambda key: few([key[:0], key[:1]]))),
)


def after(stored: dict[Key, Row], op: Op) -> dict[Key, Row]:
    if isinstance(op, Put):
        return stored | {op.row.key: op.row}
    if isinstance(op, DeletePrefix):
        return {key: row for key, row in stored.items() if key[: len(op.prefix)] != op.prefix}
    if isinstance(op, Delete):
        return {key: row for key, row in stored.items() if key != op.key}
    return {
        key: structs.replace(row, touched=op.at) if key == op.key else row
        for key, row in stored.items()
    }


@given(stored=st.lists(rows, max_size=5), query=queries, done=st.lists(ops, min_size=1, max_size=3))
def test_whoever_would_see_something_else_is_woken(
    stored: list[Row], query: Query, done: list[Op]
) -> None:
    before = {row.key: row for row in stored}
    seen = select(before.values(), query)
    with (watchers := Watchers()).added(query) as watcher:
        watcher.begin()
        watcher.saw(seen)
        watchers.wake_at(done)
        assert (
            watcher.changed.is_set() or select(reduce(after, done, before).values(), query) == seen
        )


def test_who_is_looking_is_woken_by_what_it_may_not_have_seen_yet() -> None:
    mine = Query(table=NOTES, fields={"f": ("1",)})
    touched = Touch(NOTES, ("a", "x"), 5)
    with (watchers := Watchers()).added(mine) as watcher:
        for _ in range(2):
            watcher.begin()
            watchers.wake_at([touched])
            assert watcher.changed.is_set()
            watcher.begin()
            watcher.saw(Result(rows=[]))
            watchers.wake_at([touched])
            assert not watcher.changed.is_set()


class Counting(SqliteBackend):
    """Counts what is read."""

    queries = 0

    async def query(self, query: Query) -> Result:
        self.queries += 1
        return await super().query(query)


def message(thread_id: str) -> Message:
    return Message(thread_id=thread_id, role="user", content="x")


async def test_a_busy_thread_does_not_have_those_who_watch_others_read(tmp_path: Path) -> None:
    backend = Counting(tmp_path / "agent.db", watch_interval=0.1)
    async with Storage(backend) as storage, AsyncExitStack() as stack:
        for number in range(40):
            await storage.save_thread(Thread(id=f"t{number}", resource_id="r"))
        watches = [storage.watch_messages(f"t{number}") for number in range(40)]
        for watch in watches:
            await stack.enter_async_context(aclosing(watch))
            assert await anext(watch) == []
        busy, *others = watches
        waiting = [asyncio.ensure_future(anext(watch)) for watch in others]
        for _ in range(30):
            await storage.save_message(message("t0"))
            assert await anext(busy)
            await asyncio.sleep(0.03)
        queries = backend.queries
        await storage.save_message(message("t9"))
        [woken], _ = await asyncio.wait(waiting, timeout=5, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        assert woken is waiting[8]
        # Of the others, once each: until it has asked, nobody knows who has written before. And
        # again where the writer does not answer in time, as on a machine that is busy.
        assert queries <= 40 + 2 * 30 + 39 * 4


async def test_a_busy_thread_does_not_have_those_read_who_watch_the_threads_of_others(
    tmp_path: Path,
) -> None:
    # No look at what others write, so that each query is for a change here.
    backend = Counting(tmp_path / "agent.db", watch_interval=60)
    async with Storage(backend) as storage, AsyncExitStack() as stack, asyncio.timeout(30):
        for number in range(40):
            await storage.save_thread(Thread(id=f"t{number}", resource_id=f"r{number}"))
        watches = [storage.watch_threads(f"r{number}") for number in range(40)]
        for watch in watches:
            await stack.enter_async_context(aclosing(watch))
            assert len(await anext(watch)) == 1
        waiting = [asyncio.ensure_future(anext(watch)) for watch in watches]
        queries = backend.queries
        await storage.save_message(message("t0"))
        assert len(await waiting[0]) == 1
        await storage.save_thread(Thread(id="new", resource_id="r1"))
        assert [thread.id for thread in await waiting[1]] == ["new", "t1"]
        await storage.save_thread(Thread(id="new", resource_id="r2"))
        assert [thread.id for thread in await anext(watches[1])] == ["t1"]
        assert [thread.id for thread in await waiting[2]] == ["new", "t2"]
        await storage.delete_thread("t3")
        assert await waiting[3] == []
        for task in waiting[4:]:
            task.cancel()
        await asyncio.wait(waiting)
        assert backend.queries <= queries + 10


async def test_deleting_wakes_without_a_look_at_the_file(tmp_path: Path) -> None:
    async with Storage(SqliteBackend(tmp_path / "agent.db", watch_interval=60)) as storage:
        await storage.save_thread(Thread(id="t", resource_id="r"))
        await storage.save_message(message("t"))
        async with aclosing(storage.watch_messages("t")) as watch, asyncio.timeout(10):
            assert len(await anext(watch)) == 1
            await storage.delete_thread("t")
            assert await anext(watch) == []
            await storage.save_thread(Thread(id="t", resource_id="r"))
            await storage.save_message(message("t"))
            assert len(await anext(watch)) == 1
            await storage.clear_table(MESSAGES.name)
            assert await anext(watch) == []


async def test_changes_of_others_are_seen_while_the_writer_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "agent.db"
    unanswered = lambda writer: asyncio.get_running_loop().create_future()  # noqa: E731
    storage, other = (
        Storage(SqliteBackend(path, watch_interval=0.01)),
        Storage(SqliteBackend(path)),
    )
    async with storage, other, asyncio.timeout(10):
        await other.save_thread(Thread(id="t", resource_id="r"))
        async with aclosing(storage.watch_messages("t")) as watch:
            assert await anext(watch) == []
            monkeypatch.setattr(Writer, "look", unanswered)
            for count in range(1, 4):
                await other.save_message(message("t"))
                assert len(await anext(watch)) == count


async def test_a_watch_can_be_left_at_any_moment(tmp_path: Path) -> None:
    async with Storage(SqliteBackend(tmp_path / "agent.db", watch_interval=0.004)) as storage:
        await storage.save_thread(Thread(id="t", resource_id="r"))
        async with asyncio.timeout(30):
            for turn in range(400):
                async with aclosing(storage.watch_messages("t", last=1)) as watch:
                    await anext(watch)
                    await storage.save_message(message("t"))
                    await asyncio.sleep(0.0002 * (turn % 40))
