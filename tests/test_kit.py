"""The tools of the kit: faults, isolation, a run against a live store."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import pytest

from mastra_storage.backend import Capabilities, Op, Put, Query, Touch
from mastra_storage.backends.memory import Memory, MemoryBackend
from mastra_storage.backends.sqlite import SqliteBackend
from mastra_storage.errors import (
    InvalidArgumentError,
    PluginNotFoundError,
    RateLimitedError,
    UnavailableError,
    UnsupportedError,
)
from mastra_storage.plugins import register
from mastra_storage.records import Message, Thread
from mastra_storage.schema import MESSAGES, THREADS, Row, Table
from mastra_storage.storage import Storage
from mastra_storage.testing import FaultyBackend, IsolatedBackend, isolated
from mastra_storage.testing.live import _Store, run_kit, writes_of_kit


class Results:
    """What `run_kit` told."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.details: dict[str, tuple[str, str]] = {}

    def __call__(self, rule: str, outcome: str, detail: str, seconds: float) -> None:
        assert rule not in self.details
        assert seconds >= 0
        self.outcomes[outcome] += 1
        self.details[rule] = (outcome, detail)


# -- faults ---------------------------------------------------------------------------------


async def test_a_fault_is_for_the_nth_call_and_those_that_follow() -> None:
    faulty = FaultyBackend(MemoryBackend())
    faulty.fail("get", nth=2, times=2, error=RateLimitedError("slow down"))
    outcomes = []
    for _ in range(5):
        try:
            await faulty.get(THREADS, [("t",)])
        except RateLimitedError:
            outcomes.append("failed")
        else:
            outcomes.append("ok")
    assert outcomes == ["ok", "failed", "failed", "ok", "ok"]
    assert faulty.calls == {"get": 5}


async def test_a_fault_may_be_for_certain_arguments() -> None:
    faulty = FaultyBackend(MemoryBackend())
    faulty.fail("get", matching=lambda table, keys: table is MESSAGES)
    assert await faulty.get(THREADS, [("t",)]) == [None]
    with pytest.raises(UnavailableError, match="planted"):
        await faulty.get(MESSAGES, [("t", "m")])
    faulty.fail("query", matching=lambda query: query.count)
    faulty.heal()
    assert (await faulty.query(Query(table=THREADS, count=True))).total == 0


async def test_a_fault_after_its_call_leaves_the_effect() -> None:
    async with Storage(FaultyBackend(MemoryBackend())) as storage:
        assert isinstance(storage.backend, FaultyBackend)
        for after in (False, True):
            storage.backend.fail("write", after=after)
            with pytest.raises(UnavailableError):
                await storage.save_thread(Thread(id="t", resource_id="r"))
            assert (await storage.get_thread_by_id("t") is not None) == after


async def test_calls_are_delayed_and_cancelled() -> None:
    faulty = FaultyBackend(MemoryBackend())
    faulty.delay("tables", seconds=0.05)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await faulty.tables()
    faulty.cancel("tables")
    task = asyncio.ensure_future(faulty.tables())
    await asyncio.wait([task])
    assert task.cancelled()
    assert await faulty.tables() == []


async def test_each_result_of_a_watch_may_fail() -> None:
    async with Storage(FaultyBackend(MemoryBackend())) as storage:
        assert isinstance(storage.backend, FaultyBackend)
        storage.backend.fail("watch", nth=2)
        values = storage.watch_threads("r")
        assert await anext(values) == []
        await storage.save_thread(Thread(resource_id="r"))
        with pytest.raises(UnavailableError):
            await anext(values)


def test_a_wrapper_has_no_url() -> None:
    with pytest.raises(UnsupportedError):
        FaultyBackend.from_url("memory://")


# -- isolation ------------------------------------------------------------------------------


async def test_isolated_tables_do_not_touch_others() -> None:
    memory = Memory()
    async with (
        Storage(MemoryBackend(memory)) as live,
        Storage(isolated(MemoryBackend(memory), "one_")) as one,
        Storage(isolated(MemoryBackend(memory), "two_")) as two,
    ):
        for storage, title in ((live, "live"), (one, "one"), (two, "two")):
            await storage.save_thread(Thread(id="t", resource_id="r", title=title))
            await storage.save_message(Message(thread_id="t", role="user", content=title))
        assert sorted(await live.backend.tables()) == [
            "messages",
            "one_messages",
            "one_threads",
            "threads",
            "two_messages",
            "two_threads",
        ]
        assert sorted(await one.backend.tables()) == ["messages", "threads"]
        [row] = await one.backend.get(THREADS, [("t",)])
        assert row is not None
        assert row.table == THREADS
        assert isinstance(one.backend, IsolatedBackend)
        await one.backend.clear()
        assert await one.get_thread_by_id("t") is None
        for storage, title in ((live, "live"), (two, "two")):
            assert [m.content for m in await storage.get_messages("t")] == [title]
        values = two.watch_threads("r")
        assert [thread.title for thread in await anext(values)] == ["two"]
        await values.aclose()


# -- a run against a live store -------------------------------------------------------------


