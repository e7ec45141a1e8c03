"""The agent of the demo: it can look up the weather, and remembers by its messages alone."""

from __future__ import annotations

from typing import Any

import msgspec

from mastra_storage.records import Message, Thread
from mastra_storage.storage import Storage

__all__ = ["THREAD", "converse"]

THREAD = "demo"

_FORECASTS = {
    "Lisbon": {"sky": "sunny", "high": 27},
    "Oslo": {"sky": "snowy", "high": -3},
    "Kyoto": {"sky": "rainy", "high": 18},
    "Nairobi": {"sky": "clear", "high": 24},
}


async def converse(storage: Storage) -> int:
    """Two questions, and the agent's answers; says how many messages there were before."""
    if await storage.get_thread_by_id(THREAD) is None:
        await storage.save_thread(Thread(id=THREAD, resource_id="you", title="Weather"))
    earlier = await storage.get_messages(THREAD)
    city = list(_FORECASTS)[len(_questions(earlier)) % len(_FORECASTS)]
    await _ask(storage, f"What will the weather be in {city} tomorrow?", city)
    await _ask(storage, "Which cities have I asked you about so far?")
    return len(earlier)


async def _ask(storage: Storage, question: str, city: str | None = None) -> None:
    """Keep a question, and what the agent makes of it, as one batch each."""
    await storage.save_message(_message("user", question))
    if city is None:
        cities = dict.fromkeys(_questions(await storage.get_messages(THREAD)))
        await storage.save_message(_message("assistant", f"{_listed(list(cities))}."))
        return
    call_id, forecast = f"call-{city.lower()}", _FORECASTS[city]
    function = {
        "name": "get_forecast",
        "arguments": msgspec.json.encode({"city": city, "day": "tomorrow"}).decode(),
    }
    call = {"id": call_id, "type": "function", "function": function}
    result = {
        "tool_call_id": call_id,
        "name": "get_forecast",
        "content": msgspec.json.encode(forecast).decode(),
    }
    answer = f"{city} will be {forecast['sky']}, with up to {forecast['high']} °C."
    await storage.save_messages(
        [
            _message("assistant", {"content": None, "tool_calls": [call]}, "tool-call"),
            _message("tool", result, "tool-result"),
            _message("assistant", answer),
        ]
    )


def _message(role: str, content: Any, type: str = "text") -> Message:
    return Message(thread_id=THREAD, role=role, content=content, type=type)


def _questions(messages: list[Message]) -> list[str]:
    """The cities that the tool was called for, as the stored calls say."""
    calls = [
        call["function"]["arguments"]
        for message in messages
        if message.type == "tool-call"
        for call in message.content["tool_calls"]
    ]
    return [msgspec.json.decode(arguments)["city"] for arguments in calls]


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
