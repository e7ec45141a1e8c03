"""What goes wrong while an agent goes on: its session is whole, or it is told."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from backends import on_sqlite
from mastra_storage_strands import (
    MastraStrandsRepository,
    MastraStrandsSessionManager,
    MastraStrandsStorage,
)
from mastra_storage_strands.sessions import _Orchestrator
from remember import Scripted, book
from strands import Agent, tool
from strands.agent.agent_result import AgentResult
from strands.agent.conversation_manager import SlidingWindowConversationManager
from strands.multiagent import GraphBuilder
from strands.telemetry.metrics import EventLoopMetrics
from strands.types.exceptions import SessionException
from strands.types.session import SessionMessage

from mastra_storage import MESSAGES, InvalidRecordError, Put, Storage, UnavailableError
from mastra_storage.backends.memory import MemoryBackend
from mastra_storage.testing import FaultyBackend

NewStorage = Callable[[], Storage]


def agent_with(storage: MastraStrandsStorage, **given: Any) -> Agent:
    """An agent that goes on with the session `trip`; it blocks meanwhile."""
    session = MastraStrandsSessionManager("trip", storage)
    tools = given.pop("tools", [book])
    return Agent(
        model=Scripted(), tools=tools, session_manager=session, callback_handler=None, **given
    )


def seen(agent: Agent) -> list[str]:
    """The agent's messages, each by its text or its kind."""
    blocks: list[Any] = [block for message in agent.messages for block in message["content"]]
    return [block.get("text") or next(iter(block)) for block in blocks]


