"""Plain rows of tables, the contract's and others."""

from __future__ import annotations

from typing import Any

import pytest

from mastra_storage.errors import InvalidArgumentError, InvalidRecordError
from mastra_storage.records import Eval, Message, Resource, Thread, Trace, WorkflowRun
from mastra_storage.schema import TABLES
from mastra_storage.storage import Storage
from mastra_storage.testing.suite._base import Base, full
from mastra_storage.testing.suite._build import ROWS, at, contents, messages, thread_with

_ONE_OF_EACH: dict[str, tuple[Any, dict[str, str]]] = {
    "threads": (Thread(id="t", resource_id="r", created_at=at()), {"id": "t"}),
    "messages": (
        Message(id="m", thread_id="no thread", role="user", content=1, created_at=at()),
        {"thread_id": "no thread", "id": "m"},
    ),
    "workflow_snapshot": (
        WorkflowRun(run_id="1", workflow_name="w", snapshot={}, created_at=at()),
        {"workflow_name": "w", "run_id": "1"},
    ),
    "traces": (Trace(id="x", created_at=at()), {"id": "x"}),
    "evals": (Eval(id="e", agent_name="a", created_at=at()), {"id": "e"}),
    "resources": (Resource(id="r", created_at=at()), {"id": "r"}),
}


class TableTests(Base):
    async def test_records_are_inserted_and_loaded_by_key(self, storage: Storage) -> None:
        assert set(_ONE_OF_EACH) == set(TABLES)
        for name, (record, key) in _ONE_OF_EACH.items():
            assert await storage.load(name, **key) is None
            await storage.insert(name, record)
        for name, (record, key) in _ONE_OF_EACH.items():
            assert await storage.load(name, **key) == record

    async def test_clearing_a_table_spares_all_others(self, storage: Storage) -> None:
        for name, (record, _) in _ONE_OF_EACH.items():
            await storage.insert(name, record)
        left = dict(_ONE_OF_EACH)
        for name in _ONE_OF_EACH:
            _, key = left.pop(name)
            await storage.clear_table(name)
            assert await storage.load(name, **key) is None
            for other, (record, other_key) in left.items():
                assert await storage.load(other, **other_key) == record

    async def test_mappings_are_taken_with_either_spelling(self, storage: Storage) -> None:
        given = {"threadId": "t", "id": "m", "role": "user", "content": "hi"}
        await storage.insert("messages", given | {"createdAt": "2024-05-06T07:08:09.123456Z"})
        found = await storage.load("messages", thread_id="t", id="m")
        assert (found.content, found.created_at) == ("hi", at())
        await storage.insert("threads", {"id": "t", "resource_id": "r", "created_at": at()})
        assert contents(await storage.get_messages("t", resource_id="r")) == ["hi"]

    @full
    async def test_inserting_a_thread_again_keeps_its_messages(self, storage: Storage) -> None:
        await thread_with(storage, messages("t", "ab"))
        await storage.insert("threads", Thread(id="t", resource_id="r"))
        assert contents(await storage.get_messages("t")) == ["a", "b"]

    @full
    async def test_clearing_threads_leaves_their_messages(self, storage: Storage) -> None:
        await thread_with(storage, messages("t", "ab"))
        await storage.clear_table("threads")
        assert contents(await storage.get_messages("t")) == ["a", "b"]
        await storage.delete_messages("t", ["m0"])
        assert contents(await storage.get_messages("t")) == ["b"]

    async def test_a_batch_is_checked_whole(self, storage: Storage) -> None:
        await storage.batch_insert("evals", [])
        good = Eval(id="good", agent_name="a")
        bad: list[Any] = [
            Eval(id="", agent_name="a"),
            {"agent_name": "a", "colour": 1},
            {"id": "x"},
            Trace(id="x"),
            7,
        ]
        for record in bad:
            with pytest.raises(InvalidRecordError):
                await storage.batch_insert("evals", [good, record])
        assert await storage.load("evals", id="good") is None
        await storage.batch_insert("evals", [good, {"id": "other", "agentName": "b"}])
        assert (await storage.get_evals()).total == 2

    async def test_registered_tables_hold_mappings(self, storage: Storage) -> None:
        storage.register(ROWS)
        storage.register(ROWS)
        record = {"box": "b", "id": "", "color": "red", "deep": [{"x": None}]}
        await storage.batch_insert("kit_rows", [record, {"box": "b", "id": "2"}])
        assert await storage.load("kit_rows", box="b", id="") == record
        assert await storage.load("kit_rows", box="b", id="3") is None
        for bad in ({"box": "b"}, {"box": 1, "id": "x"}, {"box": "b", "id": "x", "color": 7}, [1]):
            with pytest.raises(InvalidRecordError):
                await storage.insert("kit_rows", bad)
        assert "kit_rows" in await storage.backend.tables()
        await storage.clear_table("kit_rows")
        assert await storage.load("kit_rows", box="b", id="2") is None

    async def test_unknown_tables_and_keys_are_refused(self, storage: Storage) -> None:
        for table in ("nothing", "", None, "kit_rows"):
            with pytest.raises(InvalidArgumentError):
                await storage.insert(table, {})  # type: ignore[arg-type]
            with pytest.raises(InvalidArgumentError):
                await storage.clear_table(table)  # type: ignore[arg-type]
        for key in ({}, {"id": "m"}, {"id": "m", "thread_id": "t", "x": "y"}):
            with pytest.raises(InvalidArgumentError):
                await storage.load("messages", **key)
        with pytest.raises(InvalidArgumentError):
            await storage.load("messages", id="", thread_id="t")
