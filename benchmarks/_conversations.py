"""Conversations of a tool-using agent as they come in practice, always the same ones."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from typing import Any

from mastra_storage import Message

_START = datetime(2025, 3, 1, 9, 0, tzinfo=timezone.utc)
_DIFFERENT = 1_000
_CITIES = ("Lisbon", "Oslo", "Zürich", "São Paulo", "Chicago", "Nagoya", "Kraków", "Nairobi")
_WORDS = """
the booking flight is on time and your seat by window was changed to aisle because fare class
allows one bag more than before please confirm that I should pay with card ending in 4242 or
certificate which covers all but nine euros of it thank you for waiting while we looked into
this – naturally there are no fees – anything else before we close ticket today
"""


def message_of(thread_id: str, number: int) -> Message:
    """One message, of about 1 KB on average: a user's, an answer, a tool's call or its result."""
    role, content = _turn(number % _DIFFERENT)
    return Message(
        id=f"msg-5d1c8a3f-{number:012d}",
        thread_id=thread_id,
        role=role,
        content=content,
        metadata={"model": "m-1", "tokens": number % 4000} if role == "assistant" else {},
        created_at=_START + timedelta(seconds=7 * number, microseconds=number * 7919 % 10**6),
    )


def messages_of(thread_id: str, count: int, start: int = 0) -> list[Message]:
    return [message_of(thread_id, number) for number in range(start, start + count)]


def batches_of(thread_id: str, count: int, size: int) -> Iterator[list[Message]]:
    for start in range(0, count, size):
        yield messages_of(thread_id, min(size, count - start), start)


@lru_cache(_DIFFERENT)
def _turn(number: int) -> tuple[str, Any]:
    return _TURNS[number % len(_TURNS)](random.Random(number), number)


def _text(chance: random.Random, words: int) -> str:
    return " ".join(chance.choices(_WORDS.split(), k=words)).capitalize() + "."


def _question(chance: random.Random, number: int) -> tuple[str, Any]:
    return "user", _text(chance, chance.randrange(8, 120))


def _answer(chance: random.Random, number: int) -> tuple[str, Any]:
    return "assistant", [{"type": "text", "text": _text(chance, chance.randrange(60, 320))}]


def _call(chance: random.Random, number: int) -> tuple[str, Any]:
    calls = [
        {
            "id": f"call_{chance.getrandbits(64):016x}",
            "type": "function",
            "function": {
                "name": "search_direct_flight",
                "arguments": f'{{"to": "{chance.choice(_CITIES)}", "date": "2025-04-0{n + 1}"}}',
            },
        }
        for n in range(chance.randrange(1, 4))
    ]
    return "assistant", {"content": None, "tool_calls": calls}


def _result(chance: random.Random, number: int) -> tuple[str, Any]:
    flights = [
        {
            "flight_number": f"HAT{chance.randrange(1000):03d}",
            "origin": chance.choice(_CITIES),
            "destination": chance.choice(_CITIES),
            "available": chance.random() < 0.8,
            "prices": {
                "economy": chance.randrange(60, 400),
                "business": 1.5 * chance.randrange(900),
            },
        }
        for _ in range(chance.randrange(2, 16))
    ]
    return "tool", {"tool_call_id": f"call_{number}", "content": flights}


_TURNS = (_question, _call, _result, _answer)
