"""An agent that remembers in whatever process it runs: start this twice.

    python remember.py [URL] [messages|snapshots]

It needs no key: `Scripted` stands where a model would, and answers from the messages it is given.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from mastra_storage_strands import MastraStrandsSessionManager, MastraStrandsStorage
from strands import Agent, tool
from strands.models import Model
from strands.session import SessionManager, SnapshotSessionManager

from mastra_storage import open_storage


@tool
def book(city: str) -> str:
    """Book a seat."""
    return f"seat 12A to {city}"


class Scripted(Model):
    """Books a seat for each message of the user, then says what it has booked so far."""

    async def stream(self, messages: Any, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        """A call of the tool for a message, and an answer for its result."""
        yield {"messageStart": {"role": "assistant"}}
        if "text" in messages[-1]["content"][-1]:
            use = {"name": "book", "toolUseId": f"use-{len(messages)}"}
            city = messages[-1]["content"][-1]["text"]
            yield {"contentBlockStart": {"start": {"toolUse": use}}}
            yield {"contentBlockDelta": {"delta": {"toolUse": {"input": f'{{"city": "{city}"}}'}}}}
            reason = "tool_use"
        else:
            results = [
                block["toolResult"]["content"][0]["text"]
                for message in messages
                for block in message["content"]
                if "toolResult" in block
            ]
            yield {"contentBlockDelta": {"delta": {"text": f"You have {', '.join(results)}."}}}
            reason = "end_turn"
        yield {"contentBlockStop": {}}
        yield {"messageStop": {"stopReason": reason}}

    async def structured_output(
        self, output_model: Any, *args: Any, **kwargs: Any
    ) -> AsyncGenerator[dict[str, Any], None]:
        """An output of its defaults."""
        yield {"output": output_model()}

    def update_config(self, **config: Any) -> None:
        """There is nothing to be set."""

    def get_config(self) -> dict[str, Any]:
        """There is nothing to be set."""
        return {}


def session_in(storage: MastraStrandsStorage, kept: str) -> SessionManager[Any]:
    if kept == "snapshots":
        return SnapshotSessionManager("trip", storage=storage)
    return MastraStrandsSessionManager("trip", storage, resource_id="ada")


async def main(url: str, kept: str) -> None:
    async with MastraStrandsStorage(open_storage(url)) as storage:
        session = await asyncio.to_thread(session_in, storage, kept)
        agent = await asyncio.to_thread(
            Agent,
            model=Scripted(),
            tools=[book],
            session_manager=session,
            callback_handler=None,
        )
        before = len(agent.messages)
        city = "Bergen" if before else "Oslo"
        answer = await agent.invoke_async(city)
        print(f"{before} messages from before · {city}, please · {str(answer).strip()}")


if __name__ == "__main__":
    arguments = dict(enumerate(sys.argv))
    asyncio.run(main(arguments.get(1, "sqlite:///remember.db"), arguments.get(2, "messages")))
