"""Processes that are forked while a file is open, as `multiprocessing` did by default to 3.13."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks; refused elsewhere")

# Each process tells the other by a pipe when it may go on.
BOTH = """
import asyncio, multiprocessing, os, sqlite3, sys
from mastra_storage import Message, Thread, UnavailableError, open_storage

URL = "sqlite:///agent.db"
from_parent, to_child = os.pipe()
from_child, to_parent = os.pipe()
inherited = open_storage(URL)

def message(id):
    return Message(id=id, thread_id="t", role="user", content="x")

async def ids(storage):
    return [m.id for m in await storage.get_messages("t")]

async def reopened():
    async with open_storage(URL) as storage:
        return await ids(storage)

def forked(child):
    process = multiprocessing.get_context("fork").Process(target=lambda: asyncio.run(child()))
    process.start()
    return process

def ended(process):
    process.join()
    assert process.exitcode == 0
"""

CLOSED_BY_THE_PARENT = """
async def child():
    async with open_storage(URL) as storage:
        await storage.save_message(message("c1"))
        os.write(to_parent, b".")
        os.read(from_parent, 1)
        await storage.save_message(message("c2"))
        print(await ids(storage), flush=True)

async def parent():
    async with inherited as storage:
        await storage.save_thread(Thread(id="t", resource_id="r"))
        await storage.save_message(message("p1"))
        process = forked(child)
        os.read(from_child, 1)
        await storage.save_message(message("p2"))
    os.write(to_child, b".")
    ended(process)
    print(await reopened())

asyncio.run(parent())
"""

CLOSED_BY_THE_CHILD = """
async def child():
    await inherited.close()
    print(await reopened(), flush=True)

async def parent():
    async with inherited as storage:
        await storage.save_thread(Thread(id="t", resource_id="r"))
        await storage.save_message(message("p1"))
        ended(forked(child))
        await storage.save_message(message("p2"))
        print(await reopened())

asyncio.run(parent())
"""

FORKED_WHEN_STORED = """
import time
from mastra_storage.backends._sqlite_handover import Handover

tell = Handover.call

def tell_and_be_slow(self, *args):
    tell(self, *args)
    time.sleep(0.2)

Handover.call = tell_and_be_slow

async def child():
    print(await reopened(), flush=True)

async def parent():
    async with inherited as storage:
        await storage.save_thread(Thread(id="t", resource_id="r"))
        await storage.save_message(message("p1"))
        ended(forked(child))

asyncio.run(parent())
"""

FORKED_WHILE_WRITING = """
async def child():
    try:
        await reopened()
    except UnavailableError as error:
        print(error.retryable, error, flush=True)

async def parent():
    async with inherited as storage:
        await storage.save_thread(Thread(id="t", resource_id="r"))
        holder = sqlite3.connect("agent.db", isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        saving = asyncio.create_task(storage.save_message(message("p1")))
        await asyncio.sleep(0.2)  # the writer is done with the thread, and waits for the lock
        while not storage.backend._session.writer.at_work:
            await asyncio.sleep(0.001)
        ended(forked(child))
        holder.execute("ROLLBACK")
        holder.close()
        await saving
        print(await ids(storage))

asyncio.run(parent())
"""


def said(program: str, directory: Path) -> list[str]:
    # Python 3.12 and later warn of a process with threads that forks.
    ignored = ["-W", "ignore::DeprecationWarning"]
    done = subprocess.run(
        [sys.executable, *ignored, "-c", BOTH + program],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_a_forked_process_keeps_what_it_saves_when_its_parent_closes(tmp_path: Path) -> None:
    everything = str(["p1", "c1", "p2", "c2"])
    assert said(CLOSED_BY_THE_PARENT, tmp_path) == [everything, everything]


def test_a_forked_process_closes_nothing_for_its_parent(tmp_path: Path) -> None:
    assert said(CLOSED_BY_THE_CHILD, tmp_path) == [str(["p1"]), str(["p1", "p2"])]


def test_a_process_may_be_forked_as_soon_as_something_is_stored(tmp_path: Path) -> None:
    assert said(FORKED_WHEN_STORED, tmp_path) == [str(["p1"])]


def test_what_was_in_use_at_the_fork_is_refused(tmp_path: Path) -> None:
    refused, kept = said(FORKED_WHILE_WRITING, tmp_path)
    assert refused.startswith("False sqlite: open: ")
    assert "agent.db was in use when this process was forked" in refused
    assert kept == str(["p1"])
