"""What calls cost at the server, and records to call with."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from convex_server import ConvexServer

from mastra_storage import Message

WRITE = "mutation system:write"


class Cost(list[dict[str, Any]]):
    """The calls that reached the server, as its log has them; scheduled functions apart."""

    @property
    def labels(self) -> list[str]:
        return [entry["label"] for entry in self]

    @property
    def documents(self) -> int:
        """How many documents they read."""
        return sum(entry["documentsRead"] for entry in self)

    @property
    def written(self) -> int:
        """How many documents they wrote or deleted."""
        return sum(entry["documentsWritten"] for entry in self)


@asynccontextmanager
async def cost_at(server: ConvexServer) -> AsyncIterator[Cost]:
    """What reaches the server inside `async with`."""
    await server.control(reset=True)
    cost = Cost()
    yield cost
    cost += [entry for entry in await server.log() if not entry["label"].startswith("scheduled")]


def message(id: str, thread_id: str = "t", **members: Any) -> Message:
    return Message(**{"id": id, "thread_id": thread_id, "role": "user", "content": id} | members)


def messages(count: int, thread_id: str = "t", start: int = 0) -> list[Message]:
    """Messages m0, m1 … with their ids as content."""
    return [message(f"m{number}", thread_id) for number in range(start, start + count)]


def ids(records: Iterable[Any]) -> list[str]:
    return [record.id for record in records]
