"""Conversations of agents that use tools, of every kind of content; the same whenever made."""

from __future__ import annotations

import random
from datetime import datetime, timedelta, timezone
from typing import Any

from mastra_storage import Message, Thread

_START = datetime(2025, 1, 2, 3, 4, 5, 678901, tzinfo=timezone.utc)
_IDS = ("plain", "a:b", "a/b?#%20", "42", "__proto__", "..", "🧵 né", "a\0b", "$ref", "x" * 240)
_WORDS = ("flight", "bag", "fare", "Lisbon", "Zürich", "東京", "✈", "“cabin”", "12:30", "€240")

Conversation = tuple[Thread, list[Message]]


def conversation(number: int) -> Conversation:
    """A thread with a system message and 10 to 60 turns, some of them of one moment."""
    chance = random.Random(number)
    start = _START + timedelta(hours=number)
    thread = Thread(
        id=f"{_IDS[number % len(_IDS)]}-{number}",
        resource_id=f"user:{number % 7}",
        title=f"Conversation {number}",
        metadata={"number": number, "tags": ["a", "é"], "$reward": chance.random()},
        created_at=start,
        updated_at=start,
    )
    turns: list[tuple[str, str, Any]] = [("system", "text", _text(chance, 800))]
    for turn in range(chance.randint(3, 20)):
        call = f"call_{number}_{turn}"
        turns += [
            ("user", "text", _text(chance, 30)),
            ("assistant", "tool-call", _tool_call(chance, call)),
            ("tool", "tool-result", {"tool_call_id": call, "content": _result(chance)}),
        ]
    messages = [
        Message(
            id=f"{number}:{turn}",
            thread_id=thread.id,
            role=role,
            type=kind,
            content=content,
            metadata={"turn": turn} if turn % 2 else {},
            created_at=start + timedelta(microseconds=turn // 2),
        )
        for turn, (role, kind, content) in enumerate(turns)
    ]
    return thread, messages


def _text(chance: random.Random, words: int) -> str:
    return " ".join(chance.choices(_WORDS, k=words))


def _tool_call(chance: random.Random, id: str) -> dict[str, Any]:
    arguments = f'{{"passengers": {chance.randint(1, 9)}, "to": "{chance.choice(_WORDS)}"}}'
    function = {"name": "search_flights", "arguments": arguments}
    return {"content": None, "tool_calls": [{"id": id, "type": "function", "function": function}]}


def _result(chance: random.Random) -> Any:
    """What a tool gave: numbers of all sizes, odd names, empty things."""
    return chance.choice(
        [
            [],
            {},
            "",
            {"$price": chance.uniform(0, 1e6), "_id": 2**53 + chance.randint(1, 2**60), "ok": True},
            [{"type": "text", "text": _text(chance, 200)}, {"type": "image", "data": None}],
            {"total": 10**25, "share": 1.0, "count": 1, "delay": -0.0, "": [[[]]]},
        ]
    )