class Node:
    """A node of a graph that gives a large picture after a while."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    async def stream_async(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        await asyncio.sleep(self.seconds)
        content: Any = [{"image": {"format": "png", "source": {"bytes": bytes(2_000_000)}}}]
        message: Any = {"role": "assistant", "content": content}
        yield {"result": AgentResult("end_turn", message, EventLoopMetrics(), {})}

    async def invoke_async(self, *args: Any, **kwargs: Any) -> None: ...

    def __call__(self, *args: Any, **kwargs: Any) -> None: ...


@on_sqlite
async def test_nodes_of_a_graph_end_while_others_are_being_stored(new_storage: NewStorage) -> None:
    def made(storage: MastraStrandsStorage) -> Any:
        builder = GraphBuilder()
        for number in range(6):
            builder.add_node(Node(0.1 + number / 100), f"n{number}")  # type: ignore[arg-type]
            builder.set_entry_point(f"n{number}")
        builder.set_session_manager(MastraStrandsSessionManager("trip", storage))
        return builder.set_graph_id("all").set_max_node_executions(9).build()

    async with MastraStrandsStorage(new_storage()) as storage:
        graph = await asyncio.to_thread(made, storage)
        assert (await graph.invoke_async("go")).status.value == "completed"
        repository = MastraStrandsRepository(storage)
        kept = await asyncio.to_thread(repository.read_multi_agent, "trip", "all")
        assert kept == json.loads(json.dumps(graph.serialize_state()))


def test_an_older_state_of_a_graph_replaces_no_newer_one() -> None:
    class Source:
        id = "all"

        def __init__(self) -> None:
            self.done: list[str] = []

        def serialize_state(self) -> dict[str, Any]:
            return {"done": self.done}

    orchestrator, source = _Orchestrator(), Source()
    first = orchestrator.taken(source)  # type: ignore[arg-type]
    source.done.append("n1")
    second = orchestrator.taken(source)  # type: ignore[arg-type]
    source.done.append("n2")
    written: list[Any] = []
    for state in (second, first):
        orchestrator.write(state, lambda state: written.append(state.serialize_state()))
    assert written == [{"done": ["n1"]}]


@on_sqlite
async def test_who_has_lost_a_session_changes_nothing_of_it(new_storage: NewStorage) -> None:
    one, other = (MastraStrandsStorage(new_storage()) for _ in range(2))
    async with one, other:
        repository = MastraStrandsRepository(one)
        for change_only_state in (False, True):
            first = await asyncio.to_thread(agent_with, one)
            second = await asyncio.to_thread(agent_with, other)
            first.state.set("booked", "Oslo")
            await first.invoke_async("Oslo")
            second.state.set("booked", "Bergen")
            session = second._session_manager
            assert session is not None
            for _ in range(6):
                going_on = (
                    asyncio.to_thread(session.sync_agent, second)
                    if change_only_state
                    else second.invoke_async("Bergen")
                )
                with pytest.raises(SessionException, match="make this one anew"):
                    await going_on
            kept = await asyncio.to_thread(repository.read_agent, "trip", "default")
            assert kept is not None
            assert kept.state == {"booked": "Oslo"}
            again = await asyncio.to_thread(agent_with, other)
            assert again.messages == first.messages


@pytest.mark.parametrize("after", [False, True])
def test_what_could_not_be_stored_is_stored_with_the_next_message(after: bool) -> None:
    backend = FaultyBackend(MemoryBackend())

    def made() -> Agent:
        window = SlidingWindowConversationManager(window_size=6)
        return agent_with(storage, conversation_manager=window)

    with MastraStrandsStorage(Storage(backend)) as storage:
        agent = made()
        agent("A")
        backend.fail("write", error=UnavailableError("the network is gone"), after=after)
        with pytest.raises(SessionException, match="the network is gone"):
            agent("B")
        for city in "BCD":
            agent(city)
        assert seen(made()) == seen(agent)


@pytest.mark.parametrize("after", [False, True])
def test_a_state_whose_writing_failed_is_written_later(after: bool) -> None:
    backend = FaultyBackend(MemoryBackend())
    with MastraStrandsStorage(Storage(backend)) as storage:
        agent = agent_with(storage)
        agent("A")
        agent.state.set("booked", "A")
        session = agent._session_manager
        assert session is not None
        backend.fail("write", error=UnavailableError("the network is gone"), after=after)
        with pytest.raises(SessionException, match="the network is gone"):
            session.sync_agent(agent)
        agent("B")
        assert agent_with(storage).state.get("booked") == "A"


@pytest.mark.parametrize(("value", "said"), [("\ud800", "lone surrogate"), ({1}, "must be JSON")])
def test_what_can_never_be_stored_ends_one_turn_only(value: Any, said: str) -> None:
    @tool(name="book")
    def odd(city: str) -> dict[str, Any]:
        """Book a seat."""
        content = [{"text": city}, {"json": {"seats": value if city == "A" else city}}]
        return {"status": "success", "content": content}

    with MastraStrandsStorage(Storage(MemoryBackend())) as storage:
        agent = agent_with(storage, tools=[odd])
        with pytest.raises(Exception, match=said) as caught:
            agent("A")
        causes = [caught.value, caught.value.__cause__, caught.value.__cause__.__cause__]  # type: ignore[union-attr]
        assert any(isinstance(cause, InvalidRecordError) for cause in causes)
        agent.messages.clear()
        agent("B")
        assert "You have B." in seen(agent_with(storage))


async def test_a_cancelled_run_leaves_out_no_message_that_the_agent_has() -> None:
    async with MastraStrandsStorage(Storage(MemoryBackend())) as storage:
        agent = await asyncio.to_thread(agent_with, storage)
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(2))
        busy = [loop.run_in_executor(None, time.sleep, 0.5) for _ in range(2)]
        run = asyncio.create_task(agent.invoke_async("Oslo"))
        await asyncio.sleep(0.2)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        await asyncio.gather(*busy)
        await agent.invoke_async("Bergen")
        again = await asyncio.to_thread(agent_with, storage)
        assert again.messages == agent.messages
        assert seen(again)[0] == "Oslo"


@on_sqlite
async def test_a_session_goes_on_after_its_thread_was_deleted(new_storage: NewStorage) -> None:
    async with MastraStrandsStorage(new_storage()) as storage, new_storage() as core:
        agent = await asyncio.to_thread(agent_with, storage)
        agent.state.set("booked", "Oslo")
        await agent.invoke_async("Oslo")
        await core.delete_thread("trip/default")
        again = await asyncio.to_thread(agent_with, storage)
        assert (again.messages, again.state.get()) == ([], {"booked": "Oslo"})
        await again.invoke_async("Bergen")
        assert len(await core.get_messages("trip/default")) == 4


@on_sqlite
async def test_a_session_is_deleted_with_all_that_is_of_it(new_storage: NewStorage) -> None:
    async with MastraStrandsStorage(new_storage()) as storage, new_storage() as core:
        repository = MastraStrandsRepository(storage)
        agent = await asyncio.to_thread(agent_with, storage)
        await agent.invoke_async("Oslo")
        await asyncio.to_thread(repository.delete_session, "trip")
        assert await core.get_thread_by_id("trip/default") is None
        assert await core.get_messages("trip/default") == []
        assert await asyncio.to_thread(repository.read_session, "trip") is None
        assert await asyncio.to_thread(repository.read_agent, "trip", "default") is None
        with pytest.raises(SessionException, match="is not there"):
            await asyncio.to_thread(repository.delete_session, "trip")


@on_sqlite
async def test_what_python_has_and_json_does_not(new_storage: NewStorage) -> None:
    @tool(name="book")
    def odd(city: str) -> dict[str, Any]:
        """Book a seat."""
        result = {"price": float("nan"), 1: (2, float("-inf")), None: True}
        return {"status": "success", "content": [{"text": "12A"}, {"json": result}]}

    async with MastraStrandsStorage(new_storage()) as storage:
        agent = await asyncio.to_thread(agent_with, storage, tools=[odd])
        agent.state.set("limits", {1: float("inf")})
        await agent.invoke_async("Oslo")
        again = await asyncio.to_thread(agent_with, storage, tools=[odd])
        assert again.state.get() == {"limits": {"1": None}}
        [result] = [
            block["toolResult"]["content"][1]["json"]
            for message in again.messages
            for block in message["content"]
            if "toolResult" in block
        ]
        assert result == {"price": None, "1": [2, None], "null": True}


@on_sqlite
async def test_a_message_of_another_is_not_taken_for_one_s_own(new_storage: NewStorage) -> None:
    async with MastraStrandsStorage(new_storage()) as storage, new_storage() as core:
        agent = await asyncio.to_thread(agent_with, storage)
        await agent.invoke_async("Oslo")
        [row] = await core.get_rows(MESSAGES, [("trip/default", "00000000")])
        assert row is not None
        await core.write_rows(Put(row))
        repository = MastraStrandsRepository(storage)
        kept = await asyncio.to_thread(repository.read_message, "trip", "default", 0)
        assert kept is not None
        create = repository.create_message
        await asyncio.to_thread(create, "trip", "default", kept)  # the very same: stored already
        other = SessionMessage({**kept.message, "content": [{"text": "Bergen"}]}, 0)
        with pytest.raises(SessionException, match="is there already"):
            await asyncio.to_thread(create, "trip", "default", other)


@pytest.mark.parametrize(
    "held",
    ["storage.__enter__()", "held = held_open(storage); next(held)", "storage.bridge.open()"],
)
def test_one_that_was_not_closed_lets_the_interpreter_end(held: str, tmp_path: Path) -> None:
    code = f"""
from mastra_storage import open_storage
from mastra_storage_strands import MastraStrandsStorage
def held_open(storage):
    with storage:
        yield
storage = MastraStrandsStorage(open_storage("sqlite:///{tmp_path}/a.db"))
{held}
"""
    done = subprocess.run(
        [sys.executable, "-c", code], timeout=60, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_no_thread_is_left() -> None:
    with MastraStrandsStorage(Storage(MemoryBackend())):
        pass
    assert "mastra-storage-strands" not in {thread.name for thread in threading.enumerate()}
