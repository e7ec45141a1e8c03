"""An agent that waits for your answer, in whatever process it comes: start this again and again.

    python book_trip.py [URL]            asks, and stops
    python book_trip.py [URL] ANSWER     goes on with the answer, in a new process

It needs no key: LangChain's fake model stands where a real one would.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from langchain_core.language_models import FakeMessagesListChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.store.base import BaseStore
from langgraph.types import Command, interrupt
from mastra_storage_langgraph import MastraSaver, MastraStore

from mastra_storage import open_storage

MODEL = FakeMessagesListChatModel(responses=[AIMessage("Where shall the trip go to?")])


async def greet(state: MessagesState) -> dict[str, Any]:
    """Let the model ask."""
    return {"messages": [await MODEL.ainvoke(state["messages"])]}


async def ask(state: MessagesState) -> dict[str, Any]:
    """Wait for the answer, in this process or in another."""
    return {"messages": [HumanMessage(interrupt(state["messages"][-1].content))]}


async def book(state: MessagesState, *, store: BaseStore) -> dict[str, Any]:
    """Book, and remember it for the conversations to come."""
    city = state["messages"][-1].content
    await store.aput(("trips", "ada"), str(city), {"city": city})
    trips = await store.asearch(("trips", "ada"))
    return {"messages": [AIMessage(f"Booked {city}. Your trips: {len(trips)}.")]}


def agent() -> StateGraph[Any]:
    """Greets, asks, books."""
    builder = StateGraph(MessagesState)
    for node in (greet, ask, book):
        builder.add_node(node)
    builder.add_edge(START, "greet")
    builder.add_edge("greet", "ask")
    builder.add_edge("ask", "book")
    builder.add_edge("book", END)
    return builder


async def main(url: str, answer: str | None) -> None:
    config: Any = {"configurable": {"thread_id": "trip", "user_id": "ada"}}
    async with open_storage(url) as storage:
        graph = agent().compile(checkpointer=MastraSaver(storage), store=MastraStore(storage))
        waiting = (await graph.aget_state(config)).interrupts
        if not waiting:
            result = await graph.ainvoke({"messages": [("user", "A trip, please")]}, config)
            waiting = tuple(result["__interrupt__"])
        elif answer is not None:
            result = await graph.ainvoke(Command(resume=answer), config)
            print(result["messages"][-1].content)
            return
        print(f"{waiting[0].value} (start this again, with the answer)")


if __name__ == "__main__":
    asyncio.run(
        main(
            sys.argv[1] if len(sys.argv) > 1 else "sqlite:///trip.db",
            sys.argv[2] if len(sys.argv) > 2 else None,
        )
    )
