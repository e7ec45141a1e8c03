"""Calls that threads hand over to the event loop."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mastra_storage import Storage, Thread
from mastra_storage.backends._sqlite_handover import Handover
from mastra_storage.backends._sqlite_session import Session
from mastra_storage.backends.sqlite import SqliteBackend


def in_threads(*work: Callable[[], None]) -> None:
    """Run functions in threads of their own, the event loop standing still."""
    threads = [threading.Thread(target=each) for each in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def is_open(end: int) -> bool:
    try:
        os.fstat(end)
    except OSError:
        return False
    return True


async def test_calls_of_each_thread_are_made_in_order_on_the_loop() -> None:
    handover = Handover(asyncio.get_running_loop())
    made: list[tuple[int, int, int]] = []

    def note(thread: int, number: int) -> None:
        made.append((thread, number, threading.get_ident()))

    def calling(thread: int) -> Callable[[], None]:
        def work() -> None:
            for number in range(100):
                handover.call(note, thread, number)

        return work

    in_threads(*[calling(thread) for thread in range(4)])
    assert made == []
    await asyncio.sleep(0.01)
    assert {ident for _, _, ident in made} == {threading.get_ident()}
    for thread in range(4):
        assert [number for other, number, _ in made if other == thread] == list(range(100))
    handover.close()


async def test_more_calls_than_a_pipe_has_room_for_block_nobody() -> None:
    handover = Handover(asyncio.get_running_loop())
    made: list[int] = []
    all_made = asyncio.Event()

    def work() -> None:
        for number in range(100_000):
            handover.call(made.append, number)
        handover.call(all_made.set)

    in_threads(work)
    await all_made.wait()
    assert made == list(range(100_000))
    handover.call(made.append, -1)
    await asyncio.sleep(0.01)
    assert made[-1] == -1
    handover.close()


async def test_closing_makes_the_calls_that_wait_and_releases_everything() -> None:
    handover = Handover(asyncio.get_running_loop())
    ends = handover._ends or ()
    made: list[int] = []
    in_threads(lambda: handover.call(made.append, 1))
    assert len(ends) == 2
    assert all(map(is_open, ends))
    handover.close()
    handover.close()
    assert made == [1]
    assert not any(map(is_open, ends))


async def test_one_that_nobody_closes_leaves_nothing_open() -> None:
    loop = asyncio.new_event_loop()
    handover = Handover(loop)
    ends = handover._ends or ()
    loop.close()
    assert len(ends) == 2
    assert all(map(is_open, ends))
    del handover
    gc.collect()
    assert not any(map(is_open, ends))


async def test_a_call_that_raises_harms_no_other() -> None:
    loop = asyncio.get_running_loop()
    handover = Handover(loop)
    told: list[type] = []
    made: list[int] = []
    loop.set_exception_handler(lambda _, context: told.append(type(context["exception"])))
    in_threads(lambda: handover.call(divmod, 1, 0), lambda: handover.call(made.append, 1))
    await asyncio.sleep(0.01)
    assert made == [1]
    assert told == [ZeroDivisionError]
    loop.set_exception_handler(None)
    handover.close()


class WatchesNothing(asyncio.SelectorEventLoop):
    """A loop that watches no pipes, as one of Windows."""

    def add_reader(self, *_: Any) -> None:  # type: ignore[override]
        raise NotImplementedError


def no_pipe() -> tuple[int, int]:
    raise OSError(errno.EMFILE, "Too many open files")


@pytest.mark.parametrize("without", ["nothing", "watching", "pipes", "Unix"])
def test_a_store_works_on_any_loop(
    without: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with Storage(SqliteBackend(tmp_path / "file.db")) as storage:
            await asyncio.gather(
                *[storage.save_thread(Thread(id=str(n), resource_id="r")) for n in range(20)]
            )
            page = await storage.list_threads(resource_id="r", per_page=None)
            assert len(page.items) == 20

    if without == "pipes":
        monkeypatch.setattr(os, "pipe", no_pipe)
    elif without == "Unix":
        monkeypatch.setattr("mastra_storage.backends._sqlite_handover.sys.platform", "win32")
    factory = WatchesNothing if without == "watching" else asyncio.SelectorEventLoop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())


def test_a_store_whose_loop_was_closed_under_a_call_is_closed_and_opened_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Session.read

    def slow(session: Session, work: Callable[[sqlite3.Connection], Any]) -> Any:
        time.sleep(0.1)  # until the loop is closed
        return read(session, work)

    monkeypatch.setattr(Session, "read", slow)
    storage = Storage(SqliteBackend(tmp_path / "file.db"))
    loop = asyncio.new_event_loop()
    loop.run_until_complete(storage.open())
    call = loop.create_task(storage.get_thread_by_id("t"))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()

    async def again() -> None:
        await storage.close()
        await storage.close()
        async with storage:
            assert await storage.get_thread_by_id("t") is None

    asyncio.run(again())
    assert not call.done()
    call._log_destroy_pending = False  # type: ignore[attr-defined]  # it never ends


def test_a_thread_that_is_late_for_a_closed_loop_raises_nothing() -> None:
    loop = WatchesNothing()
    handover = Handover(loop)
    loop.close()
    in_threads(lambda: handover.call([].clear))
