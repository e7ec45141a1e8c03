"""Conversations as threads and messages: what the rows show after what happens to a thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from backends import on_sqlite, on_sqlite_and_convex
from graphs import agent, booking, chat, config_of, question
from langchain_core.messages import AIMessage, HumanMessage, RemoveMessage, SystemMessage
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.message import REMOVE_ALL_MESSAGES
from langgraph.types import Command
from mastra_storage_langgraph import MastraSaver
from test_saver import Mask
from test_saver import Thread as Checkpoints

from mastra_storage import Message, Op, Storage, Thread, UnavailableError

NewStorage = Callable[[], Storage]


def editing() -> StateGraph[Any]:
    """Does to its messages what it is told."""
    builder = StateGraph(MessagesState)
    builder.add_node("nothing", lambda state: {})
    builder.add_edge(START, "nothing")
    builder.add_edge("nothing", END)
    return builder


async def shown(storage: Storage, thread_id: str) -> list[tuple[str, Any]]:
    return [(one.role, one.content) for one in await storage.get_messages(thread_id)]


async def test_a_conversation_is_a_thread_with_messages(new_storage: NewStorage) -> None:
    config = config_of("trip", user_id="ada")
    async with new_storage() as storage:
        graph = booking().compile(checkpointer=MastraSaver(storage))
        await graph.ainvoke({"messages": [SystemMessage("Be brief"), HumanMessage("Hi")]}, config)
        await graph.ainvoke(Command(resume="Oslo"), config)
        await graph.ainvoke(Command(resume=True), config)
        [thread] = await storage.get_threads_by_resource_id("ada")
        assert (thread.id, thread.metadata) == ("trip", {"runtime": "langgraph"})
        assert thread.updated_at > thread.created_at
        assert await shown(storage, "trip") == [
            ("system", "Be brief"),
            ("user", "Hi"),
            (
                "assistant",
                [
                    {"type": "text", "text": "Booking"},
                    {
                        "type": "tool-call",
                        "toolCallId": "call-1",
                        "toolName": "book",
                        "args": {"from": "Rome"},
                    },
                ],
            ),
            (
                "tool",
                [
                    {
                        "type": "tool-result",
                        "toolCallId": "call-1",
                        "toolName": "",
                        "result": "booked",
                    }
                ],
            ),
        ]


async def test_an_agent_with_tools_shows_its_calls(new_storage: NewStorage) -> None:
    config = config_of("trip", user_id="ada")
    async with new_storage() as storage:
        graph = agent().compile(checkpointer=MastraSaver(storage), interrupt_before=["tools"])
        await graph.ainvoke({"messages": [HumanMessage("To Oslo, please")]}, config)
    async with new_storage() as storage:
        # What it said before is in the state: a new model would say it again.
        graph = agent().compile(checkpointer=MastraSaver(storage), interrupt_after=["tools"])
        await graph.ainvoke(None, config)
        said = await storage.get_messages("trip")
    assert [one.role for one in said] == ["user", "assistant", "tool"]
    [call], [result] = said[1].content, said[2].content
    assert (call["toolName"], call["args"]) == ("book", {"city": "Oslo"})
    assert (result["toolName"], result["result"]) == ("book", "seat 12A to Oslo")


@on_sqlite_and_convex
async def test_messages_are_added_changed_and_removed(new_storage: NewStorage) -> None:
    config = config_of("t")
    async with new_storage() as storage:
        graph = editing().compile(checkpointer=MastraSaver(storage))
        given = [HumanMessage(text, id=text) for text in ("a", "b", "c")]
        await graph.ainvoke({"messages": given}, config)
        await graph.ainvoke({"messages": [AIMessage("B", id="b"), RemoveMessage(id="a")]}, config)
        await graph.ainvoke({"messages": [HumanMessage("d", id="d")]}, config)
        expected = [("assistant", "B"), ("user", "c"), ("user", "d")]
        assert await shown(storage, "t") == expected
    async with new_storage() as storage:  # and by a process that has not seen them
        graph = editing().compile(checkpointer=MastraSaver(storage))
        await graph.ainvoke({"messages": [RemoveMessage(id="c")]}, config)
        assert await shown(storage, "t") == [expected[0], expected[2]]


async def test_a_summary_stands_before_what_it_leaves(new_storage: NewStorage) -> None:
    config = config_of("t")

    def summed_up(*texts: str) -> list[Any]:
        kept = [HumanMessage(text, id=text) for text in texts]
        return [RemoveMessage(id=REMOVE_ALL_MESSAGES), *kept]

    async with new_storage() as storage:
        graph = editing().compile(checkpointer=MastraSaver(storage))
        for text in ("a", "b", "c"):
            await graph.ainvoke({"messages": [HumanMessage(text, id=text)]}, config)
        steps = [("sum", "of a", "b", "c"), ("b", "between", "c", "d")]
        await graph.ainvoke({"messages": summed_up(*steps[0])}, config)
        assert [content for _, content in await shown(storage, "t")] == [*steps[0]]
    async with new_storage() as storage:  # and by a process that has not seen them
        graph = editing().compile(checkpointer=MastraSaver(storage))
        await graph.ainvoke({"messages": summed_up(*steps[1])}, config)
        assert [content for _, content in await shown(storage, "t")] == [*steps[1]]


@on_sqlite_and_convex
async def test_a_branch_shows_itself(new_storage: NewStorage) -> None:
    config = config_of("t")
    async with new_storage() as storage:
        graph = chat(10).compile(checkpointer=MastraSaver(storage))
        for turn in range(3):
            await graph.ainvoke(question(turn, 10), config)
        history = [state async for state in graph.aget_state_history(config)]
        first = next(s for s in reversed(history) if len(s.values.get("messages", ())) == 2)
        other = await graph.ainvoke(question(9, 10), first.config)
        expected = [message.content for message in other["messages"]]
        assert [content for _, content in await shown(storage, "t")] == expected
        await graph.ainvoke(question(10, 10), config)
        assert len(await shown(storage, "t")) == 6


@on_sqlite
async def test_two_processes_in_turn_add_to_one_conversation(new_storage: NewStorage) -> None:
    config = config_of("t")
    async with new_storage() as one, new_storage() as two:
        graphs = [chat(10).compile(checkpointer=MastraSaver(storage)) for storage in (one, two)]
        for turn in range(6):
            result = await graphs[turn % 2].ainvoke(question(turn, 10), config)
        contents = [content for _, content in await shown(one, "t")]
        assert contents == [message.content for message in result["messages"]]


@on_sqlite
async def test_runs_at_once_are_put_right_by_the_next(new_storage: NewStorage) -> None:
    async with new_storage() as one, new_storage() as two:
        first, second = (Checkpoints(MastraSaver(storage), "t") for storage in (one, two))
        a, b, c, d = (HumanMessage(text, id=text) for text in "abcd")
        await first.put(messages=[a])
        second.config, second.versions = first.config, dict(first.versions)
        await second.tuple(config_of("t"))
        await first.put(messages=[a, b])
        await second.put(messages=[a, c])
        state = await first.tuple(config_of("t", checkpoint_ns=""))
        assert state.checkpoint["channel_values"]["messages"] == [a, c]
        first.config = state.config
        await first.put(messages=[a, c, d])
        assert [content for _, content in await shown(one, "t")] == ["a", "c", "d"]


@on_sqlite_and_convex
async def test_a_thread_of_ones_own_keeps_its_title_and_messages(new_storage: NewStorage) -> None:
    async with new_storage() as storage:
        await storage.save_thread(Thread(id="t", resource_id="ada", title="Trip"))
        await storage.save_message(Message(id="note", thread_id="t", role="user", content="mine"))
        graph = chat(10).compile(checkpointer=MastraSaver(storage))
        for turn in range(2):
            await graph.ainvoke(question(turn, 10), config_of("t"))
        thread = await storage.get_thread_by_id("t")
        assert thread is not None
        assert (thread.title, thread.resource_id) == ("Trip", "ada")
        assert len(await shown(storage, "t")) == 5
        history = [state async for state in graph.aget_state_history(config_of("t"))]
        await graph.ainvoke(question(5, 10), history[-1].config)
        assert ("user", "mine") in await shown(storage, "t")


@on_sqlite_and_convex
async def test_a_conversation_that_was_deleted_comes_back_whole(new_storage: NewStorage) -> None:
    async with new_storage() as storage:
        graph = chat(10).compile(checkpointer=MastraSaver(storage))
        await graph.ainvoke(question(0, 10), config_of("t"))
        await storage.delete_thread("t")
        await graph.ainvoke(question(1, 10), config_of("t"))
        assert len(await shown(storage, "t")) == 4


@on_sqlite
async def test_without_conversations_there_are_no_threads(new_storage: NewStorage) -> None:
    async with new_storage() as storage:
        graph = chat(10).compile(checkpointer=MastraSaver(storage, conversations=False))
        await graph.ainvoke(question(0, 10), config_of("t"))
        assert (await storage.list_threads()).items == []
        late = chat(10).compile(checkpointer=MastraSaver(storage))
        await late.ainvoke(question(1, 10), config_of("t"))
        assert len(await shown(storage, "t")) == 4


@on_sqlite
async def test_conversations_beside_encrypted_checkpoints_are_asked_for(
    new_storage: NewStorage,
) -> None:
    class Hiding(JsonPlusSerializer):
        """Somebody's own, which may encrypt, too."""

    async with new_storage() as storage:

        async def threads_with(serde: SerializerProtocol, **asked: bool) -> int:
            saver = MastraSaver(storage, serde=serde, **asked)
            await chat(10).compile(checkpointer=saver).ainvoke(question(0, 10), config_of("t"))
            found = len((await storage.list_threads()).items)
            await saver.adelete_thread("t")
            return found

        for serde in (EncryptedSerializer(Mask()), Hiding()):
            assert await threads_with(serde) == 0
            assert await threads_with(serde, conversations=False) == 0
            assert await threads_with(serde, conversations=True) == 1
        assert await threads_with(JsonPlusSerializer()) == 1


