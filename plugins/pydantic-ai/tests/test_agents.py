"""Pydantic AI's own loop with its test models, on every backend and in several processes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from mastra_storage_pydantic_ai import MastraConversationStore
from processes import MASTRA_STORAGE, command
from pydantic_ai import Agent, CallDeferred, Conversation, DeferredToolRequests
from pydantic_ai.conversation_store import ConversationConflict
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.models.test import TestModel
from talk import said

from mastra_storage import Storage

EXAMPLE = Path(__file__).parent.parent / "examples" / "approval.py"


def counting() -> Agent[None, str]:
    """An agent that says how much it was told, and calls its tool at first."""

    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        if not any(isinstance(p, ToolReturnPart) for m in messages for p in m.parts):
            return ModelResponse(parts=[ToolCallPart("lookup", {"what": "fare"})])
        return ModelResponse(parts=[TextPart(f"{len(messages)} messages")])

    agent = Agent(FunctionModel(answer))

    @agent.tool_plain
    async def lookup(what: str) -> dict[str, float]:
        return {what: 99.5}

    return agent


async def test_runs_go_on_where_the_last_one_was(new_storage: Callable[[], Storage]) -> None:
    outputs = []
    for prompt in ("to Oslo", "and back"):
        async with new_storage() as storage:
            store = MastraConversationStore(storage, allow_races=True)
            conversation = await store.load("trip") or Conversation(conversation_id="trip")
            result = await counting().run(prompt, conversation=conversation)
            await store.save(result, scope="ada")
            outputs.append(result.output)
    assert outputs == ["3 messages", "5 messages"]
    async with new_storage() as storage:
        store = MastraConversationStore(storage, allow_races=True)
        loaded = await store.load("trip")
        assert loaded is not None
        assert loaded.messages == result.all_messages()
        assert loaded.usage.requests == 3
        assert loaded.usage.tool_calls == 1
        messages = await storage.get_messages("trip")
        assert [(m.role, m.type) for m in messages] == [
            ("user", "text"),
            ("assistant", "tool-call"),
            ("tool", "tool-result"),
            ("assistant", "text"),
            ("user", "text"),
            ("assistant", "text"),
        ]
        thread = await storage.get_thread_by_id("trip", resource_id="ada")
        assert thread is not None


async def test_a_run_of_the_test_model_is_saved_again_and_again(
    new_storage: Callable[[], Storage],
) -> None:
    agent = Agent(TestModel(custom_output_text="fine"))
    async with new_storage() as storage:
        store = MastraConversationStore(storage, allow_races=True)
        result = await agent.run("one")
        for number in (1, 2, 3):
            assert len(await store.save(result)) == 2
            assert await store.save(result) == []
            result = await agent.run(f"more {number}", conversation=result.conversation)
        loaded = await store.load(result.conversation.conversation_id)
        assert said(loaded) == ["one", "fine", "more 1", "fine", "more 2", "fine"]


async def test_a_call_from_outside_is_answered_later(new_storage: Callable[[], Storage]) -> None:
    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        if isinstance(part := messages[-1].parts[-1], ToolReturnPart):
            return ModelResponse(parts=[TextPart(f"it says {part.content}")])
        return ModelResponse(parts=[ToolCallPart("ask", {"whom": "bank"}, "call-1")])

    agent = Agent(FunctionModel(answer), output_type=[str, DeferredToolRequests])

    @agent.tool_plain
    async def ask(whom: str) -> str:
        raise CallDeferred(metadata={"ticket": 7})

    async with new_storage() as storage:
        store = MastraConversationStore(storage, allow_races=True)
        result = await agent.run("pay", conversation=Conversation(conversation_id="trip"))
        await store.save(result)
    async with new_storage() as storage:
        store = MastraConversationStore(storage, allow_races=True)
        conversation = await store.load("trip")
        assert conversation is not None
        waiting = conversation.deferred_tool_requests
        assert waiting is not None
        assert waiting.calls[0].args == {"whom": "bank"}
        assert waiting.metadata == {"call-1": {"ticket": 7}}
        answers = waiting.build_results(calls={"call-1": "yes"})
        result = await agent.run(conversation=conversation, deferred_tool_results=answers)
        assert result.output == "it says yes"
        await store.save(result)
        loaded = await store.load("trip")
        assert loaded is not None
        assert loaded.deferred_tool_requests is None
        assert len(loaded.messages) == 4


@pytest.mark.parametrize("backend", ["sqlite", pytest.param("cloudflare", marks=pytest.mark.once)])
async def test_the_example_goes_on_in_a_new_process(storage_url: str) -> None:
    assert await command(EXAMPLE, "Book me a flight", storage_url) == (
        "0 messages from before\nwaits for an approval: book_flight({'city': 'Oslo'})\n"
    )
    assert await command(EXAMPLE, "approve", storage_url) == (
        "2 messages from before\nDone: a flight to Oslo is booked\n"
    )
    threads = await command("-c", MASTRA_STORAGE, "threads", storage_url)
    assert re.search(r"│ trip\s+│ ada\s+│", threads)
    messages = await command("-c", MASTRA_STORAGE, "messages", storage_url, "trip")
    for shown in ("Book me a flight", '→ book_flight(city="Oslo")', "Done: a flight to Oslo"):
        assert shown in messages


@pytest.mark.parametrize("backend", ["sqlite", pytest.param("convex", marks=pytest.mark.once)])
async def test_of_two_agents_one_wins_and_the_other_is_told(
    new_storage: Callable[[], Storage],
) -> None:
    agent = Agent(TestModel(custom_output_text="fine"))

    async def run(prompt: str, storage: Storage) -> int:
        """Until it is saved; how often another was first."""
        store = MastraConversationStore(storage)
        conflicts = 0
        while True:
            conversation = await store.load("trip") or Conversation(conversation_id="trip")
            result = await agent.run(prompt, conversation=conversation)
            try:
                await store.save(result)
            except ConversationConflict:
                conflicts += 1
            else:
                return conflicts

    async with new_storage() as one, new_storage() as other:
        prompts = [f"prompt {number}" for number in range(6)]
        conflicts = await asyncio.gather(
            *[run(prompt, (one, other)[n % 2]) for n, prompt in enumerate(prompts)]
        )
        assert sum(conflicts) > 0
        kept = said(await MastraConversationStore(other).load("trip"))
        assert kept is not None
        assert sorted(kept[::2]) == prompts
        assert kept[1::2] == ["fine"] * 6
        assert len(await one.get_messages("trip")) == 12  # a conflict leaves nothing behind
