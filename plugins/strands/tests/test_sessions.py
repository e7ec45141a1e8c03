"""Sessions message by message: as Strands' own repositories keep them, and as threads."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from backends import on_sqlite
from mastra_storage_strands import (
    MastraStrandsRepository,
    MastraStrandsSessionManager,
    MastraStrandsStorage,
)
from remember import Scripted, book
from strands import Agent
from strands.agent.conversation_manager import SlidingWindowConversationManager
from strands.multiagent import GraphBuilder
from strands.session import (
    FileSessionManager,
    SessionManager,
    SessionRepository,
    SnapshotSessionManager,
)
from strands.types.exceptions import SessionException
from strands.types.session import Session, SessionAgent, SessionMessage, SessionType

from mastra_storage import InvalidArgumentError, Message, Storage, open_storage

NewStorage = Callable[[], Storage]

CONTENTS: list[Any] = [
    [{"text": "Tromsø, 東京 🛫\u0000"}],
    [{"toolUse": {"toolUseId": "1", "name": "x", "input": {"a": [1, 1.0, None, 1e22]}}}],
    [{"toolResult": {"toolUseId": "1", "status": "success", "content": [{"json": {"$a.b": {}}}]}}],
    [{"image": {"format": "png", "source": {"bytes": bytes(range(256))}}}, {"text": ""}],
    [{"reasoningContent": {"reasoningText": {"text": "hm", "signature": "x=="}}}],
    [],
]


def message(number: int, **members: Any) -> SessionMessage:
    made: Any = {"role": "user", "content": CONTENTS[number % len(CONTENTS)], "tracking_id": "t"}
    return SessionMessage(made, number, **members)


def agent_state(agent_id: str = "default", **state: Any) -> SessionAgent:
    return SessionAgent(agent_id, state, {"removed_message_count": 0}, {"model_state": {}})


def exercise(repository: SessionRepository) -> list[Any]:
    """What a repository says to a life of a session; everything that has a time is given one."""
    at = "2026-01-02T03:04:05.678901+00:00"
    found: list[Any] = [repository.read_session("s")]
    repository.create_session(Session("s", SessionType.AGENT, at, at))
    found.append(repository.read_session("s"))
    found.append(repository.read_agent("s", "a"))
    for agent_id in ("a", "b"):
        repository.create_agent("s", agent_state(agent_id, x=[1, b"\xff"]))
    for number in range(12):
        repository.create_message("s", "a", message(number, created_at=at, updated_at=at))
    repository.create_message("s", "b", message(0, created_at=at, updated_at=at))
    redacted = message(3, created_at=at, updated_at=at)
    redacted.redact_message = {"role": "assistant", "content": [{"text": "[gone]"}]}
    repository.update_message("s", "a", redacted)
    found += [repository.list_messages("s", "a"), repository.list_messages("s", "b")]
    found += [repository.list_messages("s", "a", limit=3, offset=2)]
    found += [repository.list_messages("s", "a", offset=20), repository.read_message("s", "a", 3)]
    found += [repository.read_message("s", "a", 99)]
    changed = agent_state("a", y=2)
    repository.update_agent("s", changed)
    read = repository.read_agent("s", "a")
    assert read is not None
    found.append((read.state, read.conversation_manager_state, read._internal_state))
    for refused in (
        lambda: repository.create_session(Session("s", SessionType.AGENT)),
        lambda: repository.update_agent("s", agent_state("never")),
        lambda: repository.update_message("s", "a", message(99)),
    ):
        with pytest.raises(SessionException):
            refused()
    return found


def test_it_keeps_what_a_repository_of_strands_keeps(
    new_storage: NewStorage, tmp_path: Path
) -> None:
    reference = exercise(FileSessionManager("s-0", storage_dir=str(tmp_path)))
    with MastraStrandsStorage(new_storage()) as storage:
        assert exercise(MastraStrandsRepository(storage)) == reference


def agent_with(storage: MastraStrandsStorage, agent_id: str = "default", **given: Any) -> Agent:
    """An agent that goes on with the session `trip`; it blocks meanwhile."""
    session = MastraStrandsSessionManager("trip", storage, resource_id="ada", metadata={"topic": 1})
    return agent_in(session, agent_id, **given)


def agent_in(session: SessionManager[Any], agent_id: str, **given: Any) -> Agent:
    return Agent(
        model=Scripted(),
        tools=[book],
        agent_id=agent_id,
        session_manager=session,
        callback_handler=None,
        **given,
    )


@on_sqlite
async def test_conversations_are_threads(new_storage: NewStorage) -> None:
    async with MastraStrandsStorage(new_storage()) as storage, new_storage() as core:
        agent = await asyncio.to_thread(agent_with, storage)
        await agent.invoke_async("Oslo")
        [thread] = await core.list_threads(resource_id="ada", metadata={"topic": 1})
        messages = await core.get_messages(thread.id)
        assert [message.content for message in messages] == [
            message["content"] for message in agent.messages
        ]
        # What another tool writes there is not the agent's.
        await core.save_message(Message(thread_id=thread.id, role="note", content="looks fine"))
        again = await asyncio.to_thread(agent_with, storage)
        assert again.messages == agent.messages


@on_sqlite
async def test_a_redaction_is_what_the_thread_shows(new_storage: NewStorage) -> None:
    def redacted(storage: MastraStrandsStorage) -> None:
        agent = agent_with(storage)
        session: Any = agent._session_manager
        session.append_message({"role": "user", "content": [{"text": "my PIN"}]}, agent)
        session.redact_latest_message({"role": "user", "content": [{"text": "[gone]"}]}, agent)

    async with MastraStrandsStorage(new_storage()) as storage, new_storage() as core:
        await asyncio.to_thread(redacted, storage)
        [kept] = await core.get_messages("trip/default")
        assert kept.content == [{"text": "[gone]"}]
        again = await asyncio.to_thread(agent_with, storage)
        assert [message["content"] for message in again.messages] == [[{"text": "[gone]"}]]


@on_sqlite
async def test_a_window_of_the_conversation_is_restored(new_storage: NewStorage) -> None:
    def made(storage: MastraStrandsStorage) -> Agent:
        window = SlidingWindowConversationManager(window_size=4)
        return agent_with(storage, conversation_manager=window)

    async with MastraStrandsStorage(new_storage()) as storage:
        agent = await asyncio.to_thread(made, storage)
        for city in ("Oslo", "Bergen", "Bodø"):
            await agent.invoke_async(city)
        again = await asyncio.to_thread(made, storage)
        assert again.messages == agent.messages
        assert len(again.messages) <= 4
        assert again.conversation_manager.removed_message_count > 0


@on_sqlite
async def test_two_that_go_on_at_once_overwrite_nothing(new_storage: NewStorage) -> None:
    one, other = (MastraStrandsStorage(new_storage()) for _ in range(2))
    async with one, other, new_storage() as core:
        first = await asyncio.to_thread(agent_with, one)
        second = await asyncio.to_thread(agent_with, other)
        await first.invoke_async("Oslo")
        with pytest.raises(SessionException, match="another agent goes on with this session"):
            await second.invoke_async("Bergen")
        [asked, *_] = await core.get_messages("trip/default")
        assert asked.content == [{"text": "Oslo"}]
        again = await asyncio.to_thread(agent_with, other)
        await again.invoke_async("Bergen")
        assert len(await core.get_messages("trip/default")) == 8


@on_sqlite
async def test_state_and_many_agents(new_storage: NewStorage) -> None:
    async with MastraStrandsStorage(new_storage()) as storage:
        for turn in range(2):
            session = await asyncio.to_thread(MastraStrandsSessionManager, "trip", storage)
            for name in ("one", "two"):
                agent = await asyncio.to_thread(agent_in, session, name)
                assert len(agent.messages) == 4 * turn
                assert agent.state.get("by") == (name if turn else None)
                agent.state.set("by", name)
                await agent.invoke_async("Bodø")


@on_sqlite
async def test_orchestrators_are_kept(new_storage: NewStorage) -> None:
    def made(storage: MastraStrandsStorage) -> Any:
        builder = GraphBuilder()
        builder.add_node(Agent(model=Scripted(), tools=[book], callback_handler=None), "only")
        builder.set_session_manager(MastraStrandsSessionManager("trip", storage))
        builder.set_graph_id("travel").set_max_node_executions(5)
        return builder.build()

    async with MastraStrandsStorage(new_storage()) as storage:
        graph = await asyncio.to_thread(made, storage)
        await graph.invoke_async("Oslo")
        repository = MastraStrandsRepository(storage)
        kept = await asyncio.to_thread(repository.read_multi_agent, "trip", "travel")
        assert kept == json.loads(json.dumps(graph.serialize_state()))
        assert kept is not None
        assert kept["completed_nodes"] == ["only"]
        await asyncio.to_thread(made, storage)  # goes on with it


@on_sqlite
def test_agents_without_an_event_loop(new_storage: NewStorage) -> None:
    with MastraStrandsStorage(new_storage()) as storage:
        for turn in range(2):
            agent = agent_with(storage)
            assert len(agent.messages) == 4 * turn
            agent("Oslo")


@on_sqlite
async def test_snapshots(new_storage: NewStorage) -> None:
    async with MastraStrandsStorage(new_storage()) as storage:
        session = SnapshotSessionManager(
            "trip", storage=storage, snapshot_trigger=lambda agent_data, **_: True
        )
        agent = agent_in(session, "default")
        await agent.invoke_async("Oslo")
        await agent.invoke_async("Bergen")
        first, second = await session.list_snapshot_ids(agent)
        assert await session.restore_snapshot(agent, snapshot_id=first)
        assert len(agent.messages) == 4
        assert await session.restore_snapshot(agent, snapshot_id=second)
        assert len(agent.messages) == 8
        await session.delete_session()
        assert await storage.list() == []


@on_sqlite
async def test_names_that_cannot_be(new_storage: NewStorage) -> None:
    async with MastraStrandsStorage(new_storage()) as storage:
        for name in ("", "a/b"):
            with pytest.raises(SessionException, match="must not be empty or have a slash"):
                await asyncio.to_thread(MastraStrandsSessionManager, name, storage)
    with pytest.raises(SessionException, match="is not open"):
        MastraStrandsRepository(storage).read_session("s")


def test_a_plain_storage_is_told_to_be_wrapped() -> None:
    storage: Any = open_storage("memory://")
    with pytest.raises(InvalidArgumentError, match="MastraStrandsStorage"):
        MastraStrandsSessionManager("trip", storage)
