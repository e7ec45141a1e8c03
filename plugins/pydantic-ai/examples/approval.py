"""An agent that waits for an approval, stops, and goes on in a new process; needs no model key.

python approval.py "Book me a flight to Oslo"    # pauses: the call needs an approval
python approval.py approve                       # another process: goes on where it was
mastra-storage messages sqlite:///approval.db trip
"""

import asyncio
import sys

from mastra_storage_pydantic_ai import MastraConversationStore
from pydantic_ai import Agent, Conversation, DeferredToolRequests
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from mastra_storage import open_storage


def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    """Stands in for a model: books what it is asked for, then says what came of it."""
    last = messages[-1].parts[-1]
    if isinstance(last, ToolReturnPart):
        return ModelResponse(parts=[TextPart(f"Done: {last.content}")])
    return ModelResponse(parts=[ToolCallPart("book_flight", {"city": "Oslo"})])


agent = Agent(FunctionModel(model), output_type=[str, DeferredToolRequests])


@agent.tool_plain(requires_approval=True)
def book_flight(city: str) -> str:
    return f"a flight to {city} is booked"


async def main(prompt: str, url: str = "sqlite:///approval.db") -> None:
    async with open_storage(url) as storage:
        store = MastraConversationStore(storage, allow_races=True)  # one process at a time
        conversation = await store.load("trip") or Conversation(conversation_id="trip")
        print(f"{len(conversation.messages)} messages from before")
        if (waiting := conversation.deferred_tool_requests) is not None:
            answers = waiting.build_results(approve_all=prompt == "approve")
            result = await agent.run(conversation=conversation, deferred_tool_results=answers)
        else:
            result = await agent.run(prompt, conversation=conversation)
        await store.save(result, scope="ada")
        if isinstance(result.output, DeferredToolRequests):
            [call] = result.output.approvals
            print(f"waits for an approval: {call.tool_name}({call.args})")
        else:
            print(result.output)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
