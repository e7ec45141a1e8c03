"""Waiting for what may take a while to hold."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from mastra_storage.backend import Backend

T = TypeVar("T")

EVENTUALLY = 90.0
"""Within how many seconds another store sees a write, where `strong_reads` is not declared."""

_LOOK_AGAIN = 0.02


async def until(
    read: Callable[[], Awaitable[T]], good: Callable[[T], bool], within: float = 0.0
) -> T:
    """What `read` gives as soon as it is `good`, or what it gives after `within` seconds."""
    end = time.monotonic() + within
    while True:
        found = await read()
        if good(found) or time.monotonic() >= end:
            return found
        await asyncio.sleep(_LOOK_AGAIN)


def settling(backend: Backend, eventually: float = EVENTUALLY) -> float:
    """Within how many seconds another store sees what this one acknowledged."""
    return 0.0 if backend.capabilities.strong_reads else eventually
