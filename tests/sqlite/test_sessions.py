"""Opening, closing and watching a SQLite file, also in the wrong order."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from mastra_storage import (
    Delete,
    DeletePrefix,
    InvalidArgumentError,
    Message,
    Put,
    Query,
    Result,
    Row,
    Storage,
    Table,
    Thread,
    UnavailableError,
    UnsupportedError,
)
from mastra_storage.backends._sqlite_layout import layout_of
from mastra_storage.backends._sqlite_session import Session
from mastra_storage.backends.sqlite import SqliteBackend, _get, _query

NOTES = Table(name="notes", key=("id",))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "agent.db"


_OURS = ("mastra-storage-reader", "mastra-storage-writer")


def threads_of_ours() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith(_OURS)]


async def save(storage: Storage, title: str) -> None:
    await storage.save_thread(Thread(id="t", resource_id="r", title=title))


async def test_a_relative_path_stays_where_the_store_was_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("here", "elsewhere"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    async with Storage(SqliteBackend("agent.db")) as storage:
        await save(storage, "mine")
        os.chdir(tmp_path / "elsewhere")
        found = await asyncio.gather(*[storage.get_thread_by_id("t") for _ in range(20)])
        assert {thread.title for thread in found if thread} == {"mine"}
    assert list((tmp_path / "elsewhere").iterdir()) == []


async def test_a_cancelled_close_harms_no_later_session(path: Path) -> None:
    storage = Storage(SqliteBackend(path))
    await storage.open()
    await save(storage, "first")
    backend = storage.backend
    assert isinstance(backend, SqliteBackend)
    release = threading.Event()

    def slow(session: Session) -> None:
        release.wait(5)

    reading = asyncio.create_task(backend._in_thread(slow))
    await asyncio.sleep(0.01)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(storage.close(), 0.05)
    opening = asyncio.create_task(storage.open())
    await asyncio.sleep(0.01)
    release.set()
    await opening
    await reading
    await save(storage, "second")
    thread = await storage.get_thread_by_id("t")
    assert thread is not None
    assert thread.title == "second"
    await storage.close()
    assert threads_of_ours() == []


async def test_every_life_of_a_store_sees_what_others_write(path: Path) -> None:
    other = Storage(SqliteBackend(path))
    await other.open()
    await save(other, "0")
    storage = Storage(SqliteBackend(path, watch_interval=0.02))
    for life in range(1, 4):
        async with storage, asyncio.timeout(5):
            watch = storage.watch_thread("t")
            assert (await anext(watch)) is not None
            await save(other, str(life))
            changed = await anext(watch)
            assert changed is not None
            assert changed.title == str(life)
            await watch.aclose()
    await other.close()


async def test_one_task_looks_for_all_watchers_and_outlives_each(path: Path) -> None:
    looks = 0
    real = Session.data_version

    def counted(session: Session) -> int:
        nonlocal looks
        looks += 1
        return real(session)

    backend = SqliteBackend(path, watch_interval=0.02)
    other = Storage(SqliteBackend(path))
    async with Storage(backend) as storage, other:
        await save(other, "0")
        watches = [storage.watch_thread("t") for _ in range(50)]
        for watch in watches:
            await anext(watch)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Session, "data_version", counted)
            await asyncio.sleep(0.2)
        assert 0 < looks <= 15
        waiting = [asyncio.ensure_future(anext(watch)) for watch in watches]
        await asyncio.sleep(0)
        for task in waiting[:49]:
            task.cancel()
        await asyncio.gather(*waiting[:49], return_exceptions=True)
        await save(other, "1")
        changed = await asyncio.wait_for(waiting[49], 5)
        assert changed is not None
        assert changed.title == "1"
        for watch in watches:
            await watch.aclose()
        assert backend._lookout is None


async def test_a_watch_that_cannot_look_any_more_is_an_error(path: Path) -> None:
    def broken(session: Session) -> int:
        raise UnavailableError("the disk is gone")

    async with Storage(SqliteBackend(path, watch_interval=0.02)) as storage:
        await save(storage, "0")
        watch = storage.watch_thread("t")
        await anext(watch)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Session, "data_version", broken)
            with pytest.raises(UnavailableError, match="the disk is gone"):
                await asyncio.wait_for(anext(watch), 5)


async def test_writes_that_wait_for_one_lock_share_its_timeout(path: Path) -> None:
    async with Storage(SqliteBackend(path, busy_timeout=0.3)) as storage:
        await save(storage, "0")
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            loop = asyncio.get_running_loop()
            began = loop.time()
            saves = [storage.save_thread(Thread(id=f"t{i}", resource_id="r")) for i in range(20)]
            results = await asyncio.gather(*saves, return_exceptions=True)
            other.execute("ROLLBACK")
        assert all(isinstance(result, UnavailableError) for result in results)
        assert len({id(result) for result in results}) == 20  # each its own
        assert loop.time() - began < 3
        await save(storage, "1")


async def test_nobody_waits_for_a_lock_on_behalf_of_those_who_gave_up(path: Path) -> None:
    async with Storage(SqliteBackend(path)) as storage:
        await save(storage, "0")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        storage = Storage(SqliteBackend(path, busy_timeout=60))
        await storage.open()
        saves = [asyncio.create_task(save(storage, str(i))) for i in range(1, 4)]
        await asyncio.sleep(0.1)
        for task in saves:
            task.cancel()
        await asyncio.wait(saves)
        await asyncio.wait_for(storage.close(), 10)
    async with Storage(SqliteBackend(path)) as storage:
        thread = await storage.get_thread_by_id("t")
        assert thread is not None
        assert thread.title == "0"


async def test_what_waits_behind_another_write_is_left_out_once_it_is_cancelled(path: Path) -> None:
    async with Storage(SqliteBackend(path)) as storage:
        await save(storage, "0")
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            saves = []
            for name in ("first", "cancelled", "last"):
                thread = Thread(id=name, resource_id="r")
                saves.append(asyncio.create_task(storage.save_thread(thread)))
                await asyncio.sleep(0.1)
            saves[1].cancel()
            await asyncio.wait(saves[1:2])
            other.execute("ROLLBACK")
        await asyncio.gather(saves[0], saves[2])
        found = {thread.id for thread in await storage.get_threads_by_resource_id("r")}
        assert found >= {"first", "last"}
        assert await storage.get_thread_by_id("cancelled") is None


ROW = {"order": 1, "seq": 1, "updated": 1}


@pytest.mark.parametrize("name", ["schema", "version", "threads_order_0", "select", "group"])
async def test_tables_of_adapters_may_have_any_name(path: Path, name: str) -> None:
    table = Table(
        name=name, key=("from", "order"), fields=("group", "limit"), ordered=(0, 1), recent=True
    )
    row = Row(table, ("a", "b"), b"{}", 1, 1, {"group": "g"}, 1)
    backend = SqliteBackend(path)
    async with Storage(backend) as storage:
        await save(storage, "core")
        await backend.write([Put(row)])
        found = await backend.query(Query(table=table, fields={"group": ("g",)}, count=True))
        assert (found.rows, found.total) == ([row], 1)
        found = await backend.query(Query(table=table, prefix=("a",), order_by="recent"))
        assert found.rows == [row]
        await backend.write([DeletePrefix(table, ()), Put(row)])
        assert await backend.get(table, [("a", "b")]) == [row]
        await backend.write([Put(row), DeletePrefix(table, ()), Delete(table, ("a", "b"))])
        assert await backend.get(table, [("a", "b")]) == [None]
        assert await storage.get_thread_by_id("t") is not None


async def test_an_adapters_table_may_gain_fields_but_no_other_key(path: Path) -> None:
    before = Table(name="notes", key=("id",), fields=("tag",))
    after = Table(name="notes", key=("id",), fields=("tag", "owner"), recent=True)
    other = Table(name="notes", key=("owner", "id"))
    backend = SqliteBackend(path)
    async with Storage(backend):
        await backend.write([Put(Row(before, ("1",), b"{}", 1, 1, {"tag": "x"}, 1))])
    backend = SqliteBackend(path)
    async with Storage(backend):
        [old] = await backend.get(after, [("1",)])
        assert old is not None
        assert old.fields == {"tag": "x"}
        new = Row(after, ("2",), b"{}", 2, 2, {"tag": "x", "owner": "ada"}, 2)
        await backend.write([Put(new)])
        found = await backend.query(Query(table=after, fields={"owner": ("ada",)}))
        assert found.rows == [new]
        found = await backend.query(Query(table=after, order_by="recent", descending=True))
        assert [row.key for row in found.rows] == [("2",), ("1",)]
        with pytest.raises(UnsupportedError, match="another key"):
            await backend.get(other, [("ada", "1")])


async def test_a_file_of_somebody_else_is_refused_and_left_as_it_is(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE mastra_threads (id TEXT, resourceId TEXT)")
        connection.execute("INSERT INTO mastra_threads VALUES ('t', 'r')")
        connection.commit()
    with pytest.raises(UnsupportedError, match="mastra_threads"):
        await Storage(SqliteBackend(path)).open()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT * FROM mastra_threads").fetchall() == [("t", "r")]
    assert threads_of_ours() == []


async def test_a_file_with_other_tables_is_shared(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE orders (id TEXT)")
    async with Storage(SqliteBackend(path)) as storage:
        await save(storage, "x")
        assert await storage.backend.tables() == ["threads"]


async def test_reading_somebody_elses_file_leaves_it_as_it_is(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE orders (id TEXT)")
    before = path.read_bytes()
    async with Storage(SqliteBackend(path)) as storage:
        assert await storage.get_thread_by_id("t") is None
        assert await storage.get_messages("t") == []
        assert (await storage.list_threads()).total == 0
        assert await storage.backend.tables() == []
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


async def test_a_file_that_is_removed_while_open_takes_no_more_writes(path: Path) -> None:
    storage = Storage(SqliteBackend(path))
    async with storage:
        await save(storage, "kept")
        for file in path.parent.iterdir():
            file.unlink()
        for _ in range(2):
            with pytest.raises(UnavailableError, match="removed or replaced") as caught:
                await save(storage, "lost")
            assert str(path) in str(caught.value)
        assert not path.exists()
    async with storage:
        await save(storage, "new")
        thread = await storage.get_thread_by_id("t")
        assert thread is not None
        assert thread.title == "new"


async def test_a_page_and_its_total_are_of_one_moment(path: Path) -> None:
    async with Storage(SqliteBackend(path)) as storage:
        await save(storage, "busy")
        done = asyncio.Event()

        async def write() -> None:
            while not done.is_set():
                await storage.save_message(Message(thread_id="t", role="user", content="x"))

        async with asyncio.TaskGroup() as group:
            writers = [group.create_task(write()) for _ in range(4)]
            for _ in range(100):
                page = await storage.get_messages_paginated("t", per_page=None)
                assert page.total == len(page.items)
            done.set()
        assert all(task.done() for task in writers)


async def test_a_current_directory_that_is_gone_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(UnavailableError, match="give an absolute path"):
        await Storage(SqliteBackend("agent.db")).open()


async def test_a_directory_that_becomes_a_file_ends_writing(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    directory.mkdir()
    async with Storage(SqliteBackend(directory / "agent.db")) as storage:
        await save(storage, "first")
        directory.rename(tmp_path / "elsewhere")
        directory.touch()
        with pytest.raises(UnavailableError, match="removed or replaced"):
            await save(storage, "second")


async def test_errors_keep_their_cause(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError) as caught:
        await Storage(SqliteBackend(tmp_path / "missing" / "agent.db")).open()
    assert isinstance(caught.value.__cause__, sqlite3.Error)


@pytest.mark.parametrize(
    "make",
    [
        lambda: SqliteBackend(":memory:"),
        lambda: SqliteBackend(""),
        lambda: SqliteBackend("a\0b"),
        lambda: SqliteBackend("\ud800"),
        lambda: SqliteBackend.from_url("sqlite:///a%00b"),
    ],
)
def test_paths_that_are_none_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(InvalidArgumentError, match="memory://"):
        make()


class MadeMeanwhile(sqlite3.Connection):
    """Where a table that is missing is made by others before anybody can look."""

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        try:
            return super().execute(sql, *parameters)
        except sqlite3.OperationalError:
            for statement in layout_of(NOTES).create():
                super().execute(statement)
            raise


def test_a_table_that_is_made_while_it_is_read_was_empty() -> None:
    with closing(sqlite3.connect(":memory:", factory=MadeMeanwhile)) as connection:
        assert _get(connection, NOTES, [("a",)]) == [None]
    with closing(sqlite3.connect(":memory:", factory=MadeMeanwhile)) as connection:
        assert _query(connection, Query(table=NOTES, count=True)) == Result(rows=[], total=0)