@on_sqlite
async def test_half_a_character_is_shown_as_the_checkpoint_has_it(new_storage: NewStorage) -> None:
    call = {"name": "find", "args": {"text": "\ud83d"}, "id": "1"}
    parts: list[Any] = [{"type": "text", "text": "\ud83d"}]
    async with new_storage() as storage:
        graph = editing().compile(checkpointer=MastraSaver(storage))
        messages = [HumanMessage("a \ud83d"), HumanMessage(parts), AIMessage("", tool_calls=[call])]
        await graph.ainvoke({"messages": messages}, config_of("t"))
        state = await graph.aget_state(config_of("t"))
        first, second, third = state.values["messages"]
        found = await shown(storage, "t")
        assert found[:2] == [("user", first.content), ("user", second.content)]
        assert found[2][1][0]["args"] == third.tool_calls[0]["args"] == {"text": "?"}


@on_sqlite
async def test_messages_of_deleted_runs_are_gone(new_storage: NewStorage) -> None:
    async with new_storage() as storage:
        saver = MastraSaver(storage)
        graph = editing().compile(checkpointer=saver)
        for run in ("1", "2"):
            config = config_of("t")
            config["metadata"] = {"run_id": f"run-{run}"}
            await graph.ainvoke({"messages": [HumanMessage(run)]}, config)
        await storage.save_message(Message(thread_id="t", role="note", content="mine"))
        await saver.adelete_for_runs(["run-2"])
        assert await shown(storage, "t") == [("user", "1"), ("note", "mine")]
        await graph.ainvoke({"messages": [HumanMessage("3")]}, config_of("t"))
        assert await shown(storage, "t") == [("user", "1"), ("note", "mine"), ("user", "3")]
        await saver.adelete_thread("t")
        await graph.ainvoke({"messages": [HumanMessage("4")]}, config)
        await saver.adelete_for_runs(["run-2"])
        assert await shown(storage, "t") == []


