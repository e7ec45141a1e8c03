"""Changes that have an end before their caller goes on, cancelled or not."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

__all__ = ["finished"]

T = TypeVar("T")


async def finished(change: Coroutine[Any, Any, T]) -> T:
    """What a change gives. A caller that is cancelled is so when the change has happened, or not.

    The SDK reads a session right after a run was cancelled, to see what of it was kept: what came
    later would be there twice.
    """
    task = asyncio.create_task(change)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):  # this one is on its way already
                await asyncio.wait([task])
        raise