def test_a_live_store_is_checked_and_left_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def contents() -> list[Any]:
        async with Storage(SqliteBackend(tmp_path / "live.db")) as storage:
            tables = sorted(await storage.backend.tables())
            return [tables, *await storage.get_messages("t"), *await storage.list_threads()]

    async def fill() -> None:
        async with Storage(SqliteBackend(tmp_path / "live.db")) as storage:
            await storage.save_thread(Thread(id="t", resource_id="r"))
            await storage.save_message(Message(thread_id="t", role="user", content="mine"))

    asyncio.run(fill())
    before = asyncio.run(contents())
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option\n")
    (elsewhere / "conftest.py").write_text("raise RuntimeError('not to be imported')\n")
    monkeypatch.chdir(elsewhere)
    results = Results()
    assert run_kit(f"sqlite:///{tmp_path / 'live.db'}", on_result=results) == 0
    assert results.outcomes["failed"] == 0
    assert results.outcomes["passed"] > 150
    assert results.details["threads: deleting a thread takes its messages along"][0] == "passed"
    assert results.details["paging: pages are numbered from zero (traces)"][0] == "passed"
    assert asyncio.run(contents()) == before
    assert sorted(path.name for path in elsewhere.iterdir()) == ["conftest.py", "pytest.ini"]


class Counted(MemoryBackend):
    """Counts the rows that are put or touched."""

    writes = 0

    async def write(self, ops: Sequence[Op]) -> None:
        Counted.writes += sum(isinstance(op, (Put, Touch)) for op in ops)
        await super().write(ops)


@pytest.mark.parametrize("full", [False, True])
def test_a_run_says_beforehand_how_much_it_writes(full: bool) -> None:
    register("counted", Counted)
    Counted.writes = 0
    assert run_kit("counted://one", full=full, on_result=Results()) == 0
    told = writes_of_kit(full=full)
    assert 0.9 * told <= Counted.writes <= told


class Forgetful(MemoryBackend):
    """Says that it compares and sets, and does not."""

    async def write(self, ops: Sequence[Op]) -> None:
        await super().write([Put(op.row) if isinstance(op, Put) else op for op in ops])


def test_a_run_tells_what_is_broken_and_clears_up_all_the_same() -> None:
    register("forgetful", Forgetful)
    kept = Forgetful.from_url("forgetful://one")
    results = Results()
    assert run_kit("forgetful://one", on_result=results) == 1
    outcome, detail = results.details["capabilities: compare and set lets one of many writers win"]
    assert outcome == "failed"
    assert "assert 7 == 1" in detail
    assert asyncio.run(kept.tables()) == []


class Modest(MemoryBackend):
    """Declares nothing."""

    capabilities = Capabilities(poll_interval=0.02)


def test_a_run_says_what_it_skips_and_why() -> None:
    register("modest", Modest)
    results = Results()
    assert run_kit("modest://one", on_result=results) == 0
    assert results.outcomes["failed"] == 0
    assert results.details["capabilities: strong reads see every acknowledged write"] == (
        "skipped",
        "memory does not declare strong_reads",
    )


def test_a_store_that_cannot_be_checked_is_an_error() -> None:
    results = Results()
    with pytest.raises(InvalidArgumentError, match="memory://NAME"):
        run_kit("memory://", on_result=results)
    with pytest.raises(InvalidArgumentError):
        run_kit("no url", on_result=results)
    with pytest.raises(PluginNotFoundError):
        run_kit("nothing://here", on_result=results)
    assert not results.details


class Unreachable(MemoryBackend):
    async def open(self) -> None:
        raise UnavailableError("nobody answers")

    @classmethod
    def from_url(cls, url: str, **options: Any) -> Self:
        return cls()


def test_a_store_that_does_not_answer_is_an_error() -> None:
    register("unreachable", Unreachable)
    with pytest.raises(UnavailableError, match="nobody answers"):
        run_kit("unreachable://x", on_result=Results())


def test_without_pytest_the_suite_says_what_it_needs() -> None:
    code = (
        "import sys; sys.modules['pytest'] = None\n"
        "import mastra_storage.testing\n"
        "mastra_storage.testing.StorageConformance"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install 'mastra-storage[testing]'" in done.stderr.splitlines()[-1]


def test_a_run_outside_of_pytest_tells_what_was_compared(tmp_path: Path) -> None:
    program = (
        "from mastra_storage.backends.memory import MemoryBackend\n"
        "from mastra_storage.plugins import register\n"
        "from mastra_storage.testing.live import run_kit\n"
        "class Late(MemoryBackend):\n"
        "    async def get(self, table, keys):\n"
        "        return (await super().get(table, keys))[::-1]\n"
        "register('late', Late)\n"
        "told = {}\n"
        "note = lambda rule, outcome, why, seconds: told.update({rule: why})\n"
        "run_kit('late://one', on_result=note)\n"
        "print(told['verbs: get gives rows in the order asked'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "assert ['2', '1', None, None, '2'] == ['2', None, None, '1', '2']" in done.stdout


async def test_a_clearing_that_was_interrupted_is_done_by_the_next(tmp_path: Path) -> None:
    store = _Store(f"sqlite:///{tmp_path / 'live.db'}")
    table = Table(name="notes", key=("id",))
    row = Row(table=table, key=("a",), value=b"{}", order=0, seq=0, fields={}, updated=0)
    backend = store.make()
    await backend.open()
    await backend.write([Put(row)])
    await backend.close()
    interrupted = asyncio.create_task(store.clear())
    await asyncio.sleep(0)
    interrupted.cancel()
    await asyncio.wait([interrupted])
    assert interrupted.cancelled()
    await store.clear()
    async with Storage(SqliteBackend(tmp_path / "live.db")) as storage:
        assert await storage.backend.tables() == []