@on_sqlite
async def test_messages_of_deleted_runs_are_gone_where_nothing_was_said_before(
    new_storage: NewStorage,
) -> None:
    async with new_storage() as storage:
        saver = MastraSaver(storage)
        thread = Checkpoints(saver, "t")
        await thread.put(say="")
        await thread.put({"run_id": "run-2"}, say="x", messages=[HumanMessage("x", id="1")])
        assert await shown(storage, "t") == [("user", "x")]
        await saver.adelete_for_runs(["run-2"])
        assert await shown(storage, "t") == []


@on_sqlite
async def test_channels_of_other_things_are_no_conversation(new_storage: NewStorage) -> None:
    async with new_storage() as storage:
        saver = MastraSaver(storage)
        await Checkpoints(saver, "a").put(messages=["text", "more"])
        await Checkpoints(saver, "b").put(messages="text")
        await Checkpoints(saver, "c").put(messages=[])
        await Checkpoints(saver, "d", "child").put(messages=[HumanMessage("x", id="1")])
        await Checkpoints(saver, "e").put(other=[HumanMessage("x", id="1")])
        assert (await storage.list_threads()).items == []


@on_sqlite
async def test_what_no_message_can_hold_does_not_fail_the_checkpoint(
    new_storage: NewStorage,
) -> None:
    deep: Any = "x"
    for _ in range(120):
        deep = [deep]
    messages = [
        HumanMessage([{"type": "image", "data": b"\x00\x01", "size": float("nan")}], id="bytes"),
        HumanMessage([{"type": "deep", "value": deep}], id="deep"),
        HumanMessage("no id"),
        HumanMessage("no id"),
        HumanMessage("long id", id="i" * 300),
    ]
    async with new_storage() as storage:
        thread = Checkpoints(MastraSaver(storage), "t")
        await thread.put(messages=messages)
        rows = await shown(storage, "t")
        assert rows[0] == ("user", [{"type": "image", "data": "AAE=", "size": "NaN"}])
        assert rows[1] == ("unknown", "(holds what is not JSON; the checkpoints have it)")
        assert [content for _, content in rows[2:]] == ["no id", "no id", "long id"]
        kept = await thread.saver.aget_tuple(thread.config)
        assert kept is not None
        ids = [message.id for message in kept.checkpoint["channel_values"]["messages"]]
        assert ids == [message.id for message in messages]


