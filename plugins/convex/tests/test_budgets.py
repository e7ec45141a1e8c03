"""The same functions with room for next to nothing: all they do goes in many small parts."""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import mastra_storage_convex
import pytest
import tenacity
from convex_calls import cost_at, ids, message, messages
from convex_server import ConvexServer
from convex_stores import convex_backend, convex_store

from mastra_storage import Backend, MessageUpdate, NotFoundError, Storage, Thread
from mastra_storage.testing import StorageConformance, isolated

pytestmark = pytest.mark.once

FUNCTIONS = Path(mastra_storage_convex.__file__).parent / "functions"
SMALLER = {
    "limits.ts": {
        "new Budget(8_000,": "new Budget(7,",
        "new Budget(16_000,": "new Budget(9,",
        "new Budget(1_000,": "new Budget(6,",
        "new Budget(4_000,": "new Budget(5,",
        "ACTIVE_PURGES = 100;": "ACTIVE_PURGES = 8;",
    },
    "draft.ts": {"DROPPED_DOCUMENTS = 1_000;": "DROPPED_DOCUMENTS = 5;"},
    "reading.ts": {"KEYS = 1_000;": "KEYS = 3;"},
}
MODULES = {"machine", "paging", "queries", "scale", "tables", "threads", "verbs"}


@pytest.fixture(scope="module")
def convex_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConvexServer]:
    """A server of its own, with the shipped functions but for how much they do at once."""
    functions = tmp_path_factory.mktemp("functions") / "convex"
    shutil.copytree(FUNCTIONS, functions)
    for name, changes in SMALLER.items():
        path = functions / "mastra" / name
        text = path.read_text()
        for old, new in changes.items():
            assert text.count(old) == 1, f"{old} of {name}"
            text = text.replace(old, new)
        path.write_text(text)
    with ConvexServer.start(functions=functions) as server:
        yield server


class Kit(StorageConformance):
    """The rules that more rows have to do with than are read at once."""

    machine_examples = 5
    machine_shrinks = False
    many = 60
    very_many = 200


for name in [name for name in dir(Kit) if name.startswith("test_")]:
    if getattr(Kit, name).__module__.rpartition(".")[2] not in MODULES:
        setattr(Kit, name, None)


class TestTypedTables(Kit):
    @pytest.fixture
    def make_backend(self, convex: ConvexServer) -> Callable[[], Backend]:
        return lambda: convex_backend(convex)


class TestDocuments(Kit):
    @pytest.fixture
    def make_backend(self, convex: ConvexServer) -> Callable[[], Backend]:
        return lambda: isolated(convex_backend(convex), "kit_")


async def test_no_call_reads_more_than_its_budget(convex: ConvexServer) -> None:
    async with convex_store(convex) as storage:
        await storage.save_thread(Thread(id="t", resource_id="r"))
        await storage.save_messages(messages(40))
        async with cost_at(convex) as cost:
            assert len(await storage.get_messages("t")) == 40
            assert (await storage.get_messages_paginated("t", page=3, per_page=10)).total == 40
            assert len(await storage.get_messages_by_id("t", ids(messages(40)))) == 40
            assert len(await storage.get_messages("t", resource_id="nobody")) == 0
            assert await storage.backend.tables() == ["threads", "messages"]
    most = {"list": 8, "count": 9, "get": 15, "tables": 14}
    for entry in cost:
        assert entry["documentsRead"] <= most[entry["label"].rpartition(":")[2]]
    assert cost.labels.count("query messages:count") == 5
    assert cost.labels.count("query messages:list") >= 12


async def test_a_deletion_ends_behind_many_new_rows(convex: ConvexServer) -> None:
    async with convex_store(convex) as storage:
        await storage.save_thread(Thread(id="t", resource_id="r"))
        await storage.save_messages(messages(60))
        await convex.control(holdScheduled=True)
        await storage.delete_thread("t")
        await storage.save_thread(Thread(id="t", resource_id="r"))
        new = await storage.save_messages(messages(30))
        await convex.control(reset=True)
        await convex.control(settle=True)
        steps = await convex.log()
        assert len(steps) >= 10
        assert max(step["documentsRead"] for step in steps) <= 2 * 6 + 3
        assert await storage.get_messages("t") == new
        assert (await convex.control())["documents"]["messages"] == 30


class Conversation:
    """A thread that only one task writes to, and what must be in it."""

    def __init__(self, number: int, stores: tuple[Storage, ...]) -> None:
        self.id = f"t{number}"
        self.content: dict[str, str] | None = None
        self._stores = stores
        self._chance = random.Random(number)
        self._saved = 0

    async def live(self, steps: int) -> None:
        for step in range(steps):
            storage = self._chance.choice(self._stores)
            if self.content is None:
                with pytest.raises(NotFoundError):
                    await storage.save_message(message("ghost", self.id))
                await storage.save_thread(Thread(id=self.id, resource_id="r"))
                self.content = {}
            else:
                await self._change(storage, self.content, f"step {step}")
            await self._check(self._chance.choice(self._stores))

    async def _change(self, storage: Storage, content: dict[str, str], step: str) -> None:
        some = self._chance.sample(list(content), min(len(content), 3))
        match self._chance.choice(["save", "save", "replace", "update", "delete", "end", "end"]):
            case "save":
                new = range(self._saved, self._saved + self._chance.choice([1, 9, 20]))
                self._saved = new.stop
                await storage.save_messages([message(f"m{n}", self.id) for n in new])
                content.update({f"m{n}": f"m{n}" for n in new})
            case "replace":
                await storage.save_messages([message(id_, self.id, content=step) for id_ in some])
                content.update(dict.fromkeys(some, step))
            case "update":
                updates = [MessageUpdate(id_, content=step) for id_ in some]
                await storage.update_messages(self.id, updates)
                content.update(dict.fromkeys(some, step))
            case "delete":
                await storage.delete_messages(self.id, some)
                for id_ in some:
                    del content[id_]
            case "end":
                await storage.delete_thread(self.id)
                self.content = None

    async def _check(self, storage: Storage) -> None:
        found = {each.id: each.content for each in await storage.get_messages(self.id)}
        assert found == (self.content or {})
        thread = await storage.get_thread_by_id(self.id)
        assert (thread is None) == (self.content is None)


async def test_conversations_that_begin_and_end_at_once_while_calls_fail(
    convex: ConvexServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mastra_storage_convex.client._BACKOFF", tenacity.wait_fixed(0.01))
    faults = [
        {"kind": "status", "status": 503, "probability": 0.05},
        {"kind": "drop", "when": "after", "probability": 0.08},
        {"kind": "drop", "probability": 0.03},
        {"kind": "truncate", "probability": 0.03},
    ]
    async with convex_store(convex) as one, convex_store(convex) as other:
        await convex.control(faults=faults)
        all_of_them = [Conversation(number, (one, other)) for number in range(12)]
        living = asyncio.gather(*[each.live(30) for each in all_of_them])
        while not living.done():
            for held, seconds in ((True, 1.0), (False, 0.1)):
                await convex.control(holdScheduled=held)
                await asyncio.wait([living], timeout=seconds)
        await living
        await convex.control(faults=[], settle=True)
        documents = (await convex.control())["documents"]
    assert documents["messages"] == sum(len(each.content or ()) for each in all_of_them)
    assert (documents["purges"], documents["generations"]) == (0, 1)
