"""What is particular to the SQLite backend: its file, its tables, its failures."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from mastra_storage import (
    EVALS,
    MESSAGES,
    THREADS,
    TRACES,
    WORKFLOW_SNAPSHOT,
    Delete,
    InvalidArgumentError,
    Message,
    NotFoundError,
    Position,
    Put,
    Query,
    Row,
    Storage,
    StorageError,
    Table,
    Thread,
    Touch,
    UnavailableError,
    UnsupportedError,
    open_storage,
)
from mastra_storage.backends import _sqlite_migrations
from mastra_storage.backends._sqlite_layout import layout_of
from mastra_storage.backends.sqlite import SqliteBackend


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "agent.db"


async def fill(path: Path, messages: int = 3) -> None:
    async with Storage(SqliteBackend(path)) as storage:
        await storage.save_thread(Thread(id="t", resource_id="r"))
        await storage.save_messages(
            [
                Message(id=f"m{i}", thread_id="t", role="user", content="x" * 500)
                for i in range(messages)
            ]
        )


async def test_an_acknowledged_write_is_synced_to_the_write_ahead_log(path: Path) -> None:
    backend = SqliteBackend(path)
    async with Storage(backend) as storage:
        await storage.save_thread(Thread(resource_id="r"))
        connection = backend._writer()._connection
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL


async def test_closing_leaves_one_file(path: Path) -> None:
    await fill(path)
    assert [file.name for file in path.parent.iterdir()] == ["agent.db"]


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (Query(table=THREADS, descending=True), "ix_mastra_threads_order_0"),
        (Query(table=THREADS, order_by="recent"), "ix_mastra_threads_recent_0"),
        (
            Query(table=THREADS, fields={"resource_id": ("r",)}),
            "ix_mastra_threads_order_resource_id",
        ),
        (
            Query(table=THREADS, fields={"resource_id": ("r",)}, order_by="recent"),
            "ix_mastra_threads_recent_resource_id",
        ),
        (Query(table=MESSAGES, prefix=("t",), descending=True), "ix_mastra_messages_order_1"),
        (
            Query(table=MESSAGES, prefix=("t",), fields={"resource_id": ("", "r")}),
            "ix_mastra_messages_order_1",
        ),
        (Query(table=MESSAGES, prefix=("t",), since=1, until=2), "ix_mastra_messages_order_1"),
        (Query(table=WORKFLOW_SNAPSHOT, prefix=("w",)), "ix_mastra_workflow_snapshot_order_1"),
        *[
            (Query(table=table, fields={name: ("x",)}), f"ix_mastra_{table.name}_order_{name}")
            for table in (WORKFLOW_SNAPSHOT, TRACES, EVALS)
            for name in table.fields
        ],
        *[
            (Query(table=table), f"ix_mastra_{table.name}_order_0")
            for table in (WORKFLOW_SNAPSHOT, TRACES, EVALS)
        ],
    ],
    ids=str,
)
@pytest.mark.parametrize("after", [None, Position(5, 5, ("t", "m"))])
async def test_every_listing_reads_an_index_in_order(
    path: Path, query: Query, index: str, after: Position | None
) -> None:
    await fill(path)
    key = ("t", "m")[: len(query.table.key)]
    if after is not None:
        after = Position(after.order, after.seq, key)
    layout = layout_of(query.table)
    sql, parameters = layout.page(
        Query(
            table=query.table,
            prefix=query.prefix,
            fields=query.fields,
            order_by=query.order_by,
            since=query.since,
            until=query.until,
            descending=query.descending,
            after=after,
            limit=10,
        ),
        0,
    )
    with closing(sqlite3.connect(path)) as connection:
        plan = connection.execute(f"EXPLAIN QUERY PLAN {sql}", parameters).fetchall()
    steps = [step for *_, step in plan]
    assert len(steps) == 1, steps  # no temporary b-tree for sorting
    assert index in steps[0]


async def test_files_carry_a_schema_version_and_are_migrated(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(path)

    def add_column(connection: sqlite3.Connection) -> None:
        connection.execute("ALTER TABLE mastra_threads ADD COLUMN colour TEXT")

    steps = (*_sqlite_migrations.MIGRATIONS, add_column)
    monkeypatch.setattr(_sqlite_migrations, "MIGRATIONS", steps)
    async with Storage(SqliteBackend(path)) as storage:
        assert len(await storage.get_messages("t")) == 3
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT version FROM _mastra_version").fetchall() == [(2,)]
        connection.execute("SELECT colour FROM mastra_threads")

    monkeypatch.undo()
    with pytest.raises(UnsupportedError, match="upgrade mastra-storage"):
        await Storage(SqliteBackend(path)).open()


async def test_a_migration_that_fails_leaves_the_file_as_it_was(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(path)

    def broken(connection: sqlite3.Connection) -> None:
        connection.execute("DROP TABLE mastra_messages")
        connection.execute("this is not SQL")

    with monkeypatch.context() as patch:
        patch.setattr(_sqlite_migrations, "MIGRATIONS", (*_sqlite_migrations.MIGRATIONS, broken))
        with pytest.raises(StorageError, match="SQLite refused"):
            await Storage(SqliteBackend(path)).open()
    async with Storage(SqliteBackend(path)) as storage:
        assert len(await storage.get_messages("t")) == 3


@pytest.mark.parametrize(
    ("offset", "damage"), [(0, b"no database at all" * 300), (8192, b"\xff" * 200_000)]
)
async def test_a_damaged_file_is_an_error_not_an_empty_store(
    path: Path, offset: int, damage: bytes
) -> None:
    await fill(path, messages=500)
    content = bytearray(path.read_bytes())
    content[offset : offset + len(damage)] = damage
    path.write_bytes(content)
    with pytest.raises(UnavailableError, match="damaged") as caught:
        async with Storage(SqliteBackend(path)) as storage:
            await storage.get_messages("t")
    assert not caught.value.retryable
    assert caught.value.backend == "sqlite"
    assert path.read_bytes() == content  # nothing was made worse


async def test_a_file_keeps_its_page_size(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA page_size=8192")
        connection.execute("CREATE TABLE notes (text)")
    await fill(path)
    await fill(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA page_size").fetchone() == (8192,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


async def test_a_damaged_message_is_named_however_it_is_read(path: Path) -> None:
    await fill(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE mastra_messages SET _value = '{\"id\"' WHERE id = 'm1'")
    async with Storage(SqliteBackend(path)) as storage:
        for last in (None, 2):
            with pytest.raises(StorageError, match=r"row \('t', 'm1'\) of table 'messages'"):
                await storage.get_messages("t", last=last)
        assert len(await storage.get_messages("t", last=1)) == 1


async def test_a_missing_directory_is_named_as_the_cause(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="directory"):
        await Storage(SqliteBackend(tmp_path / "missing" / "agent.db")).open()


@pytest.mark.parametrize(
    "url", ["sqlite://", "sqlite:///", "sqlite://host/agent.db", "sqlite:///:memory:"]
)
def test_a_url_without_a_file_is_refused(url: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"sqlite:///relative\.db"):
        open_storage(url)


@pytest.mark.parametrize("value", ["soon", "0", "-1", "inf", "nan"])
def test_options_must_be_seconds(value: str) -> None:
    with pytest.raises(InvalidArgumentError, match="busy_timeout"):
        open_storage(f"sqlite:///agent.db?busy_timeout={value}")


def test_urls_are_relative_or_absolute_and_may_be_quoted() -> None:
    def path_of(url: str) -> Path:
        backend = open_storage(url).backend
        assert isinstance(backend, SqliteBackend)
        return backend.path

    assert path_of("sqlite:///data/agent.db") == Path() / "data/agent.db"
    assert path_of("sqlite:////data/agent.db") == Path("/data/agent.db")
    assert path_of("sqlite:///a%3Fb%20c.db?busy_timeout=5") == Path() / "a?b c.db"
    assert path_of("sqlite:///a#b[c.db") == Path() / "a#b[c.db"


async def test_a_lock_held_too_long_is_an_error_and_the_store_stays_usable(path: Path) -> None:
    await fill(path)
    async with Storage(SqliteBackend(path, busy_timeout=0.05)) as storage:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(UnavailableError, match="busy_timeout") as caught:
                await storage.save_message(Message(thread_id="t", role="user", content="late"))
            assert caught.value.retryable
            assert len(await storage.get_messages("t")) == 3  # readers do not wait
            other.execute("ROLLBACK")
        await storage.save_message(Message(thread_id="t", role="user", content="now"))
        assert len(await storage.get_messages("t")) == 4


async def test_a_failing_write_fails_nobody_it_was_committed_with(path: Path) -> None:
    async with Storage(SqliteBackend(path)) as storage:
        await storage.save_thread(Thread(id="t", resource_id="r"))
        results = await asyncio.gather(
            *[
                storage.save_message(
                    Message(
                        id=f"m{i}",
                        thread_id="nowhere" if i % 3 == 0 else "t",
                        role="user",
                        content=i,
                    )
                )
                for i in range(30)
            ],
            return_exceptions=True,
        )
        for i, result in enumerate(results):
            assert isinstance(result, NotFoundError if i % 3 == 0 else Message)
        assert [m.content for m in await storage.get_messages("t")] == [
            i for i in range(30) if i % 3
        ]


async def test_one_write_that_sqlite_cannot_hold_fails_alone(path: Path) -> None:
    backend = SqliteBackend(path)
    async with Storage(backend) as storage:
        await storage.save_thread(Thread(id="t", resource_id="r"))
        [row] = await backend.get(THREADS, [("t",)])
        assert row is not None
        huge = Row(THREADS, ("huge",), row.value, 2**70, 0, row.fields, 0)
        good = [
            Row(THREADS, (f"good{i}",), row.value, i, 0, row.fields, i, version="v")
            for i in range(5)
        ]
        results = await asyncio.gather(
            *[backend.write([Put(one)]) for one in (*good[:2], huge, *good[2:])],
            return_exceptions=True,
        )
        assert [type(result) for result in results].count(type(None)) == 5
        assert isinstance(results[2], StorageError)
        assert all(await backend.get(THREADS, [one.key for one in good]))


async def test_tables_of_adapters_are_made_on_first_write_and_dropped_when_cleared(
    path: Path,
) -> None:
    notes = Table(name="notes", key=("owner", "id"), fields=("topic",), ordered=(1,))
    backend = SqliteBackend(path)
    async with Storage(backend) as storage:
        storage.register(notes)
        assert await storage.load("notes", owner="a", id="1") is None
        with pytest.raises(NotFoundError):
            await backend.write([Touch(notes, ("a", "1"), 5)])
        await backend.write([Delete(notes, ("a", "1"))])
        assert "notes" not in await backend.tables()
        await storage.insert("notes", {"owner": "a", "id": "1", "topic": "x", "text": "…"})
        assert await storage.load("notes", owner="a", id="1") == {
            "owner": "a",
            "id": "1",
            "topic": "x",
            "text": "…",
        }
        assert "notes" in await backend.tables()
        await storage.clear_table("notes")
        assert "notes" not in await backend.tables()
    with closing(sqlite3.connect(path)) as connection:
        names = connection.execute("SELECT name FROM sqlite_schema").fetchall()
    assert not [name for (name,) in names if "notes" in name]


async def test_a_cancelled_open_leaves_no_thread_behind(path: Path) -> None:
    for steps in range(6):
        storage = Storage(SqliteBackend(path))
        task = asyncio.create_task(storage.open())
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await storage.close()
        await fill(path, messages=1)  # and the file is free


async def test_writes_under_way_when_the_store_closes_are_stored(path: Path) -> None:
    storage = Storage(SqliteBackend(path))
    await storage.open()
    await storage.save_thread(Thread(id="t", resource_id="r"))
    saves = [
        asyncio.create_task(
            storage.save_message(Message(id=f"m{i}", thread_id="t", role="user", content=i))
        )
        for i in range(20)
    ]
    await asyncio.sleep(0)
    await storage.close()
    done = [
        s for s in await asyncio.gather(*saves, return_exceptions=True) if isinstance(s, Message)
    ]
    async with Storage(SqliteBackend(path)) as again:
        stored = {m.id for m in await again.get_messages("t")}
    assert {message.id for message in done} <= stored
    with pytest.raises(UnavailableError, match="not open"):
        await storage.get_messages("t")


READ_ONLY = """
# All that is needed, while it may be read.
import asyncio, concurrent.futures.thread, os, sys, urllib.parse
from mastra_storage import Message, Storage, UnavailableError
from mastra_storage.backends.sqlite import SqliteBackend

