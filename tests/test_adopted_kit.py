"""The kit in an author's hands: a wrong fixture, and a backend that hangs or blocks, are named."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from kit_runs import failures

from mastra_storage.backend import Op, Put
from mastra_storage.backends.memory import MemoryBackend
from mastra_storage.errors import ConflictError, UnavailableError
from mastra_storage.testing import live
from mastra_storage.testing._limits import TookTooLongError, within

pytestmark = pytest.mark.once  # the kit itself passes on every Python

# -- time -----------------------------------------------------------------------------------


class HangsInTables(MemoryBackend):
    async def tables(self) -> list[str]:
        await asyncio.Event().wait()
        return []


def test_a_test_that_hangs_fails_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mastra_storage.testing._store.TestStore.time_limit", 2.0)
    failed = failures(HangsInTables, full=False)
    assert [*failed] == [
        "verbs: tables names those that hold rows",
        "tables: registered tables hold mappings",
    ]
    for said in failed.values():
        assert "not done within 2 seconds: it waited in HangsInTables.tables" in said


class HangsInDeletes(MemoryBackend):
    async def write(self, ops: Sequence[Op]) -> None:
        if not isinstance(ops[0], Put):
            await asyncio.Event().wait()
        await super().write(ops)


def test_a_store_that_hangs_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "TIME_LIMIT", 0.2)
    with pytest.raises(UnavailableError, match=r"within 0\.2 .* HangsInDeletes\.write"):
        failures(HangsInDeletes, full=False)


async def test_what_comes_of_a_cancellation_is_told() -> None:
    async def goes_on() -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(9)

    async def fails() -> None:
        try:
            await asyncio.sleep(9)
        finally:
            raise ConflictError("no")

    with pytest.raises(TookTooLongError, match="it was cancelled then, and went on"):
        await within(0.01, goes_on())
    with pytest.raises(TookTooLongError, match=r"fails raised ConflictError\('no'\)"):
        await within(0.01, fails())
    with pytest.raises(TimeoutError):
        await within(9, asyncio.wait_for(asyncio.sleep(9), 0.01))


# -- the fixture ----------------------------------------------------------------------------

ADOPTED = """
import asyncio
import time

import pytest
from blockbuster import blockbuster_ctx
from mastra_storage.backends.memory import Memory, MemoryBackend
from mastra_storage.testing import StorageConformance


class TestOneObject(StorageConformance):
    @pytest.fixture
    def make_backend(self):
        one = MemoryBackend()
        return lambda: one


class TestStoresApart(StorageConformance):
    @pytest.fixture
    def make_backend(self):
        return MemoryBackend


class TestOneStoreForAll(StorageConformance):
    memory = Memory()

    @pytest.fixture
    def make_backend(self):
        return lambda: MemoryBackend(self.memory)


class Hangs(MemoryBackend):
    async def open(self):
        await asyncio.Event().wait()


class TestHangsAtOpening(StorageConformance):
    time_limit = 0.2

    @pytest.fixture
    def make_backend(self):
        return Hangs


class Stalls(MemoryBackend):
    async def query(self, query):
        return await asyncio.Event().wait()


class Sleeps(MemoryBackend):
    async def write(self, ops):
        time.sleep(0.001)
        await super().write(ops)


class TestBlocks(StorageConformance):
    @pytest.fixture
    def make_backend(self):
        memory = Memory()
        return lambda: Sleeps(memory)

    @pytest.fixture(autouse=True)
    def never_blocks(self):
        with blockbuster_ctx("test_adopted"):
            yield


class TestHangsInTheMachine(StorageConformance):
    time_limit = 0.2

    @pytest.fixture
    def make_backend(self):
        return Stalls
"""
NEW = "test_each_call_of_make_backend_makes_a_new_backend"
SAME = "test_backends_of_one_test_are_on_the_same_store"
EMPTY = "test_each_test_begins_with_an_empty_store"
RANDOM = "test_random_calls_give_what_they_give_on_memory"
TOLD = {
    f"FAILED TestOneObject::{NEW}": "make_backend gave the same object twice",
    f"FAILED TestStoresApart::{SAME}": "what one backend wrote, the next of make_backend does not",
    f"FAILED TestOneStoreForAll::{EMPTY}[second]": "table threads has rows already",
    f"ERROR TestHangsAtOpening::{EMPTY}[first]": "within 0.2 seconds: it waited in Hangs.open",
    f"ERROR TestHangsAtOpening::{EMPTY}[second]": "within 0.2 seconds: it waited in Hangs.open",
    f"FAILED TestBlocks::{SAME}": "Blocking call to time.sleep",
    f"FAILED TestHangsInTheMachine::{RANDOM}": "within 0.2 seconds: it waited in Stalls.query",
}


def test_a_wrong_fixture_and_a_wait_without_end_are_named(tmp_path: Path) -> None:
    (tmp_path / "test_adopted.py").write_text(ADOPTED)
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n")
    tests = {test.split()[1].partition("[")[0] for test in TOLD}
    command = [sys.executable, "-m", "pytest", "-q", "-rfE", "-p", "no:cacheprovider"]
    run = subprocess.run(
        [*command, *[f"test_adopted.py::{test}" for test in tests]],
        cwd=tmp_path,
        env=os.environ | {"COLUMNS": "500", "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    told = dict(
        line.replace("test_adopted.py::", "").split(" - ", 1)
        for line in run.stdout.splitlines()
        if line.startswith(("FAILED", "ERROR "))
    )
    assert told.keys() == TOLD.keys()
    assert {test for test, said in TOLD.items() if said not in told[test]} == set()