@on_sqlite_and_convex
async def test_a_message_larger_than_the_store_holds(new_storage: NewStorage) -> None:
    async with new_storage() as storage:
        large = HumanMessage("x" * 1_200_000, id="large")
        thread = Checkpoints(MastraSaver(storage), "t")
        await thread.put(messages=[large, HumanMessage("small", id="small")])
        assert (await thread.values())["messages"][0] == large
        limit = storage.capabilities.max_record_bytes
        (_, first), (_, second) = await shown(storage, "t")
        assert second == "small"
        if limit is not None and limit < 1_200_000:
            assert "the checkpoints have it" in first
        else:
            assert first == large.content


@on_sqlite
async def test_a_write_whose_answer_is_lost_leaves_no_message_to_a_branch(
    new_storage: NewStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with new_storage() as storage:
        thread = Checkpoints(MastraSaver(storage), "t")
        await thread.put(messages=[HumanMessage("Hi", id="1")])
        write = storage.backend.write

        async def lose(ops: Sequence[Op]) -> None:
            await write(ops)
            raise UnavailableError("the answer was lost", retryable=True)

        with monkeypatch.context() as patch:
            patch.setattr(storage.backend, "write", lose)
            with pytest.raises(UnavailableError):
                await thread.put(messages=[HumanMessage("Hi", id="1"), HumanMessage("A", id="2")])
        assert len(await storage.get_messages("t")) == 2
        await thread.put(messages=[HumanMessage("Hi", id="1"), HumanMessage("B", id="3")])
        assert await shown(storage, "t") == [("user", "Hi"), ("user", "B")]
