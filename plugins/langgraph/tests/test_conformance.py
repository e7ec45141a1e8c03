"""LangGraph's own conformance tests, counted capability by capability."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable

import pytest
from backends import on_sqlite
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.conformance import checkpointer_test, validate
from mastra_storage_langgraph import MastraSaver

from mastra_storage import Storage

TESTS = {
    "put": 17,
    "put_writes": 10,
    "get_tuple": 10,
    "list": 16,
    "delete_thread": 5,
    "delete_for_runs": 7,
    "copy_thread": 8,
    "prune": 8,
}


@on_sqlite
async def test_a_saver_that_remembers_nothing_passes_as_well(
    new_storage: Callable[[], Storage], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mastra_storage_langgraph._reading._BOUND", 0)
    await test_every_test_of_every_capability_passes(new_storage)


async def test_every_test_of_every_capability_passes(new_storage: Callable[[], Storage]) -> None:
    @checkpointer_test(name="MastraSaver")
    async def saver() -> AsyncGenerator[BaseCheckpointSaver[str], None]:
        async with new_storage() as storage:
            yield MastraSaver(storage)

    report = await validate(saver)
    results = report.to_dict()["results"]
    failures = [one for result in results.values() for one in result.get("failures") or ()]
    assert failures == []
    assert {name: result["tests_passed"] for name, result in results.items()} == TESTS
