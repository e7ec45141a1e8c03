"""What a step costs: bytes, writes and reads, at the beginning and late in a conversation."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from backends import on_sqlite
from graphs import chat, config_of, logging, question
from mastra_storage_langgraph import MastraSaver

from mastra_storage import Op, Put, Query, Result, Storage

NewStorage = Callable[[], Storage]


class Counts:
    """Calls of a storage's backend."""

    def __init__(self, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clear()
        write, query, get = storage.backend.write, storage.backend.query, storage.backend.get

        async def counted_write(ops: Sequence[Op]) -> None:
            self.writes += 1
            self.bytes += sum(len(op.row.value) for op in ops if isinstance(op, Put))
            await write(ops)

        async def counted_query(asked: Query) -> Result:
            self.reads += 1
            return await query(asked)

        async def counted_get(*asked: Any) -> Any:
            self.reads += 1
            return await get(*asked)

        monkeypatch.setattr(storage.backend, "write", counted_write)
        monkeypatch.setattr(storage.backend, "query", counted_query)
        monkeypatch.setattr(storage.backend, "get", counted_get)

    def clear(self) -> None:
        self.writes = self.bytes = self.reads = 0


@asynccontextmanager
async def counting(
    new_storage: NewStorage, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Storage, Counts]]:
    async with new_storage() as storage:
        yield storage, Counts(storage, monkeypatch)


@on_sqlite
@pytest.mark.parametrize("conversations", [True, False])
async def test_step_200_writes_no_more_than_step_2(
    new_storage: NewStorage, monkeypatch: pytest.MonkeyPatch, conversations: bool
) -> None:
    async with counting(new_storage, monkeypatch) as (storage, counts):
        saver = MastraSaver(storage, conversations=conversations)
        graph = chat().compile(checkpointer=saver)
        cost: list[int] = []
        for turn in range(100):  # of two messages each
            counts.clear()
            await graph.ainvoke(question(turn), config_of("long"))
            cost.append(counts.bytes)
        assert cost[99] < 1.1 * cost[1]
        state = await graph.aget_state(config_of("long"))
        assert len(state.values["messages"]) == 200


@on_sqlite
async def test_a_turn_is_a_write_a_call_and_few_reads(
    new_storage: NewStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with counting(new_storage, monkeypatch) as (storage, counts):
        graph = chat().compile(checkpointer=MastraSaver(storage))
        for turn in range(5):
            counts.clear()
            await graph.ainvoke(question(turn), config_of("t"))
        assert counts.writes == 5  # three checkpoints, the writes of two tasks
        assert counts.reads == 2  # the checkpoint, and the writes on top of it
    async with counting(new_storage, monkeypatch) as (storage, counts):
        graph = chat().compile(checkpointer=MastraSaver(storage))
        await graph.aget_state(config_of("t"))
        assert counts.reads == 3  # and its values, together with the writes


@on_sqlite
async def test_the_snapshots_of_a_delta_channel_write_what_is_new(
    new_storage: NewStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with counting(new_storage, monkeypatch) as (storage, counts):
        saver = MastraSaver(storage, conversations=False)
        graph = logging(1000).compile(checkpointer=saver)
        cost: list[int] = []
        for turn in range(60):
            counts.clear()
            result = await graph.ainvoke({"log": [f"turn {turn}"]}, config_of("t"))
            cost.append(counts.bytes)
        # A snapshot at every fifth change, of what came since the one before.
        assert max(cost[-10:]) < 1.2 * max(cost[2:12])
        assert (await graph.aget_state(config_of("t"))).values == result
        fresh = logging(1000).compile(checkpointer=MastraSaver(storage))
        assert (await fresh.aget_state(config_of("t"))).values == result
        await saver.aprune(["t"])
        await saver.adelete_for_runs(["nothing"])
        assert (await fresh.aget_state(config_of("t"))).values == result
        after = await fresh.ainvoke({"log": ["more"]}, config_of("t"))
        assert after["log"][:-2] == result["log"]


@on_sqlite
async def test_a_process_that_knows_nothing_writes_no_more(
    new_storage: NewStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with new_storage() as storage:
        graph = chat().compile(checkpointer=MastraSaver(storage))
        for turn in range(30):
            await graph.ainvoke(question(turn), config_of("t"))
    async with counting(new_storage, monkeypatch) as (storage, counts):
        graph = chat().compile(checkpointer=MastraSaver(storage))
        await graph.ainvoke(question(30), config_of("t"))
        first = counts.bytes
        counts.clear()
        await graph.ainvoke(question(31), config_of("t"))
        assert first < 1.1 * counts.bytes


@on_sqlite
async def test_one_changed_member_of_a_large_dict_is_written_alone(
    new_storage: NewStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    from test_saver import Thread

    async with counting(new_storage, monkeypatch) as (storage, counts):
        thread = Thread(MastraSaver(storage), "t")
        book = {f"page {number}": "x" * 1000 for number in range(100)}
        await thread.put(book=book)
        counts.clear()
        await thread.put(book={**book, "page 50": "new"})
        assert counts.bytes < 2500
        assert await thread.values() == {"book": {**book, "page 50": "new"}}
        assert list((await thread.values())["book"])[50] == "page 50"


@on_sqlite
async def test_a_list_that_forgets_its_beginning_stays_cheap_to_read(
    new_storage: NewStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    from test_saver import Thread

    async with counting(new_storage, monkeypatch) as (storage, counts):
        thread = Thread(MastraSaver(storage), "t")
        written = 0
        for step in range(300):
            window = [f"{number}".ljust(500) for number in range(step, step + 20)]
            counts.clear()
            await thread.put(window=window)
            written += counts.bytes
        assert written < 300 * 4000  # of the 10,000 that the whole window takes
        table = "langgraph_values"
        rows = await storage.find_rows(
            Query(table=storage_table(table), prefix=("t", await thread.chain("window")))
        )
        assert len(rows) < 60
        assert (await thread.values())["window"] == window


def storage_table(name: str) -> Any:
    from mastra_storage_langgraph import tables

    return next(table for table in tables.SAVER_TABLES if table.name == name)