async def main():
    async with Storage(SqliteBackend(sys.argv[1])) as storage:
        assert len(await storage.get_messages("t")) == 3
        try:
            await storage.save_message(Message(thread_id="t", role="user", content="x"))
        except UnavailableError as exc:
            assert "read-only" in str(exc) and not exc.retryable, exc
        else:
            raise SystemExit("a read-only file was written")
        assert len(await storage.get_messages("t")) == 3

if os.geteuid() == 0:
    os.setuid(65534)  # root may write any file
asyncio.run(main())
"""


async def test_a_read_only_file_can_be_read_and_says_why_it_cannot_be_written() -> None:
    # Not below pytest's own directory, which other users cannot enter.
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "agent.db"
        await fill(path)
        path.parent.chmod(0o777)
        path.chmod(0o444)
        _run(READ_ONLY, path)


FULL_DISK = """
import asyncio, resource, sys
from mastra_storage import Message, Storage, UnavailableError
from mastra_storage.backends.sqlite import SqliteBackend

async def main():
    message = lambda i: Message(id=f"n{i}", thread_id="t", role="user", content="y" * 10_000)
    async with Storage(SqliteBackend(sys.argv[1])) as storage:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, hard))
        stored = 0
        try:
            for i in range(1_000):
                await storage.save_message(message(i))
                stored += 1
        except UnavailableError as exc:
            assert "disk" in str(exc), exc
        else:
            raise SystemExit("the disk was never full")
        assert len(await storage.get_messages("t")) == 3 + stored
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        await storage.save_message(message(5_000))
        assert len(await storage.get_messages("t")) == 4 + stored

asyncio.run(main())
"""


async def test_a_full_disk_loses_nothing_and_the_store_goes_on_when_there_is_room(
    path: Path,
) -> None:
    await fill(path)
    _run(FULL_DISK, path)


def _run(program: str, path: Path) -> None:
    subprocess.run([sys.executable, "-c", program, str(path)], check=True, timeout=60)
