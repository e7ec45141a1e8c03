"""Bytes by key, as Strands' own storages have them, on any backend and from any event loop."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import strands.storage
from backends import on_sqlite, on_sqlite_and_kv
from mastra_storage_strands import MastraStrandsStorage
from mastra_storage_strands.tables import DATA
from strands.storage import InMemoryStorage
from strands.types.exceptions import StorageError
from strands.vended_memory_stores.file_memory_store import FileMemoryStore

import mastra_storage
from mastra_storage import Query, Storage, open_storage
from mastra_storage.backends.memory import MemoryBackend

NewStorage = Callable[[], Storage]

KEYS = [
    "a",
    "/a//b/",
    "a/b",
    "a/b/c/d/e/f/g/h",
    "a/b/c/d/e/f",
    "a/b/c/d/e/fg",
    "ab/c",
    "session/ü東/🛫 x.json",
    "session/.../..a",
    "s:p%2F/..b/?#",
    "x" * 600 + "/y",
    "x" * 600,
    "deep/1/2/3/4/" + "y" * 300 + "/z",
]
PREFIXES = ["", "a", "a/", "/a//b", "a/b/", "a/b/c/d/e", "a/b/c/d/e/", "a/b/c/d/e/f", "session/"]
PREFIXES += ["session/ü", "nothing", "x" * 600, "x" * 600 + "/", "x" * 599, "deep/1/2/3/4/", "/"]
REFUSED = ["", "/", "//", "a\\b", "..", "a/../b"]
VALUES = [b"", b"{}", bytes(range(256)), '{"a": "ü\u0000\u2028"}'.encode(), b"\xed\xa0\x80"]


async def test_it_does_what_a_storage_of_strands_does(new_storage: NewStorage) -> None:
    reference = InMemoryStorage()
    async with MastraStrandsStorage(new_storage()) as storage:
        for place, key in enumerate(KEYS):
            value = VALUES[place % len(VALUES)] + key.encode()
            await asyncio.gather(storage.write(key, value), reference.write(key, value))
    async with MastraStrandsStorage(new_storage()) as storage:
        for key in [*KEYS, "a/b/c", "b"]:
            assert await storage.read(key) == await reference.read(key)
        for prefix in PREFIXES:
            assert await storage.list(prefix) == await reference.list(prefix), prefix
        for key in ["a/b", "a/b", "never/there", "x" * 600]:
            await storage.delete(key)
            await reference.delete(key)
            assert await storage.read(key) is None
        assert await storage.list() == await reference.list()


@on_sqlite
async def test_it_refuses_what_a_storage_of_strands_refuses(new_storage: NewStorage) -> None:
    reference = InMemoryStorage()
    async with MastraStrandsStorage(new_storage()) as storage:
        for key in REFUSED:
            for one in (storage, reference):
                for call in (one.read(key), one.delete(key), one.write(key, b"")):
                    with pytest.raises(StorageError):
                        await call
        for prefix in ["a\\", "../a"]:
            for one in (storage, reference):
                with pytest.raises(StorageError):
                    await one.list(prefix)


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
@on_sqlite
async def test_values_come_back_to_the_byte(new_storage: NewStorage, value: bytes) -> None:
    async with MastraStrandsStorage(new_storage()) as storage:
        await storage.write("k", value)
        assert await storage.read("k") == value
        await storage.write("k", b"after")
        assert await storage.read("k") == b"after"


async def test_values_of_several_megabytes(new_storage: NewStorage) -> None:
    text = b'{"text": "' + "née ".encode() * 700_000 + b'"}'
    binary = bytes(range(256)) * 12_000
    async with MastraStrandsStorage(new_storage()) as storage:
        await storage.write("big/text", text)
        await storage.write("big/binary", b"small")
        await storage.write("big/binary", binary)
    async with MastraStrandsStorage(new_storage()) as storage:
        assert await storage.read("big/text") == text
        assert await storage.read("big/binary") == binary
        assert await storage.list("big/") == ["big/binary", "big/text"]
        await storage.write("big/text", b"short now")
        assert await storage.read("big/text") == b"short now"
        await storage.delete("big/binary")
        await storage.delete("big/text")
        assert await storage.list() == []
    async with new_storage() as core:
        assert await core.find_rows(Query(table=DATA.parts, order_by="any")) == []


@on_sqlite
async def test_listing_reads_no_values(
    new_storage: NewStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with MastraStrandsStorage(new_storage()) as storage:
        for key in ["session/a/1", "session/a/2", "session/b/1", "memory/a"]:
            await storage.write(key, b"value")
        asked: list[Any] = []
        core = storage.bridge._open()[1]
        query = core.backend.query

        async def watched(wanted: Any) -> Any:
            asked.append((wanted.table.name, wanted.prefix))
            return await query(wanted)

        monkeypatch.setattr(core.backend, "query", watched)
        monkeypatch.setattr(core.backend, "get", None)
        assert await storage.list("session/a/") == ["session/a/1", "session/a/2"]
        assert asked == [("strands_names", ("session", "a"))]


@on_sqlite
async def test_namespaces_and_search(new_storage: NewStorage) -> None:
    async with MastraStrandsStorage(new_storage()) as storage:
        team = storage.namespace("/team//red/")
        await storage.write("flights.md", b"Oslo to Bergen")
        await team.write("notes.md", b"Ada likes the window, from Oslo")
        await team.namespace("deep").write("x", b"1")
        assert await team.list() == ["deep/x", "notes.md"]
        assert await storage.list("team/") == ["team/red/deep/x", "team/red/notes.md"]
        assert await team.read("notes.md") == await storage.read("team/red/notes.md")
        assert [found.key for found in await team.search("who goes to Oslo?")] == ["notes.md"]
        assert len(await storage.search("Oslo")) == 2
        assert await storage.namespace("").list() == await storage.list()
        await team.delete("notes.md")
        assert await storage.list("team/red/n") == []


@on_sqlite
async def test_memories(new_storage: NewStorage) -> None:
    async with MastraStrandsStorage(new_storage()) as storage:
        await storage.write("session/other", b"oslo oslo")
        await FileMemoryStore(name="ada", storage=storage).add("# Seats\nAda likes the window")
        again = FileMemoryStore(name="ada", storage=storage)
        await again.add("# Seats\nand leaves from Oslo")
        [found] = await again.search("from Oslo")
        assert found.content == "# Seats\nAda likes the window\nand leaves from Oslo"
        assert await storage.list("memory/") == ["memory/ada/seats.md"]


async def test_writers_at_once_leave_a_whole_value(new_storage: NewStorage) -> None:
    values = [bytes([number]) * (500_000 if number % 2 else 10) for number in range(4)]
    one, other = (MastraStrandsStorage(new_storage()) for _ in range(2))
    async with one, other:
        for storage in (one, other):
            await asyncio.gather(*[storage.write("k", value) for value in values])
        assert await other.read("k") in values
        await asyncio.gather(*[one.write(f"many/{n}", b"x") for n in range(30)])
        assert len(await one.list("many/")) == 30
        await asyncio.gather(*[one.delete(f"many/{n}") for n in range(30)])
        assert await one.list("many/") == []


@on_sqlite
async def test_what_is_there_is_listed_whoever_deletes(new_storage: NewStorage) -> None:
    one, other = (MastraStrandsStorage(new_storage()) for _ in range(2))
    async with one, other:
        for key in map(str, range(40)):
            await asyncio.gather(one.delete(key), other.write(key, b"x"), one.delete(key))
        there = [key for key in map(str, range(40)) if await one.read(key) is not None]
        assert await one.list() == sorted(there)


@on_sqlite_and_kv
def test_it_is_called_from_many_loops_and_from_one_that_is_blocked(
    new_storage: NewStorage,
) -> None:
    with MastraStrandsStorage(new_storage()) as storage:
        asyncio.run(storage.write("k", b"1"))

        async def blocked() -> list[bytes | None]:
            # What Strands does when an agent is made inside of a running loop.
            found: list[bytes | None] = []
            thread = threading.Thread(target=lambda: found.append(asyncio.run(storage.read("k"))))
            thread.start()
            thread.join(timeout=30)
            return [*found, await storage.read("k")]

        assert asyncio.run(blocked()) == [b"1", b"1"]
    assert "mastra-storage-strands" not in {thread.name for thread in threading.enumerate()}


@on_sqlite
async def test_it_must_be_open(new_storage: NewStorage) -> None:
    storage = MastraStrandsStorage(new_storage())
    with pytest.raises(StorageError, match="use it inside `with`") as error:
        await storage.read("k")
    assert isinstance(error.value.__cause__, mastra_storage.UnavailableError)
    async with storage:
        await storage.write("k", b"1")
    with pytest.raises(StorageError):
        await storage.read("k")
    async with storage:
        assert await storage.read("k") == b"1"


async def test_errors_are_those_of_strands(tmp_path: Path) -> None:
    async with MastraStrandsStorage(open_storage(f"sqlite:///{tmp_path / 'a.db'}")) as storage:
        with pytest.raises(StorageError) as error:
            await storage.write("\ud800", b"")
        assert isinstance(error.value.__cause__, mastra_storage.InvalidRecordError)


def test_what_does_not_open_leaves_no_thread() -> None:
    with pytest.raises(mastra_storage.UnavailableError):
        MastraStrandsStorage(open_storage("sqlite:////no/such/directory/x.db")).__enter__()
    assert "mastra-storage-strands" not in {thread.name for thread in threading.enumerate()}


async def test_a_cancelled_opening_leaves_no_thread() -> None:
    begun = threading.Event()

    class Slow(MemoryBackend):
        async def open(self) -> None:
            begun.set()
            await asyncio.sleep(0.1)
            await super().open()

    storage = MastraStrandsStorage(Storage(Slow()))
    task = asyncio.create_task(storage.__aenter__())
    assert await asyncio.to_thread(begun.wait, 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert "mastra-storage-strands" not in {thread.name for thread in threading.enumerate()}
    async with storage:
        await storage.write("k", b"1")


@on_sqlite
async def test_what_is_open_is_not_opened_again(new_storage: NewStorage) -> None:
    async with MastraStrandsStorage(new_storage()) as storage:
        with pytest.raises(mastra_storage.InvalidArgumentError, match="already open"):
            await storage.namespace("below").__aenter__()
        await storage.write("k", b"1")
    assert "mastra-storage-strands" not in {thread.name for thread in threading.enumerate()}


@on_sqlite
async def test_a_cancelled_call_leaves_the_storage_usable(new_storage: NewStorage) -> None:
    async with MastraStrandsStorage(new_storage()) as storage:
        for _ in range(20):
            task = asyncio.create_task(storage.write("k", b"x" * 100_000))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await storage.write("k", b"1")
        assert await storage.read("k") == b"1"


async def test_it_is_a_storage() -> None:
    storage = MastraStrandsStorage(open_storage("memory://"))
    assert isinstance(storage, strands.storage.Storage)
    assert "memory" in repr(storage)


@on_sqlite
def test_copy_knows_the_tables_in_a_new_process(
    new_storage: NewStorage, storage_url: str, tmp_path: Path
) -> None:
    big = bytes(range(256)) * 8_000
    with MastraStrandsStorage(new_storage()) as storage:
        asyncio.run(storage.write("session/a", big))
    copied = f"sqlite:///{tmp_path / 'copied.db'}"
    command = Path(sys.executable).with_name("mastra-storage")
    subprocess.run([command, "copy", storage_url, copied], check=True, capture_output=True)
    with MastraStrandsStorage(open_storage(copied)) as storage:
        assert asyncio.run(storage.list()) == ["session/a"]
        assert asyncio.run(storage.read("session/a")) == big
