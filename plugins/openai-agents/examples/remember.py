"""An agent that remembers in whatever process it runs: start this twice.

    python remember.py [URL]

It needs no key: `Scripted` stands where a model would, and answers from the items it is given.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

from agents import Agent, Model, ModelResponse, RunConfig, Runner, Usage, function_tool
from agents.items import TResponseStreamEvent
from mastra_storage_openai_agents import MastraSession
from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseFunctionToolCall,
    ResponseOutputItem,
    ResponseOutputMessage,
    ResponseOutputText,
)

from mastra_storage import open_storage


@function_tool
def book(city: str) -> str:
    """Book a seat."""
    return f"seat 12A to {city}"


class Scripted(Model):
    """Books a seat for each message of the user, then says what it has booked so far."""

    async def get_response(
        self, system_instructions: str | None, input: Any, *args: Any, **kwargs: Any
    ) -> ModelResponse:
        """A call of the tool for a message, and an answer for its result."""
        return ModelResponse(output=[answer_to(input)], usage=Usage(), response_id=None)

    async def stream_response(
        self, system_instructions: str | None, input: Any, *args: Any, **kwargs: Any
    ) -> AsyncIterator[TResponseStreamEvent]:
        """The same, as a stream of one event: the response is complete."""
        response = Response(
            id=f"response-{len(input)}",
            created_at=0,
            model="scripted",
            object="response",
            output=[answer_to(input)],
            parallel_tool_calls=False,
            tool_choice="auto",
            tools=[],
        )
        yield ResponseCompletedEvent(
            type="response.completed", response=response, sequence_number=0
        )


def answer_to(items: list[Any]) -> ResponseOutputItem:
    return say(items) if "output" in items[-1] else call_tool(items)


def call_tool(items: list[Any]) -> ResponseOutputItem:
    return ResponseFunctionToolCall(
        type="function_call",
        call_id=f"call-{len(items)}",
        name="book",
        arguments=json.dumps({"city": items[-1]["content"]}),
    )


def say(items: list[Any]) -> ResponseOutputItem:
    booked = [item["output"] for item in items if item.get("type") == "function_call_output"]
    text = ResponseOutputText(
        type="output_text", text=f"You have {', '.join(booked)}.", annotations=[]
    )
    return ResponseOutputMessage(
        id=f"msg-{len(items)}",
        type="message",
        role="assistant",
        status="completed",
        content=[text],
    )


async def main(url: str) -> None:
    agent = Agent(name="Travel", model=Scripted(), tools=[book])
    async with open_storage(url) as storage:
        session = MastraSession("trip", storage, resource_id="ada")
        before = await session.get_items()
        city = "Bergen" if before else "Oslo"
        run = await Runner.run(
            agent, city, session=session, run_config=RunConfig(tracing_disabled=True)
        )
        print(f"{len(before)} items from before · {city}, please · {run.final_output}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "sqlite:///remember.db"))
