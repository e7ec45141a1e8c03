"""Several processes on one file, and processes that are killed."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from mastra_storage import Message, Storage, Thread
from mastra_storage.backends.sqlite import SqliteBackend

KILLS = int(os.environ.get("MASTRA_STORAGE_KILLS", "25"))
SECONDS = float(os.environ.get("MASTRA_STORAGE_SECONDS", "4"))

WRITER = """
import asyncio, sys, time
from mastra_storage import Message, Storage, Thread
from mastra_storage.backends.sqlite import SqliteBackend

path, name, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])

async def worker(storage, number, deadline):
    count = 0
    while time.monotonic() < deadline:
        batch = [
            Message(id=f"{name}-{number}-{n}", thread_id="shared", role="user", content="x" * 300)
            for n in range(count, count + 1 + count % 3)
        ]
        count += len(batch)
        await storage.save_messages(batch)
        sys.stdout.write("".join(f"{message.id}\\n" for message in batch))
        sys.stdout.flush()

async def main():
    async with Storage(SqliteBackend(path)) as storage:
        await storage.save_thread(Thread(id=f"own-{name}", resource_id="r"))
        deadline = time.monotonic() + seconds
        async with asyncio.TaskGroup() as group:
            for number in range(4):
                group.create_task(worker(storage, number, deadline))

asyncio.run(main())
"""


def start(path: Path, name: str, seconds: float) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), name, str(seconds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


async def prepare(path: Path) -> None:
    async with Storage(SqliteBackend(path)) as storage:
        await storage.save_thread(Thread(id="shared", resource_id="r"))


def check_sound(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


async def stored_ids(path: Path) -> list[str]:
    async with Storage(SqliteBackend(path)) as storage:
        return [message.id for message in await storage.get_messages("shared")]


async def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    await prepare(path)
    acknowledged: set[str] = set()
    for round_number in range(KILLS):
        process = start(path, f"r{round_number}", 60)
        assert process.stdout is not None
        first = await asyncio.to_thread(process.stdout.readline)
        assert first, "the writer must have begun"
        await asyncio.sleep(random.Random(round_number).uniform(0, 0.15))
        process.send_signal(signal.SIGKILL)
        out, _ = await asyncio.to_thread(process.communicate)
        lines = (first + out).decode().splitlines(keepends=True)
        acknowledged.update(line.strip() for line in lines if line.endswith("\n"))
        if round_number % 10 == 9:
            check_sound(path)
    stored = await stored_ids(path)
    assert len(stored) == len(set(stored))
    assert acknowledged <= set(stored)
    assert len(acknowledged) > KILLS
    check_sound(path)


async def test_four_processes_write_one_file(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    await prepare(path)
    processes = [start(path, name, SECONDS) for name in "abcd"]
    results = await asyncio.gather(*[asyncio.to_thread(p.communicate) for p in processes])
    assert [(p.returncode, err) for p, (_, err) in zip(processes, results, strict=True)] == [
        (0, b"")
    ] * 4
    stored = await stored_ids(path)
    for out, _ in results:
        written = out.decode().split()
        assert len(written) > 10
        assert set(written) <= set(stored)
    assert len(stored) == sum(len(out.split()) for out, _ in results)
    check_sound(path)


async def test_a_process_sees_what_another_writes_while_it_watches(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    await prepare(path)
    async with Storage(SqliteBackend(path)) as storage:
        seen: list[int] = []

        async def watch() -> None:
            async for messages in storage.watch_messages("shared", last=10_000):
                seen.append(len(messages))
                if messages and messages[-1].content == "done":
                    return

        watching = asyncio.create_task(watch())
        process = start(path, "other", 0.5)
        out, err = await asyncio.to_thread(process.communicate)
        assert (process.returncode, err) == (0, b"")
        assert len(seen) > 2, "changes were seen while the other process wrote"
        await storage.save_message(Message(thread_id="shared", role="user", content="done"))
        await asyncio.wait_for(watching, 5)
        assert seen == sorted(seen)
        assert seen[-1] == len(out.split()) + 1


async def test_two_processes_may_create_a_file_at_once(tmp_path: Path) -> None:
    for attempt in range(3):
        path = tmp_path / f"agent{attempt}.db"
        program = (
            "import asyncio, sys; from mastra_storage import *\n"
            "async def main():\n"
            "    async with open_storage(f'sqlite:///{sys.argv[1]}') as storage:\n"
            "        await storage.save_thread(Thread(id=sys.argv[2], resource_id='r'))\n"
            "asyncio.run(main())"
        )
        processes = [
            await asyncio.create_subprocess_exec(
                sys.executable, "-c", program, str(path), str(n), stderr=subprocess.PIPE
            )
            for n in range(4)
        ]
        results = await asyncio.gather(*[process.communicate() for process in processes])
        assert [err for _, err in results] == [b""] * 4
        async with Storage(SqliteBackend(path)) as storage:
            assert (await storage.list_threads()).total == 4


FORKED = """
import asyncio, os, sys
from mastra_storage import Resource, Storage
from mastra_storage.backends.sqlite import SqliteBackend

storage = Storage(SqliteBackend(sys.argv[1]))  # made before the fork, opened behind it

async def change(worker):
    async with storage:
        if await storage.get_resource("r") is None:
            await storage.save_resource(Resource(id="r"))
        await storage.update_resource("r", metadata={f"by {worker}": True})

for worker in range(3):
    child = os.fork()
    if not child:
        asyncio.run(change(worker))
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""


async def test_processes_forked_behind_one_storage_lose_none_of_each_others_changes(
    tmp_path: Path,
) -> None:
    path = tmp_path / "forked.db"
    forking = await asyncio.create_subprocess_exec(sys.executable, "-c", FORKED, path)
    async with asyncio.timeout(60):
        assert await forking.wait() == 0
    async with Storage(SqliteBackend(path)) as storage:
        resource = await storage.get_resource("r")
    assert resource is not None
    assert resource.metadata == {f"by {worker}": True for worker in range(3)}
