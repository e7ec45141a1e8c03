"""Real graphs on every backend: interrupts, resumes, branches, parallel tasks, sub-graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from backends import on_sqlite_and_convex
from graphs import booking, chat, config_of, logging, question, squares
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command
from mastra_storage_langgraph import MastraSaver

from mastra_storage import Storage

NewStorage = Callable[[], Storage]


async def test_a_graph_goes_on_where_it_was_interrupted(new_storage: NewStorage) -> None:
    config = config_of("trip")
    async with new_storage() as storage:
        graph = booking().compile(checkpointer=MastraSaver(storage))
        first = await graph.ainvoke({"messages": []}, config)
        assert first["__interrupt__"][0].value == "where to?"
    async with new_storage() as storage:
        graph = booking().compile(checkpointer=MastraSaver(storage))
        state = await graph.aget_state(config)
        assert state.next == ("ask",)
        assert [one.value for task in state.tasks for one in task.interrupts] == ["where to?"]
        second = await graph.ainvoke(Command(resume="Oslo"), config)
        assert second["__interrupt__"][0].value == {"city": "Oslo", "price": 99}
    async with new_storage() as storage:
        graph = booking().compile(checkpointer=MastraSaver(storage))
        done = await graph.ainvoke(Command(resume=True), config)
        assert (done["city"], done["paid"]) == ("Oslo", True)
        assert [message.id for message in done["messages"]] == ["ai-1", "t-1"]
        assert (await graph.aget_state(config)).next == ()


@on_sqlite_and_convex
async def test_a_conversation_goes_on_in_another_store(new_storage: NewStorage) -> None:
    config = config_of("talk")
    seen: list[Any] = []
    for turn in range(3):
        async with new_storage() as storage:
            graph = chat(50).compile(checkpointer=MastraSaver(storage))
            before = await graph.aget_state(config)
            assert before.values.get("messages", []) == seen
            seen = (await graph.ainvoke(question(turn, 50), config))["messages"]
    assert [message.content.strip(".") for message in seen[1::2]] == ["1", "3", "5"]


@on_sqlite_and_convex
async def test_branches_share_what_is_before_them(new_storage: NewStorage) -> None:
    config = config_of("fork")
    async with new_storage() as storage:
        graph = chat(50).compile(checkpointer=MastraSaver(storage))
        for turn in range(3):
            await graph.ainvoke(question(turn, 50), config)
        history = [state async for state in graph.aget_state_history(config)]
        after_first = next(s for s in reversed(history) if len(s.values.get("messages", ())) == 2)
        other = await graph.ainvoke(question(9, 50), after_first.config)
        assert len(other["messages"]) == 4
    async with new_storage() as storage:
        graph = chat(50).compile(checkpointer=MastraSaver(storage))
        newest = await graph.aget_state(config)
        assert newest.values["messages"] == other["messages"]
        again = await graph.aget_state(history[0].config)
        assert again.values == history[0].values
        assert len(again.values["messages"]) == 6


@on_sqlite_and_convex
async def test_state_is_changed_from_outside(new_storage: NewStorage) -> None:
    config = config_of("changed")
    async with new_storage() as storage:
        graph = booking().compile(checkpointer=MastraSaver(storage))
        await graph.ainvoke({"messages": []}, config)
        await graph.aupdate_state(config, {"city": "Bergen"}, as_node="ask")
        state = await graph.aget_state(config)
        assert state.values["city"] == "Bergen"
        assert state.next == ("pay",)


@on_sqlite_and_convex
async def test_what_parallel_tasks_wrote_comes_in_their_order(new_storage: NewStorage) -> None:
    async with new_storage() as storage:
        saver = MastraSaver(storage)
        graph = squares().compile(checkpointer=saver)
        result = await graph.ainvoke({"numbers": [3, 1, 2], "squares": []}, config_of("sums"))
        assert result["squares"] == [9, 1, 4]
        listed = [one async for one in saver.alist(config_of("sums", checkpoint_ns=""))]
        [writes] = [one.pending_writes or [] for one in listed if one.metadata["step"] == 0]
        assert [value for _, channel, value in writes if channel == "squares"] == [[9], [1], [4]]


@on_sqlite_and_convex
async def test_a_sub_graph_has_a_namespace_of_its_own(new_storage: NewStorage) -> None:
    outer = StateGraph(booking().state_schema)
    outer.add_node("booking", booking().compile(checkpointer=True))
    outer.add_edge(START, "booking")
    outer.add_edge("booking", END)
    config = config_of("nested")
    async with new_storage() as storage:
        graph = outer.compile(checkpointer=MastraSaver(storage))
        await graph.ainvoke({"messages": []}, config)
    async with new_storage() as storage:
        saver = MastraSaver(storage)
        graph = outer.compile(checkpointer=saver)
        await graph.ainvoke(Command(resume="Oslo"), config)
        done = await graph.ainvoke(Command(resume=False), config)
        assert (done["city"], done["paid"]) == ("Oslo", False)
        places = {
            one.config["configurable"]["checkpoint_ns"]
            async for one in saver.alist(config_of("nested"))
        }
        assert places == {"", "booking"}


@on_sqlite_and_convex
@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
async def test_a_delta_channel_is_rebuilt(new_storage: NewStorage, durability: Any) -> None:
    config = config_of("log")
    expected: list[str] = []
    for turn in range(7):
        async with new_storage() as storage:
            graph = logging().compile(checkpointer=MastraSaver(storage))
            result = await graph.ainvoke({"log": [f"turn {turn}"]}, config, durability=durability)
            expected += [f"turn {turn}", f"saw {len(expected) + 1}"]
            assert result["log"] == expected
            assert (await graph.aget_state(config)).values["log"] == expected
