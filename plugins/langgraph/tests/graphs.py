"""Graphs that the tests run: real ones, with answers that need no model."""

from __future__ import annotations

import operator
from typing import Annotated, Any, TypedDict, cast

from langchain_core.language_models import FakeMessagesListChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.channels.delta import DeltaChannel
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import Send, interrupt


def config_of(thread_id: str, **more: Any) -> Any:
    return {"configurable": {"thread_id": thread_id, **more}}


def chat(size: int = 1000) -> StateGraph[Any]:
    """Answers each message with one of `size` characters."""

    async def answer(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage(str(len(state["messages"])).ljust(size, "."))]}

    builder = StateGraph(MessagesState)
    builder.add_node("answer", answer)
    builder.add_edge(START, "answer")
    builder.add_edge("answer", END)
    return builder


def question(number: int, size: int = 1000) -> dict[str, Any]:
    return {"messages": [HumanMessage(f"question {number} ".ljust(size, "?"))]}


class Trip(TypedDict, total=False):
    messages: Annotated[list[Any], operator.add]
    city: str
    paid: bool


def booking() -> StateGraph[Any]:
    """Asks twice before it books: for the city, then for the payment."""

    async def ask(state: Trip) -> Trip:
        call = {"name": "book", "args": {"from": "Rome"}, "id": "call-1"}
        city = interrupt("where to?")
        return {"messages": [AIMessage("Booking", tool_calls=[call], id="ai-1")], "city": city}

    async def pay(state: Trip) -> Trip:
        paid = interrupt({"city": state["city"], "price": 99})
        return {"messages": [ToolMessage("booked", tool_call_id="call-1", id="t-1")], "paid": paid}

    builder = StateGraph(Trip)
    builder.add_node("ask", ask)
    builder.add_node("pay", pay)
    builder.add_edge(START, "ask")
    builder.add_edge("ask", "pay")
    builder.add_edge("pay", END)
    return builder


def agent() -> StateGraph[Any]:
    """LangGraph's loop of a model and its tools, with LangChain's model for tests."""

    @tool
    def book(city: str) -> str:
        """Book a seat."""
        return f"seat 12A to {city}"

    call = {"name": "book", "args": {"city": "Oslo"}, "id": "call-1"}
    model = FakeMessagesListChatModel(
        responses=[AIMessage("", tool_calls=[call]), AIMessage("You have a seat.")]
    )

    async def answer(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    builder = StateGraph(MessagesState)
    builder.add_node("answer", answer)
    builder.add_node("tools", ToolNode([book]))
    builder.add_edge(START, "answer")
    builder.add_conditional_edges("answer", tools_condition)
    builder.add_edge("tools", "answer")
    return builder


class Sums(TypedDict):
    numbers: list[int]
    squares: Annotated[list[int], operator.add]


def squares() -> StateGraph[Any]:
    """Squares each number in a task of its own, all in one step."""

    async def square(number: Any) -> dict[str, Any]:
        return {"squares": [number * number]}

    builder = StateGraph(Sums)
    builder.add_node("square", cast(Any, square))  # what `Send` gives it is no state
    builder.add_conditional_edges(
        START, lambda state: [Send("square", number) for number in state["numbers"]], ["square"]
    )
    builder.add_edge("square", END)
    return builder


def _extend(state: list[str], writes: list[list[str]]) -> list[str]:
    return [*state, *[one for write in writes for one in write]]


class Log(TypedDict):
    log: Annotated[list[str], DeltaChannel(_extend, snapshot_frequency=5)]


def logging(size: int = 0) -> StateGraph[Any]:
    """A channel of which a snapshot is stored at every fifth change, and its writes between."""

    async def note(state: Log) -> Any:
        return {"log": [f"saw {len(state['log'])}".ljust(size)]}

    builder = StateGraph(Log)
    builder.add_node("note", note)
    builder.add_edge(START, "note")
    builder.add_edge("note", END)
    return builder
