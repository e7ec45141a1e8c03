"""Fifty conversations go in and come out equal, through the store and through the command."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from conversations import conversation
from convex_server import ConvexServer
from convex_stores import convex_store
from msgspec import structs

from mastra_storage import Storage, Thread, open_storage

NUMBERS = range(50)


async def save(storage: Storage, number: int) -> None:
    thread, messages = conversation(number)
    await storage.save_thread(thread)
    await storage.save_messages(messages)


async def differing(storage: Storage) -> list[str]:
    """The threads that are not stored as they were made."""
    different = []
    for number in NUMBERS:
        thread, messages = conversation(number)
        found = await storage.get_thread_by_id(thread.id)
        if not same_thread(found, thread) or not same(
            await storage.get_messages(thread.id), messages
        ):
            different.append(thread.id)
    return different


def same_thread(found: Thread | None, made: Thread) -> bool:
    # Its messages have moved it.
    return found is not None and same(structs.replace(found, updated_at=made.updated_at), made)


def same(found: Any, made: Any) -> bool:
    # As JSON, in which 1, 1.0 and True differ.
    return msgspec.json.encode(found) == msgspec.json.encode(made)


async def test_they_come_out_as_they_went_in(convex: ConvexServer) -> None:
    async with convex_store(convex) as storage:
        await asyncio.gather(*[save(storage, number) for number in NUMBERS])
    async with convex_store(convex) as other:
        assert await differing(other) == []
        owned = await other.get_threads_by_resource_id("user:3")
        threads = [conversation(number)[0] for number in reversed(NUMBERS)]
        assert [each.id for each in owned] == [
            each.id for each in threads if each.resource_id == "user:3"
        ]


async def test_message_by_message_they_come_out_as_they_went_in(convex: ConvexServer) -> None:
    async with convex_store(convex) as storage, convex_store(convex) as other:
        for number in range(3):
            thread, messages = conversation(number)
            await storage.save_thread(thread)
            for place, message in enumerate(messages, 1):
                await storage.save_message(message)
                assert same(await other.get_messages(thread.id, last=1), [message])
                if place % 10 == 0:
                    assert same(await other.get_messages(thread.id), messages[:place])


@pytest.mark.once  # a command, as those of the core
class TestCommand:
    """`mastra-storage` on `convex+http://`, with the key in the environment."""

    @pytest.fixture
    def urls(self, convex: ConvexServer, tmp_path: Path) -> tuple[str, str, str]:
        """A file of SQLite, the deployment, and another file."""
        files = [f"sqlite:///{tmp_path}/{name}.db" for name in ("before", "after")]
        return files[0], f"convex+{convex.url}", files[1]

    async def run(self, server: ConvexServer, *arguments: str) -> tuple[int, str, str]:
        environment = {
            **os.environ,
            "CONVEX_URL": server.url,
            "CONVEX_DEPLOY_KEY": server.admin_key,
            "COLUMNS": "120",
            "PYTHONUTF8": "1",
        }
        code = "from mastra_storage.cli import main; main()"
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", code, *arguments],
            env=environment,
            capture_output=True,
            encoding="utf-8",
            timeout=120,
            check=False,
        )
        assert "Traceback" not in done.stderr
        assert server.admin_key not in done.stdout + done.stderr
        return done.returncode, done.stdout, done.stderr

    async def ok(self, server: ConvexServer, *arguments: str) -> str:
        code, out, err = await self.run(server, *arguments)
        assert code == 0, err
        return out

    async def test_they_are_copied_there_and_back(
        self, convex: ConvexServer, urls: tuple[str, str, str]
    ) -> None:
        before, deployment, after = urls
        async with open_storage(before) as storage:
            for number in NUMBERS:
                await save(storage, number)
        there = await self.ok(convex, "copy", before, deployment)
        back = await self.ok(convex, "copy", deployment, after)
        assert there.count("equal") == back.count("equal") == 2  # threads, messages
        async with open_storage(after) as storage:
            assert await differing(storage) == []

    async def test_they_are_exported_and_imported(
        self, convex: ConvexServer, urls: tuple[str, str, str], tmp_path: Path
    ) -> None:
        before, deployment, _ = urls
        async with open_storage(before) as storage:
            for number in range(5):
                await save(storage, number)
        chats, again = str(tmp_path / "chats.jsonl"), str(tmp_path / "again.jsonl")
        await self.ok(convex, "export", before, chats)
        await self.ok(convex, "import", chats, deployment)
        await self.ok(convex, "export", deployment, again)
        assert Path(chats).read_bytes() == Path(again).read_bytes()

    async def test_they_are_looked_at(
        self, convex: ConvexServer, urls: tuple[str, str, str]
    ) -> None:
        deployment = urls[1]
        async with convex_store(convex) as storage:
            for number in range(3):
                await save(storage, number)
        threads = await self.ok(convex, "threads", deployment)
        assert "Conversation 2" in threads
        thread, messages = conversation(0)
        shown = await self.ok(convex, "messages", deployment, thread.id, "--json")
        found = [msgspec.json.decode(line) for line in shown.splitlines()]
        assert [each["id"] for each in found] == [each.id for each in messages][-len(found) :]
        assert found

    async def test_the_demo_keeps_one(
        self, convex: ConvexServer, urls: tuple[str, str, str]
    ) -> None:
        shown = await self.ok(convex, "demo", urls[1])
        assert "read back from a newly opened store: 6 messages" in shown
        assert (await convex.control())["documents"]["messages"] == 6

    async def test_what_goes_wrong_is_one_line(
        self, convex: ConvexServer, urls: tuple[str, str, str]
    ) -> None:
        await convex.control(functions="none")
        code, out, err = await self.run(convex, "threads", urls[1])
        assert (code > 0, out) == (True, "")
        [line] = err.splitlines()
        assert "mastra-storage-convex init" in line
        await convex.control(functions="default", refuseKeys=True)
        code, _, err = await self.run(convex, "threads", urls[1])
        assert code > 0
        assert "deploy key" in err
